"""The parts of a recipe that say what is read and how it is optimised, for growth and for head tuning alike."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from frozen_glyph.recipes.errors import RecipeError, require
from frozen_glyph.recipes.fields import AsNumber, Count, Finite, Flag, Integer, PositiveNumber, Text, Tokens, recipe

DEFAULT_STEPS = 1000
MOST_RANK = 65_536  # of low-rank matrices
FREE_FIELDS = ("micro_batch_size", "activation_checkpointing", "save_steps", "report_to")  # may change on the way
LATER_FIELDS = {"valid_field": None, "normalize": True}  # recorded where they are others: older records have none
LATER_TRAINING_FIELDS = {"optim": "adamw", "optim_rank": 128}


@recipe("data.sources")
class SourceRecipe:
    """One source of training documents: local files, or a dataset of the Hub, streamed."""

    files: list[Text] | None = None
    """UTF-8 files: .txt, .jsonl, .parquet, also .gz. Relative to the recipe."""
    dataset: Text | None = None
    """Hub id or folder of a dataset."""
    subset: Text | None = None
    """Its configuration, such as 20231101.en."""
    split: Text = "train"
    """Its split."""
    revision: Text | None = None
    """Its revision; default: the newest, which is recorded."""
    field: Text = "text"
    """Where a record of .jsonl, .parquet or dataset has its text."""
    weight: PositiveNumber | None = None
    """Share of the tokens that follow this source, beside the other weights."""

    def __post_init__(self) -> None:
        given = [name for name in ("files", "dataset") if getattr(self, name)]
        require(len(given) == 1, "", given, "a source with either files or dataset")


@recipe("data")
class DataRecipe:
    """Training documents and held-out text.

    Without weights every source is read once, in order; with weights (all or none) documents are drawn so that each
    source's share of the tokens follows its weight, until ``tokens`` are packed or a source ends.
    """

    sources: Annotated[list[SourceRecipe], MinLen(1), "at least one source"]
    """Where the training documents come from."""
    valid: list[Text] = dataclasses.field(default_factory=list)
    """Held-out files, scored after every stage. Relative to the recipe."""
    valid_field: Text | None = None
    """Where a record of held-out .jsonl or .parquet has its text; default: where the first source has it."""
    tokens: Tokens | None = None
    """How many to pack; default: all there are."""
    attend_across_documents: Flag = True
    """Whether a token sees the documents that are packed before its own."""
    normalize: Flag = True
    """Leave out a byte order mark at the beginning of a file and read CR LF as LF; false: keep both."""

    def __post_init__(self) -> None:
        weights = [source.weight for source in self.sources]
        require(None not in weights or not any(weights), "sources.weight", weights, "given to all or to none")

    @property
    def held_out(self) -> "DataRecipe | None":
        """The held-out files as a source of their own; None where there are none."""
        if not self.valid:
            return None
        source = SourceRecipe(files=self.valid, field=self.valid_field or self.sources[0].field)
        return dataclasses.replace(self, sources=[source], valid=[], tokens=None)

    def beside(self, folder: Path) -> "DataRecipe":
        """The recipe with its files, which are relative to ``folder``, made absolute."""

        def local(names: Sequence[str]) -> list[str]:
            return [str((folder / name).resolve()) for name in names]

        sources = [
            dataclasses.replace(source, files=local(source.files)) if source.files else source
            for source in self.sources
        ]
        return dataclasses.replace(self, sources=sources, valid=local(self.valid))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the files lie: of a path only the name is kept."""
        content = dataclasses.asdict(self)
        content["valid"] = [Path(path).name for path in self.valid]
        for source in content["sources"]:
            source["files"] = source["files"] and [Path(path).name for path in source["files"]]
        return without_unset(content, LATER_FIELDS)


@recipe("training")
class TrainingRecipe:
    """Optimisation of every phase: AdamW, linear warm-up, then decay."""

    context_length: Annotated[Integer, Ge(8), Le(2**24)] = 256
    """Tokens of a sequence."""
    batch_tokens: Annotated[Integer, Le(2**40)] = 4096
    """Tokens of one optimiser step over all devices: a multiple of ``context_length``."""
    micro_batch_size: Integer | None = None
    """Sequences that go through the model at once on each device; default: all of the device's share."""
    learning_rate: PositiveNumber = 2e-3
    """Its peak."""
    schedule: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: Annotated[Integer, Ge(0), Le(2**31 - 1)] = 50
    """Steps in which the learning rate rises to its peak; at most half of a phase."""
    final_learning_rate_ratio: Annotated[float, Ge(0), Le(1), Finite, AsNumber] = 0.1
    """Learning rate at the end, as a share of the peak."""
    weight_decay: Annotated[float, Ge(0), Finite, AsNumber] = 0.1
    """Of AdamW."""
    adam_beta2: Annotated[float, Gt(0), Lt(1), Finite, AsNumber] = 0.95
    """Of AdamW."""
    optim: Literal["adamw", "adamw_8bit", "adafactor", "galore_adamw", "apollo_adamw"] = "adamw"
    """The optimiser; adamw_8bit needs bitsandbytes, galore_adamw galore-torch, apollo_adamw apollo-torch."""
    optim_rank: Annotated[Integer, Ge(1), Le(MOST_RANK)] = 128
    """Dimensions that galore_adamw and apollo_adamw project gradients of the blocks' Linears to."""
    max_grad_norm: PositiveNumber = 1.0
    """Longer gradients are clipped to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the products; auto: bf16 where the device computes in it."""
    activation_checkpointing: Flag = False
    """Compute activations of trained blocks again in the backward pass in place of keeping them."""
    prefix_cache: Literal["none", "memory", "disk"] = "none"
    """Keep what the frozen blocks make of each window, where windows are read again."""
    quantize_frozen: Literal["none", "int8", "int4", "nf4"] = "none"
    """Hold frozen blocks in fewer bits while training above them; int4 and nf4 on CUDA only."""
    eval_steps: Count | None = None
    """Evaluate on held-out text after so many steps; default: at the end of a stage only."""
    save_steps: Count = 500
    """Save after so many steps, so that a run that is killed goes on from there."""
    report_to: list[Text] = dataclasses.field(default_factory=list)
    """Where metrics go besides metrics-k.jsonl: tensorboard, wandb, trackio and others that Trainer knows."""

    def __post_init__(self) -> None:
        batch, length = self.batch_tokens, self.context_length
        whole = batch >= length and batch % length == 0
        require(whole, "batch_tokens", batch, f"a multiple of training.context_length={length}")
        micro = self.micro_batch_size
        fits = micro is None or (micro >= 1 and self.batch_size % micro == 0)
        require(fits, "micro_batch_size", micro, f"a divisor of the {self.batch_size} sequences of a batch")

    @property
    def batch_size(self) -> int:
        """Sequences of one optimiser step over all devices."""
        return self.batch_tokens // self.context_length

    def to_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return without_unset(dataclasses.asdict(self), LATER_TRAINING_FIELDS)

    def steps_of(self, steps: int | None, tokens: int | None) -> int:
        """Optimiser steps of a phase that is planned in ``steps`` or in ``tokens``, at most."""
        if tokens is not None:
            return -(-tokens // self.batch_tokens)
        return steps or DEFAULT_STEPS


def without_unset(content: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """``content`` without the fields that have their value of ``later``: records that are older have none of them."""
    return {name: value for name, value in content.items() if name not in later or value != later[name]}


def check_length(steps: int | None, tokens: int | None) -> None:
    """``RecipeError`` when a phase is planned in both ``steps`` and ``tokens``."""
    require(steps is None or tokens is None, "steps", steps, "left out where tokens is given")


def choose_data(
    data: DataRecipe | None, training: TrainingRecipe, text: Sequence[str | Path], valid: Sequence[str | Path]
) -> DataRecipe:
    """A recipe's ``data``, with the files of a call in their place where there are any.

    Raises:
        RecipeError: there is no training text, or none to evaluate with; two held-out texts have one name.
    """
    if text:
        sources = [SourceRecipe(files=[str(path) for path in text])]
        data = dataclasses.replace(data, sources=sources) if data else DataRecipe(sources)
    if data is None:
        raise RecipeError("no training text: name UTF-8 text files, or give the recipe a field data with sources")
    if valid:
        data = dataclasses.replace(data, valid=[str(path) for path in valid])
    names = [Path(path).name for path in data.valid]
    if len(set(names)) < len(names):
        raise RecipeError(f"held-out texts {data.valid} must have different file names")
    if training.eval_steps is not None and not data.valid:
        raise RecipeError("recipe field training.eval_steps needs held-out text; name some in data.valid")
    return data
