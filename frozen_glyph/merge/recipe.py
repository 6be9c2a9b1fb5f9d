"""What a merge is to do: experts, rule, weights; from a merge.yaml, the command line or Python.

An expert is written ``SOURCE``, ``SOURCE@STAGE`` or ``SOURCE@STAGE+ADAPTER``: a folder or Hub id, a growth stage of it,
a PEFT folder or Hub id with a LoRA adapter of that stage.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, MaxLen, MinLen
from pydantic import Field

from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.model.rules_frozen_glyph import DEFAULT_RULE, MOST_RATES, RULES, rules_with_option
from frozen_glyph.recipes.errors import RecipeError, require
from frozen_glyph.recipes.fields import AsNumber, Count, Finite, Text, parse, recipe
from frozen_glyph.recipes.files import override, read_recipe
from frozen_glyph.recipes.shipped import find_recipe

Share = Annotated[float, Ge(0), Le(1), Finite, AsNumber]


@recipe("experts")
class ExpertRecipe(Source):
    """One expert."""

    source: Text
    """Folder or Hub id."""
    stage: Count | None = None
    """Its growth stage; default: what a plain load gives."""
    adapter: Text | None = None
    """PEFT folder or Hub id with a LoRA adapter of that stage."""
    revision: Text | None = None
    """Of the Hub."""


@recipe()
class MergeRecipe:
    """Which experts become one model, and how."""

    experts: list[Text | ExpertRecipe]
    """At least two, on one substrate: SOURCE, SOURCE@STAGE or SOURCE@STAGE+ADAPTER, or the same in fields."""
    rule: Annotated[Text, Field(json_schema_extra={"enum": list(RULES)})] = DEFAULT_RULE
    """What becomes of the experts' logits."""
    weights: list[Annotated[float, AsNumber]] | None = None
    """One for each expert, of a kind that the rule takes; default: equal."""
    names: list[Text] | None = None
    """One for each expert; default: of its folder."""
    evidence_window: Count | None = None
    """How many tokens the rule evidence looks back; default: what the model takes."""
    switching_rates: Annotated[list[Share], MinLen(1), MaxLen(MOST_RATES)] | None = None
    """How often the rule fixed_share expects another expert to take over at a token; of several the text tells which
    is right. Default: what the model takes."""
    prompt_sample: Count | None = None
    """Rules that read tokens read so many of a longer prompt, and estimate the rest; default: they read all that
    counts."""
    active_experts: Count | None = None
    """So many experts run at most while a text is written under the rule fixed_share; default: all."""
    active_threshold: Annotated[float, Ge(0), Lt(1), Finite, AsNumber] | None = None
    """Of the weight that those that run need not have; default: what the model takes."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of all numbers of the merged model, rounded to nearest; default: that of the experts, which must be one."""
    companions: Text | None = None
    """Name of the expert whose chat template, generation config and tokenizer settings go along; default: the first."""

    def __post_init__(self) -> None:
        count = len(self.experts)
        if count < 2:
            raise RecipeError(f"{count} expert given; merging needs at least two checkpoint folders or Hub ids")
        shares(self.rule, self.weights, count)
        for name in ("active_experts", "active_threshold"):
            given, takes = getattr(self, name), rules_with_option(name)
            allowed = f"left out, because rule={self.rule} runs all experts; or take rule={' or '.join(takes)}"
            require(given is None or self.rule in takes, name, given, allowed)
        if self.names is not None:
            allowed = f"{count} different names, one for each expert"
            require(len(set(self.names)) == len(self.names) == count and all(self.names), "names", self.names, allowed)

    def sources(self) -> list[Source]:
        return [Source.parse(expert, adapters=True) for expert in self.experts]


def load_merge_recipe(path: Path | None, settings: Sequence[str] = (), **fields: Any) -> MergeRecipe:
    """The recipe in a merge.yaml; ``fields`` that are not None and then ``settings`` (``rule=posterior``) go first.

    Raises:
        RecipeError: the file is missing or no YAML, a field is unknown or has a value that is not allowed.
    """
    content = read_recipe(find_recipe(path, "merge")) if path is not None else {}
    content |= {name: value for name, value in fields.items() if value is not None}
    override(content, settings)
    return parse(MergeRecipe, content)


def shares(rule: str, weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of sum 1 for ``count`` experts under ``rule``; equal where none are given.

    Raises:
        FrozenGlyphError: unknown rule, or weights that it cannot use.
    """
    if rule not in RULES:
        raise FrozenGlyphError(f"rule={rule!r} is not known.{nearest(rule, RULES)} Allowed: {', '.join(RULES)}")
    if weights is None:
        return [1.0 / count] * count
    taken = RULES[rule].weights
    if taken == "none":
        raise FrozenGlyphError(
            f"weights={list(weights)} mean nothing to rule={rule!r}, which counts all experts alike; choose "
            "rule='weighted'"
        )
    kind = "finite" if taken == "any" else "non-negative"
    usable = all(math.isfinite(weight) and (taken == "any" or weight >= 0) for weight in weights)
    if len(weights) != count or not usable or not 0 < sum(weights) < math.inf:
        raise FrozenGlyphError(f"weights={list(weights)} must be {count} {kind} numbers with a sum above 0")
    return [weight / sum(weights) for weight in weights]
