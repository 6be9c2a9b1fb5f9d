"""A growth recipe: YAML -> typed, validated, and back to the exact JSON that is stored beside the weights."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import StrictDataclassError

from frozen_glyph.checkpoint.files import read_json, sha256_json
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

MODEL_FIELDS = frozenset(entry.name for entry in dataclasses.fields(FrozenGlyphConfig))
FILE_FIELDS = ("model_type", "auto_map")  # say of a config.json what it is, not what the model is like


class RecipeError(FrozenGlyphError):
    """A recipe has an unknown key or a value that is not allowed."""


@dataclass(frozen=True)
class SubstrateRecipe:
    """Where the token ids come from: an existing tokenizer, or a compact vocabulary learnt from the training text."""

    tokenizer: str | None = None
    vocab_size: int = 4096

    def __post_init__(self) -> None:
        require(self.vocab_size >= 512, "substrate.vocab_size", self.vocab_size, "at least 512 (256 are byte tokens)")


@dataclass(frozen=True)
class StageRecipe:
    """One growth stage: how many blocks it adds and how long they, the final norm and the head train."""

    layers: int = 1
    steps: int = 1000
    init: Literal["identity", "random"] = "identity"

    def __post_init__(self) -> None:
        require(self.layers >= 1, "stages.layers", self.layers, "at least 1")
        require(self.steps >= 1, "stages.steps", self.steps, "at least 1")


@dataclass(frozen=True)
class TrainingRecipe:
    """Optimisation of every stage: AdamW, linear warm-up, cosine decay to ``final_learning_rate_ratio`` of the peak."""

    context_length: int = 256
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    final_learning_rate_ratio: float = 0.1
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    save_steps: int = 500

    def __post_init__(self) -> None:
        require(self.context_length >= 8, "training.context_length", self.context_length, "at least 8 tokens")
        require(self.batch_size >= 1, "training.batch_size", self.batch_size, "at least 1")
        require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        require(self.warmup_steps >= 0, "training.warmup_steps", self.warmup_steps, "0 or more")
        require(self.save_steps >= 1, "training.save_steps", self.save_steps, "at least 1")
        ratio = self.final_learning_rate_ratio
        require(0 <= ratio <= 1, "training.final_learning_rate_ratio", ratio, "from 0 to 1")
        require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        require(self.max_grad_norm > 0, "training.max_grad_norm", self.max_grad_norm, "above 0")


@dataclass(frozen=True)
class GrowthRecipe:
    """Everything that determines a run besides the text: ``model`` holds ``FrozenGlyphConfig`` fields."""

    name: str
    model: dict[str, Any]
    stages: list[StageRecipe]
    substrate: SubstrateRecipe = field(default_factory=SubstrateRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.stages), "stages", self.stages, "at least one stage")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")
        check_model(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the recipe lies: of a tokenizer folder only the name is kept."""
        content = dataclasses.asdict(self)
        if self.substrate.tokenizer is not None:
            content["substrate"]["tokenizer"] = Path(self.substrate.tokenizer).name
        return content

    @property
    def sha256(self) -> str:
        return sha256_json(self.to_dict())


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``RecipeError`` naming field, value and what is allowed."""
    if not condition:
        raise RecipeError(f"recipe field {name}={value!r} is not allowed: it must be {allowed}")


def check_model(model: dict[str, Any]) -> None:
    """Raise ``RecipeError`` unless ``model`` holds ``FrozenGlyphConfig`` fields with values that fit together."""
    for key in model:
        if key not in MODEL_FIELDS and key not in FILE_FIELDS:
            raise RecipeError(f"unknown recipe key {key!r} in model.{nearest(str(key), MODEL_FIELDS)}")
    trainable = model.get("substrate_trainable", False)
    require(not trainable, "model.substrate_trainable", trainable, "false: growth needs a frozen substrate")
    try:
        FrozenGlyphConfig(**model)
    except StrictDataclassError as error:
        raise RecipeError(f"recipe field model is not allowed: {error.__cause__ or error}") from None


def load_recipe(path: str | Path) -> GrowthRecipe:
    """Read a recipe file. ``model`` may name a ``config.json``, ``substrate.tokenizer`` a folder, beside the recipe.

    Raises:
        RecipeError: the file is missing or no YAML mapping; a key is unknown; a value has the wrong type or range.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"recipe {str(path)!r} does not exist; give the path of a growth.yaml")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {str(path)!r} must hold a mapping of fields, found {type(content).__name__}")
    if isinstance(content.get("model"), str):
        config = path.parent / content["model"]
        if not config.is_file():
            raise RecipeError(f"recipe field model={content['model']!r}: {str(config)!r} does not exist")
        content["model"] = read_json(config)
    recipe = parse(GrowthRecipe, content, "")
    if recipe.substrate.tokenizer is not None:
        tokenizer = str((path.parent / recipe.substrate.tokenizer).resolve())
        recipe = dataclasses.replace(recipe, substrate=dataclasses.replace(recipe.substrate, tokenizer=tokenizer))
    return recipe


def parse(kind: Any, value: Any, name: str) -> Any:
    """Turn plain YAML ``value`` into the annotated type ``kind``; ``name`` is the field's dotted path for errors."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        require(isinstance(value, dict), name or "the recipe", value, "a mapping of fields")
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                where = f" in {name}" if name else ""
                allowed = ", ".join(hints)
                raise RecipeError(f"unknown recipe key {key!r}{where}.{nearest(str(key), hints)} Allowed: {allowed}")
        for entry in dataclasses.fields(kind):
            if (
                entry.name not in value
                and entry.default is dataclasses.MISSING
                and entry.default_factory is dataclasses.MISSING
            ):
                raise RecipeError(f"recipe field {'.'.join(filter(None, [name, entry.name]))} is missing")
        dotted = {key: f"{name}.{key}" if name else key for key in value}
        return kind(**{key: parse(hints[key], entry, dotted[key]) for key, entry in value.items()})
    if origin is list:
        require(isinstance(value, list), name, value, "a list")
        return [parse(arguments[0], entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if origin is Literal:
        require(value in arguments, name, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else parse(arguments[0], value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or kind
    if plain is float and isinstance(value, str):  # YAML 1.1 reads 2e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    require(isinstance(value, plain) and (plain is not int or not isinstance(value, bool)), name, value, plain.__name__)
    return value
