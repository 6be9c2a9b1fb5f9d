"""What happens between two steps of a phase beside learning: blocks take turns, a trunk is kept where a decay begins.

Both follow from the number of the step alone, so that a resumed phase does what an uninterrupted one does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from frozen_glyph.checkpoint.files import write_tensors
from frozen_glyph.training.trainer import moments_of, trainable, whole


class Turns(TrainerCallback):
    """Let ``blocks`` train one at a time, from the top down, for ``steps`` each (BAdam, arXiv 2404.02827).

    Only the block whose turn it is has gradients and moments, which it loses with its turn. Between steps all require
    gradients, which is what a checkpoint goes by.
    """

    def __init__(self, blocks: Sequence[nn.Module], steps: int) -> None:
        self.blocks, self.steps = list(blocks), steps

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        turn = len(self.blocks) - 1 - state.global_step // self.steps % len(self.blocks)
        for block in (*self.blocks[:turn], *self.blocks[turn + 1 :]):
            for parameter in block.parameters():
                parameter.requires_grad_(False)
                optimizer.state.pop(parameter, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for block in self.blocks:
            block.requires_grad_(True)


class Branch(TrainerCallback):
    """After step ``at``, from which the learning rate falls, write what has trained to ``trunk`` and Adam's state of it
    to ``moments``: a phase that begins there has seen no decay."""

    def __init__(self, at: int, trunk: Path, moments: Path | None) -> None:
        self.at, self.trunk, self.moments = at, trunk, moments

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if state.global_step != self.at:
            return
        tensors = {name: whole(parameter).detach().cpu() for name, parameter in trainable(model).items()}
        if args.should_save:
            write_tensors(self.trunk, tensors)
            if self.moments is not None:
                write_tensors(self.moments, moments_of(model, optimizer))
