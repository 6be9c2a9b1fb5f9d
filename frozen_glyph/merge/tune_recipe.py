"""What a head tuning is to do: from a tune.yaml, the command line or Python."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.recipes.errors import require
from frozen_glyph.recipes.fields import Count, Integer, Seed, Tokens, parse, recipe
from frozen_glyph.recipes.files import override, read_recipe
from frozen_glyph.recipes.shipped import find_recipe
from frozen_glyph.training.recipe import MOST_RANK, DataRecipe, TrainingRecipe, check_length


@recipe()
class TuneRecipe:
    """What trains of a merged model, on which text and for how long; everything else is frozen."""

    what: Literal["head", "low-rank", "scales"] = "head"
    """head: weight and biases of the joint head; low-rank: a matrix that is added to its weight; scales: one factor per
    expert, which changes ``expert_weights`` and no shard. Weight decay draws the last two towards the merged model, the
    head towards zero."""
    rank: Annotated[Integer, Ge(1), Le(MOST_RANK)] = 16
    """Of low-rank."""
    steps: Count | None = None
    """Optimiser steps; default: 1000."""
    tokens: Tokens | None = None
    """Tokens to train on, in place of ``steps``."""
    data: DataRecipe | None = None
    """Training and held-out text, where the call names none."""
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    """How it is optimised; ``prefix_cache`` and ``quantize_frozen`` are of growth only."""
    seed: Seed = 0
    """Of initialisation and order."""

    def __post_init__(self) -> None:
        check_length(self.steps, self.tokens)
        for name in ("prefix_cache", "quantize_frozen"):
            value = getattr(self.training, name)
            require(value == "none", f"training.{name}", value, "none: only growth has it")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the text lies."""
        return dataclasses.asdict(self) | {
            "data": self.data and self.data.to_dict(),
            "training": self.training.to_dict(),
        }

    @property
    def sha256(self) -> str:
        """Identity of what is computed: where metrics are reported to is not part of it."""
        content = self.to_dict()
        del content["training"]["report_to"]
        return sha256_json(content)


def load_tune_recipe(path: Path | None, settings: Sequence[str] = (), **fields: Any) -> TuneRecipe:
    """The recipe in a tune.yaml, to which the files of ``data`` are relative.

    ``fields`` that are not None and then ``settings`` (``training.batch_tokens=8192``) go first.

    Raises:
        RecipeError: the file is missing or no YAML, a field is unknown or has a value that is not allowed.
    """
    content = read_recipe(find_recipe(path, "tune")) if path is not None else {}
    given = {name: value for name, value in fields.items() if value is not None}
    if given.keys() & {"steps", "tokens"}:
        content = {name: value for name, value in content.items() if name not in ("steps", "tokens")}
    content |= given
    override(content, settings)
    tuning = parse(TuneRecipe, content)
    if path is not None and tuning.data is not None:
        tuning = dataclasses.replace(tuning, data=tuning.data.beside(path.parent))
    return tuning
