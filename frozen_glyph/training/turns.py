"""What happens between two steps of a phase beside learning: blocks take turns, a trunk is kept where a decay begins.

Both follow from the number of the step alone, so that a resumed phase does what an uninterrupted one does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainerCallback

from frozen_glyph.checkpoint.files import write_tensors
from frozen_glyph.training.trainer import moments_of, trainable, whole


class Turns(TrainerCallback):
    """Let ``blocks`` train in turns of ``steps``: one at a time, from the top down (BAdam, arXiv 2404.02827), or
    ``draw`` of them at random (LISA, arXiv 2403.17919).

    Only blocks whose turn it is have gradients and moments, which they lose with it. Between steps all require
    gradients, which is what a checkpoint goes by.
    """

    def __init__(self, blocks: Sequence[nn.Module], steps: int, draw: int | None = None, seed: int = 0) -> None:
        self.blocks, self.steps, self.draw, self.seed = list(blocks), steps, draw, seed

    def training(self, step: int) -> set[int]:
        """Which of the blocks train in step ``step``, counted from 0."""
        turn, count = step // self.steps, len(self.blocks)
        if self.draw is None:
            return {count - 1 - turn % count} if count else set()
        return set(np.random.default_rng((self.seed, turn)).permutation(count)[: self.draw].tolist())

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        training = self.training(state.global_step)
        for block in (block for place, block in enumerate(self.blocks) if place not in training):
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
