"""What a token costs under each rule: merged checkpoints that read text token by token, beside one of their experts."""

import functools
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from eval.bench.sparse import read
from eval.bench.timing import alternate, timed
from eval.studies.composition.rules import SPARSE
from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.text.loss import windows_of

REPEATS = 2  # each contestant reads one window of the text in a turn
# How a merged checkpoint is told each row: a rule that stands for its variants, whose costs are the same.
SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {"rule": "mean"},
    "probability": {"rule": "probability"},
    "posterior": {"rule": "posterior"},
    "evidence": {"rule": "evidence"},
    "fixed_share": {"rule": "fixed_share"},
    "fixed_share, learnt": {"rule": "fixed_share", "switching_rates": [0.003, 0.01, 0.03]},
    **{name: {"rule": "fixed_share", "active_experts": active} for name, active in SPARSE.items()},
}


def costs_of(experts: Sequence[Path], text: str, tokenizer: Any, context_length: int) -> dict[str, float]:
    """Processor's time of a token by rule, over that of the first expert; all in turns."""
    window = max((window.input_ids for window in windows_of(text, tokenizer, context_length)), key=len)
    single = FrozenGlyphForCausalLM.from_pretrained(experts[0]).eval()
    with TemporaryDirectory() as folder:
        merged = FrozenGlyphMoEForCausalLM.from_pretrained(merge_experts(experts, Path(folder) / "merged")).eval()
    defaults = {name: getattr(merged.config, name) for names in SETTINGS.values() for name in names}

    def turn(model: Any, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(model.config, name, value)
        read(model, torch.tensor([window]))

    turn(single, {})  # warm
    turns = {name: functools.partial(turn, merged, defaults | settings) for name, settings in SETTINGS.items()}
    turns[""] = functools.partial(turn, single, {})
    seconds = alternate({name: timed(work) for name, work in turns.items()}, REPEATS)
    return {
        name: round(median(own.cpu / one.cpu for own, one in zip(seconds[name], seconds[""], strict=True)), 3)
        for name in SETTINGS
    }
