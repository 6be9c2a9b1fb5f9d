"""A growth recipe: YAML -> typed, validated, and back to the exact JSON that is stored beside the weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BeforeValidator, Field

from frozen_glyph.checkpoint.config import DEFAULTS
from frozen_glyph.checkpoint.files import read_json, sha256_json
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.growth.model_fields import check_model, model_schema
from frozen_glyph.model.limits_frozen_glyph import MOST_LAYERS
from frozen_glyph.recipes.errors import RecipeError, require
from frozen_glyph.recipes.fields import Count, Flag, Integer, PositiveNumber, Seed, Text, Tokens, as_off, parse, recipe
from frozen_glyph.recipes.files import beside, override, read_recipe
from frozen_glyph.recipes.schema import or_path
from frozen_glyph.recipes.shipped import find_recipe, is_file
from frozen_glyph.substrate.recipe import SubstrateRecipe, read_substrate_recipe
from frozen_glyph.training.recipe import MOST_RANK, DataRecipe, TrainingRecipe, check_length, without_unset

LATER_FIELDS = {"decay": "stage"}  # recorded where they are others: older records have none
LATER_STAGE_FIELDS = {
    **dict.fromkeys(("min_gain", "active", "rotate", "draw", "always", "lora_below")),
    "optimizer": "new",
}

Init = Literal["identity", "random", "copy", "copy_zero", "interpolate"]


@recipe("stages")
class StageRecipe:
    """One growth stage: how many blocks it adds, what trains, and for how long."""

    layers: Annotated[Integer, Ge(0), Le(MOST_LAYERS)] = 1
    """Blocks that it adds; 0: it goes on with the newest."""
    steps: Count | None = None
    """Optimiser steps; default: 1000."""
    tokens: Tokens | None = None
    """Tokens to train on, in place of ``steps``."""
    patience: Count | None = None
    """Stop after so many evaluations (``training.eval_steps``) without a new best."""
    min_gain: PositiveNumber | None = None
    """An evaluation is a new best where it lies so far below the last one, in nats a token: with ``patience: 1`` the
    stage stops where ``eval_steps`` steps gain less. Default: any lower one is."""
    init: Init | None = None
    """New blocks compute nothing at first, are random (as published), copies of the newest, such copies with outputs of
    zero, which compute nothing at first, or means of the newest and the block below; default: copy_zero. Those of a
    model's first stage are random."""
    train: Annotated[
        list[Literal["blocks", "norm", "head", "embeddings"]],
        MinLen(1),
        "at least one of blocks, norm, head, embeddings",
    ] = dataclasses.field(default_factory=lambda: ["blocks", "norm", "head"])
    """The newest blocks, final norm, head; embeddings only in stage 1 of ``substrate.layout`` trainable."""
    learning_rate: PositiveNumber | None = None
    """Peak of this stage; default: ``training.learning_rate``."""
    active: Count | None = None
    """Topmost blocks that train, or all where there are fewer; those below the newest get new shards. Default: the
    newest."""
    rotate: Count | None = None
    """Let the blocks that train do so one at a time, from the top down, for so many steps each and with new moments
    (BAdam, arXiv 2404.02827); default: all at once."""
    draw: Count | None = None
    """So many blocks train in each turn of ``rotate``, drawn at random from the seed (LISA, arXiv 2403.17919), or all
    where there are fewer; default: one, from the top down."""
    always: Count | None = None
    """Topmost blocks that train in every turn, beside those whose turn it is, and keep their moments; default: none."""
    lora_below: Annotated[Integer, Ge(1), Le(MOST_RANK)] | None = None
    """Rank of adapters of all blocks below, of all blocks where none train, which train at the same time and are merged
    at its end: those blocks get new shards. Stages of ``train: [norm, head]`` and 0 layers one after the other are
    ReLoRA (arXiv 2307.05695). Default: none."""
    optimizer: Literal["new", "carried"] = "new"
    """Adam's moments at its start are new, or those that the stage before left: of norm, head and blocks that go on
    training, and of copied blocks."""

    def __post_init__(self) -> None:
        check_length(self.steps, self.tokens)
        allowed = f"left out where no blocks train (train={self.train})"
        for name in ("active", "rotate"):
            require(getattr(self, name) is None or "blocks" in self.train, name, getattr(self, name), allowed)
        for name in ("draw", "always"):
            turns = getattr(self, name) is None or self.rotate is not None
            require(turns, name, getattr(self, name), "left out where blocks do not rotate")
        alone = self.lora_below is None or self.rotate is None
        require(alone, "lora_below", self.lora_below, "left out where blocks rotate")
        patient = self.min_gain is None or self.patience is not None
        require(patient, "min_gain", self.min_gain, "left out where no patience is given")

    def frozen_blocks(self, blocks: int, below_newest: int) -> int:
        """How many of ``blocks`` do not train in this stage, where ``below_newest`` lie below the newest."""
        return below_newest if self.active is None else max(0, blocks - self.active)

    def adapted_blocks(self, blocks: int, frozen: int) -> int:
        """How many of ``blocks``, from the lowest, have the adapters of ``lora_below``, where ``frozen`` are frozen."""
        return frozen if "blocks" in self.train else blocks

    @property
    def adapters_below(self) -> "LoraRecipe | None":
        """What ``lora_below`` adds to the blocks below those that train."""
        return None if self.lora_below is None else LoraRecipe(self.lora_below, alpha=2.0 * self.lora_below)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return without_unset(dataclasses.asdict(self), LATER_STAGE_FIELDS)


@recipe("lora")
class LoraRecipe:
    """A phase at the end of a stage that trains low-rank adapters (arXiv 2106.09685) of all blocks, norm and head."""

    rank: Annotated[Integer, Ge(1), Le(MOST_RANK)] = 16
    """Of the adapters."""
    alpha: PositiveNumber = 32.0
    """They count with ``alpha / rank``."""
    targets: Annotated[
        list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "fc_in", "fc_out"]],
        MinLen(1),
        "at least one Linear of a block",
    ] = dataclasses.field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "fc_in", "fc_out"])
    """Linears of a block that get one."""
    from_stage: Count = 2
    """First stage that ends with such a phase."""
    every: Count = 1
    """From there every so many stages."""
    steps: Count | None = None
    """Optimiser steps; default: 1000."""
    tokens: Tokens | None = None
    """Tokens to train on, in place of ``steps``."""
    learning_rate: PositiveNumber | None = None
    """Peak of this phase; default: ``training.learning_rate``."""
    merge: Flag = True
    """Add the adapters to the blocks, which get new shards; or write them beside the stage, as a PEFT folder."""

    def __post_init__(self) -> None:
        check_length(self.steps, self.tokens)

    def follows(self, stage: int) -> bool:
        """Whether a phase ends stage ``stage``, counted from 1."""
        return stage >= self.from_stage and (stage - self.from_stage) % self.every == 0


@recipe("parent")
class ParentRecipe:
    """The grown checkpoint on which a run goes on."""

    source: Text
    """Folder (relative to the recipe) or Hub id; ``NAME@STAGE`` says the stage too."""
    stage: Count | None = None
    """Its stage; default: the deepest."""

    @property
    def where(self) -> Source:
        return Source(self.source, self.stage)

    def beside(self, folder: Path) -> "ParentRecipe":
        """With what ``source`` means in a recipe in ``folder``: an absolute path or a Hub id, and its stage."""
        found = Source.parse(self.source, folder)
        allowed = f"left out: parent.source={self.source!r} says stage {found.stage}"
        require(found.stage in (None, self.stage) or self.stage is None, "parent.stage", self.stage, allowed)
        return ParentRecipe(beside(folder, found.source), found.stage or self.stage)


@recipe()
class GrowthRecipe:
    """Everything that determines a run besides the text."""

    name: Text
    """Of the model, for cards and plots."""
    model: Annotated[dict[Any, Any], Field(json_schema_extra=model_schema)]
    """``FrozenGlyphConfig`` fields, or the path of a config.json, relative to the recipe."""
    stages: Annotated[list[StageRecipe], MinLen(1), "at least one stage"]
    """In the order they are trained."""
    substrate: Annotated[SubstrateRecipe, Field(json_schema_extra=or_path)] = dataclasses.field(
        default_factory=SubstrateRecipe
    )
    """Token ids and their vectors, or the path of a substrate recipe, relative to this one, or the name of a shipped
    one."""
    data: DataRecipe | None = None
    """Training and held-out text, where the call names none."""
    training: TrainingRecipe = dataclasses.field(default_factory=TrainingRecipe)
    """How every phase is optimised."""
    lora: LoraRecipe | None = None
    """A phase of low-rank adapters after stages."""
    decay: Literal["stage", "run", "branch"] = "stage"
    """Where the learning rate falls: in every stage; once over all of them; or in a branch off every stage, which is
    written, while the next stage goes on from where it began. In the last two a stage warms up if its moments are
    new."""
    parent: ParentRecipe | None = None
    """The checkpoint to go on from; default: none, stage 1 is the first."""
    health: Annotated[Literal["stop", "warn", "off"], BeforeValidator(as_off)] = "warn"
    """When the newest blocks do not learn: warn; or stop, without writing the stage; or off, and nobody looks."""
    seed: Seed = 0
    """Of initialisation and order."""
    license: Text | None = None
    """For the model card: an identifier of the Hub, such as apache-2.0."""
    language: list[Text] = dataclasses.field(default_factory=list)
    """For the model card: codes of two or three letters."""

    def __post_init__(self) -> None:
        trainable = self.substrate.layout == "trainable"
        check_model(self.model, trainable)
        width, size = self.model.get("hidden_size", DEFAULTS["hidden_size"]), self.substrate.vocab_size
        allowed = f"left out: it follows model.hidden_size={width}"
        require(self.substrate.width in (None, width), "substrate.width", self.substrate.width, allowed)
        if self.parent is None:
            length = self.training.context_length
            longest = self.model.get("max_position_embeddings", length)
            allowed = f"at least training.context_length={length}"
            require(longest >= length, "model.max_position_embeddings", longest, allowed)
            blocks = sum(stage.layers for stage in self.stages)
            require(blocks <= MOST_LAYERS, "stages.layers", blocks, f"at most {MOST_LAYERS} together")
        for index, stage in enumerate(self.stages):
            if stage.init is None:
                copied = stage.layers > 0 and (index > 0 or self.parent is not None)
                self.stages[index] = dataclasses.replace(stage, init="copy_zero" if copied else "identity")
        allowed = "at least 512 (256 are byte tokens)"
        require(isinstance(size, str) or size >= 512, "substrate.vocab_size", size, allowed)
        for index, stage in enumerate(self.stages):
            first = index == 0 and self.parent is None
            require(stage.layers >= 1 or not first, f"stages[{index}].layers", stage.layers, "at least 1 in stage 1")
            new = index > 0 or stage.optimizer == "new"
            require(new, f"stages[{index}].optimizer", stage.optimizer, "new in the first stage of a recipe")
            adam = stage.optimizer == "new" or self.training.optim == "adamw"
            allowed = f"new with training.optim={self.training.optim}"
            require(adam, f"stages[{index}].optimizer", stage.optimizer, allowed)
            if stage.lora_below is not None:
                self.check_adapters_below(index, first)
            embeddings = "embeddings" in stage.train
            allowed = "without embeddings, which train only in stage 1 of substrate.layout trainable"
            require(not embeddings or (first and trainable), f"stages[{index}].train", stage.train, allowed)
            if stage.patience is not None:
                steps = self.training.eval_steps
                require(steps is not None, "training.eval_steps", steps, "given, because a stage has patience")
                allowed = f"left out with decay: {self.decay}, which counts on every step"
                require(self.decay == "stage", f"stages[{index}].patience", stage.patience, allowed)
        falls = self.decay != "run" or self.training.schedule != "constant"
        require(falls, "training.schedule", "constant", "one that falls, because of decay: run")
        if self.decay == "branch":
            schedule, merged = self.training.schedule, self.lora is not None and self.lora.merge
            allowed = "warmup_stable_decay, whose decay is the branch"
            require(schedule == "warmup_stable_decay", "training.schedule", schedule, allowed)
            require(not merged, "lora.merge", True, "false with decay: branch, whose next stage would not have them")

    def check_adapters_below(self, index: int, first: bool) -> None:
        """Raise ``RecipeError`` where the blocks below stage ``index`` cannot have adapters that are merged."""
        plain = self.training.prefix_cache == self.training.quantize_frozen == "none" and self.decay != "branch"
        allowed = (
            "left out in a first stage that trains blocks, and with decay: branch, prefix_cache or quantize_frozen"
        )
        stage, name = self.stages[index], f"stages[{index}].lora_below"
        require(plain and not (first and "blocks" in stage.train), name, stage.lora_below, allowed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the recipe lies: of a path only the name is kept."""
        content = without_unset(dataclasses.asdict(self), LATER_FIELDS)
        content["stages"] = [stage.to_dict() for stage in self.stages]
        content["training"] = self.training.to_dict()
        content["substrate"] = self.substrate.to_dict()
        content["substrate"].pop("width", None)  # the model says it
        if self.parent is not None:
            content["parent"]["source"] = Path(self.parent.source).name
        if self.data is not None:
            content["data"] = self.data.to_dict()
        return content

    @property
    def sha256(self) -> str:
        """Identity of what is computed, without ``health``, where metrics are reported to, and what the card says.

        Pictures that are not whitened count as ones of which nothing was said: runs that began before there was a
        choice go on. What a run stands on is in its folder.
        """
        content = self.to_dict()
        if content["substrate"].get("whiten") == "none":
            del content["substrate"]["whiten"]
        del content["license"], content["language"], content["health"]
        del content["training"]["report_to"]
        return sha256_json(content)


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> GrowthRecipe:
    """Read a recipe file, or a shipped one by its name, and apply ``settings`` such as ``training.learning_rate=1e-3``.

    Paths are relative to the recipe: ``model`` may name a ``config.json``, ``substrate`` a substrate recipe;
    ``substrate.tokenizer``, ``substrate.font``, ``parent.source`` and the files of ``data`` may be paths too.

    Raises:
        RecipeError: the file is missing or no YAML mapping; a key is unknown; a value has the wrong type or range.
    """
    path = find_recipe(path, "growth")
    content = read_recipe(path)
    read_named_files(content, path.parent)
    override(content, settings)
    read_named_files(content, path.parent)
    return resolve_paths(parse(GrowthRecipe, content), path.parent)


def read_named_files(content: dict[str, Any], folder: Path) -> None:
    """Put what they hold in the place of the files that ``model`` and ``substrate`` name, in place."""
    if isinstance(content.get("model"), str):
        config = folder / content["model"]
        if not is_file(config):
            raise RecipeError(f"recipe field model={content['model']!r}: {str(config)!r} does not exist")
        content["model"] = read_json(config)
    if isinstance(content.get("substrate"), str):
        content["substrate"] = read_substrate_recipe(content["substrate"], folder)


def resolve_paths(recipe: GrowthRecipe, folder: Path) -> GrowthRecipe:
    """The recipe with local paths made absolute; what does not exist beside the recipe is taken for a Hub id."""
    changes: dict[str, Any] = {"substrate": recipe.substrate.beside(folder)}
    if recipe.parent is not None:
        changes["parent"] = recipe.parent.beside(folder)
    if recipe.data is not None:
        changes["data"] = recipe.data.beside(folder)
    return dataclasses.replace(recipe, **changes)
