"""A growth recipe: YAML -> typed, validated, and back to the exact JSON that is stored beside the weights."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from frozen_glyph.checkpoint.files import read_json, sha256_json
from frozen_glyph.errors import nearest
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.recipe_fields import RecipeError, override, parse, read_recipe, require
from frozen_glyph.training.recipe import DataRecipe, TrainingRecipe, check_length

MODEL_FIELDS = frozenset(entry.name for entry in dataclasses.fields(FrozenGlyphConfig))
FILE_FIELDS = ("model_type", "auto_map", "transformers_weights")  # say of a config.json what it is, not of the model


@dataclass(frozen=True)
class SubstrateRecipe:
    """Where the token ids come from (an existing tokenizer, or a vocabulary learnt from the text) and their vectors.

    ``layout`` ``trainable`` is the baseline without a substrate: an ordinary table that stage 1 trains.
    """

    tokenizer: str | None = None
    vocab_size: int | Literal["compact", "bmp", "wide"] = 4096
    layout: Literal["grid", "published", "binary", "random", "float", "trainable"] = "grid"
    bits: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.vocab_size, int):
            allowed = "at least 512 (256 are byte tokens)"
            require(self.vocab_size >= 512, "substrate.vocab_size", self.vocab_size, allowed)


@dataclass(frozen=True)
class StageRecipe:
    """One growth stage: how many blocks it adds (0: it goes on with the newest), what trains, and for how long.

    ``tokens`` may stand in place of ``steps``. ``patience``: stop after so many evaluations without a new best.
    """

    layers: int = 1
    steps: int | None = None
    tokens: int | None = None
    patience: int | None = None
    init: Literal["identity", "random", "copy"] = "identity"
    train: list[Literal["blocks", "norm", "head", "embeddings"]] = field(
        default_factory=lambda: ["blocks", "norm", "head"]
    )
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        require(self.layers >= 0, "stages.layers", self.layers, "0 or more")
        check_length("stages.", self.steps, self.tokens)
        require(self.patience is None or self.patience >= 1, "stages.patience", self.patience, "at least 1")
        require(bool(self.train), "stages.train", self.train, "at least one of blocks, norm, head, embeddings")
        rate = self.learning_rate
        require(rate is None or rate > 0, "stages.learning_rate", rate, "above 0")


@dataclass(frozen=True)
class LoraRecipe:
    """A phase at the end of a stage that trains low-rank adapters (arXiv 2106.09685) of all blocks, norm and head.

    It follows stage ``from_stage`` and from there every ``every``-th. ``merge``: the adapters are added to the blocks,
    which get new shards; otherwise they are written beside the stage, whose blocks stay as they are.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "fc_in", "fc_out"]] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "fc_in", "fc_out"]
    )
    from_stage: int = 2
    every: int = 1
    steps: int | None = None
    tokens: int | None = None
    learning_rate: float | None = None
    merge: bool = True

    def __post_init__(self) -> None:
        for name in ("rank", "from_stage", "every"):
            require(getattr(self, name) >= 1, f"lora.{name}", getattr(self, name), "at least 1")
        require(self.alpha > 0, "lora.alpha", self.alpha, "above 0")
        require(bool(self.targets), "lora.targets", self.targets, "at least one Linear of a block")
        check_length("lora.", self.steps, self.tokens)
        rate = self.learning_rate
        require(rate is None or rate > 0, "lora.learning_rate", rate, "above 0")

    def follows(self, stage: int) -> bool:
        """Whether a phase ends stage ``stage``, counted from 1."""
        return stage >= self.from_stage and (stage - self.from_stage) % self.every == 0


@dataclass(frozen=True)
class ParentRecipe:
    """The grown checkpoint (a folder or a Hub id) and its stage on which a run goes on; None: the deepest."""

    source: str
    stage: int | None = None

    def __post_init__(self) -> None:
        require(self.stage is None or self.stage >= 1, "parent.stage", self.stage, "at least 1")


@dataclass(frozen=True)
class GrowthRecipe:
    """Everything that determines a run besides the text: ``model`` holds ``FrozenGlyphConfig`` fields.

    ``health``: what happens to a stage whose newest blocks do not learn. ``warn``: a warning; ``stop``: it is not
    written, and the run ends; ``off``: nobody looks.
    ``license`` (an identifier of the Hub, such as apache-2.0) and ``language`` (codes of two or three letters) are for
    the model card.
    """

    name: str
    model: dict[str, Any]
    stages: list[StageRecipe]
    substrate: SubstrateRecipe = field(default_factory=SubstrateRecipe)
    data: DataRecipe | None = None
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    lora: LoraRecipe | None = None
    parent: ParentRecipe | None = None
    health: Literal["stop", "warn", "off"] = "warn"
    seed: int = 0
    license: str | None = None
    language: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(bool(self.stages), "stages", self.stages, "at least one stage")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")
        trainable = self.substrate.layout == "trainable"
        check_model(self.model, trainable)
        for index, stage in enumerate(self.stages):
            first = index == 0 and self.parent is None
            require(stage.layers >= 1 or not first, f"stages[{index}].layers", stage.layers, "at least 1 in stage 1")
            embeddings = "embeddings" in stage.train
            allowed = "without embeddings, which train only in stage 1 of substrate.layout trainable"
            require(not embeddings or (first and trainable), f"stages[{index}].train", stage.train, allowed)
            if stage.patience is not None:
                steps = self.training.eval_steps
                require(steps is not None, "training.eval_steps", steps, "given, because a stage has patience")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the recipe lies: of a path only the name is kept."""
        content = dataclasses.asdict(self)
        if self.substrate.tokenizer is not None:
            content["substrate"]["tokenizer"] = Path(self.substrate.tokenizer).name
        if self.parent is not None:
            content["parent"]["source"] = Path(self.parent.source).name
        if self.data is not None:
            content["data"] = self.data.to_dict()
        return content

    @property
    def sha256(self) -> str:
        """Identity of what is computed, without ``health``, where metrics are reported to, and what the card says."""
        content = self.to_dict()
        del content["license"], content["language"], content["health"]
        del content["training"]["report_to"]
        return sha256_json(content)


def check_model(model: dict[str, Any], trainable: bool) -> None:
    """Raise ``RecipeError`` unless ``model`` holds ``FrozenGlyphConfig`` fields with values that fit together.

    ``trainable``: whether ``substrate.layout`` says that the token vectors train.
    """
    for key in model:
        if key not in MODEL_FIELDS and key not in FILE_FIELDS:
            raise RecipeError(f"unknown recipe key {key!r} in model.{nearest(str(key), MODEL_FIELDS)}")
    given = model.get("substrate_trainable", trainable)
    require(given == trainable, "model.substrate_trainable", given, "left out: say substrate.layout: trainable")
    try:
        FrozenGlyphConfig(**model)
    except StrictDataclassError as error:
        raise RecipeError(f"recipe field model is not allowed: {error.__cause__ or error}") from None


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> GrowthRecipe:
    """Read a recipe file and apply ``settings`` such as ``training.learning_rate=1e-3``.

    Paths are relative to the recipe: ``model`` may name a ``config.json``; ``substrate.tokenizer``, ``parent.source``
    and the files of ``data`` may too.

    Raises:
        RecipeError: the file is missing or no YAML mapping; a key is unknown; a value has the wrong type or range.
    """
    path = Path(path)
    content = read_recipe(path, "growth.yaml")
    if isinstance(content.get("model"), str):
        config = path.parent / content["model"]
        if not config.is_file():
            raise RecipeError(f"recipe field model={content['model']!r}: {str(config)!r} does not exist")
        content["model"] = read_json(config)
    override(content, settings)
    return resolve_paths(parse(GrowthRecipe, content, ""), path.parent)


def resolve_paths(recipe: GrowthRecipe, folder: Path) -> GrowthRecipe:
    """The recipe with local paths made absolute; what does not exist beside the recipe is taken for a Hub id."""

    def local(name: str) -> str:
        return str((folder / name).resolve())

    changes: dict[str, Any] = {}
    if recipe.substrate.tokenizer is not None and (folder / recipe.substrate.tokenizer).exists():
        changes["substrate"] = dataclasses.replace(recipe.substrate, tokenizer=local(recipe.substrate.tokenizer))
    if recipe.parent is not None and (folder / recipe.parent.source).exists():
        changes["parent"] = dataclasses.replace(recipe.parent, source=local(recipe.parent.source))
    if recipe.data is not None:
        changes["data"] = recipe.data.beside(folder)
    return dataclasses.replace(recipe, **changes)
