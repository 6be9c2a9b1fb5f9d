"""The parts of a recipe that say what is read and how it is optimised, for growth and for head tuning alike."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from frozen_glyph.recipe_fields import RecipeError, require

DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class SourceRecipe:
    """One source of training documents: local files (.txt, .jsonl, .parquet), or a dataset of the Hub, streamed."""

    files: list[str] | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    field: str = "text"
    weight: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("files", "dataset") if getattr(self, name)]
        require(len(given) == 1, "data.sources", given, "a source with either files or dataset")
        if self.weight is not None:
            require(0 < self.weight < float("inf"), "data.sources.weight", self.weight, "above 0")


@dataclass(frozen=True)
class DataRecipe:
    """Training documents and held-out text.

    Without weights every source is read once, in order; with weights (all or none) documents are drawn so that each
    source's share of the tokens follows its weight, until ``tokens`` are packed or a source ends.
    """

    sources: list[SourceRecipe]
    valid: list[str] = field(default_factory=list)
    tokens: int | None = None
    attend_across_documents: bool = True

    def __post_init__(self) -> None:
        require(bool(self.sources), "data.sources", self.sources, "at least one source")
        weights = [source.weight for source in self.sources]
        require(None not in weights or not any(weights), "data.sources.weight", weights, "given to all or to none")
        if self.tokens is not None:
            require(self.tokens >= 1, "data.tokens", self.tokens, "at least 1")

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
        return content


@dataclass(frozen=True)
class TrainingRecipe:
    """Optimisation of every phase: AdamW, linear warm-up, decay to ``final_learning_rate_ratio`` of the peak.

    ``batch_tokens`` are the tokens of one optimiser step over all devices. ``micro_batch_size`` sequences go through
    the model at once on each device; None: all of the device's share, and gradients are not accumulated.
    """

    context_length: int = 256
    batch_tokens: int = 4096
    micro_batch_size: int | None = None
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "cosine"
    warmup_steps: int = 50
    final_learning_rate_ratio: float = 0.1
    weight_decay: float = 0.1
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    activation_checkpointing: bool = False
    prefix_cache: Literal["none", "memory", "disk"] = "none"
    quantize_frozen: Literal["none", "int8", "int4", "nf4"] = "none"
    eval_steps: int | None = None
    save_steps: int = 500
    report_to: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.context_length >= 8, "training.context_length", self.context_length, "at least 8 tokens")
        batch, length = self.batch_tokens, self.context_length
        whole = batch >= length and batch % length == 0
        require(whole, "training.batch_tokens", batch, f"a multiple of training.context_length={length}")
        micro = self.micro_batch_size
        fits = micro is None or (micro >= 1 and self.batch_size % micro == 0)
        require(fits, "training.micro_batch_size", micro, f"a divisor of the {self.batch_size} sequences of a batch")
        require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        require(self.warmup_steps >= 0, "training.warmup_steps", self.warmup_steps, "0 or more")
        require(self.save_steps >= 1, "training.save_steps", self.save_steps, "at least 1")
        require(self.eval_steps is None or self.eval_steps >= 1, "training.eval_steps", self.eval_steps, "at least 1")
        ratio = self.final_learning_rate_ratio
        require(0 <= ratio <= 1, "training.final_learning_rate_ratio", ratio, "from 0 to 1")
        require(0 < self.adam_beta2 < 1, "training.adam_beta2", self.adam_beta2, "between 0 and 1")
        require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        require(self.max_grad_norm > 0, "training.max_grad_norm", self.max_grad_norm, "above 0")

    @property
    def batch_size(self) -> int:
        """Sequences of one optimiser step over all devices."""
        return self.batch_tokens // self.context_length

    def steps_of(self, steps: int | None, tokens: int | None) -> int:
        """Optimiser steps of a phase that is planned in ``steps`` or in ``tokens``, at most."""
        if tokens is not None:
            return -(-tokens // self.batch_tokens)
        return steps or DEFAULT_STEPS


def check_length(section: str, steps: int | None, tokens: int | None) -> None:
    """``RecipeError`` when a phase is planned in both ``steps`` and ``tokens``; ``section`` is such as ``lora.``."""
    require(steps is None or tokens is None, f"{section}steps", steps, "left out where tokens is given")
    for name, value in (("steps", steps), ("tokens", tokens)):
        require(value is None or value >= 1, f"{section}{name}", value, "at least 1")


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
