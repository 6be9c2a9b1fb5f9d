"""What trains of a merged model's joint head: all of it, a low-rank change, or one factor per expert.

A parametrisation computes the head that is used from the frozen one and from what trains, so that the model's forward
pass and loss stay as they are. Shapes: N experts, D hidden size, V vocabulary, R rank.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from frozen_glyph.checkpoint.tensors import HEAD_BIAS, HEAD_WEIGHT
from frozen_glyph.merge.tune_recipe import TuneRecipe


class LowRankChange(nn.Module):
    """Weight [V, N * D] -> weight + up [V, R] @ down [R, N * D], which starts at zero (LoRA, arXiv 2106.09685)."""

    def __init__(self, weight: torch.Tensor, rank: int, seed: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        bound, generator = 1 / math.sqrt(columns), torch.Generator().manual_seed(seed)
        self.down = nn.Parameter(torch.empty(rank, columns).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.addmm(weight, self.up, self.down)


class Scales(nn.Module):
    """Each expert's part of a tensor times 1 + change [N]: rows [N, V], or columns side by side [V, N * D]."""

    def __init__(self, change: nn.Parameter, columns: bool) -> None:
        super().__init__()
        self.change, self.columns = change, columns

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        scales = 1 + self.change
        if self.columns:
            return tensor * scales.repeat_interleave(tensor.shape[1] // len(scales))
        return tensor * scales.unsqueeze(1)


def prepare_head(model: Any, recipe: TuneRecipe) -> None:
    """Freeze ``model``, in place, but for what ``recipe`` trains; it computes what it did."""
    head = model.lm_head
    model.requires_grad_(False)
    if recipe.what == "head":
        head.requires_grad_(True)
    elif recipe.what == "low-rank":
        register_parametrization(head, "weight", LowRankChange(head.weight, recipe.rank, recipe.seed))
    else:
        change = nn.Parameter(torch.zeros(head.num_experts))
        register_parametrization(head, "weight", Scales(change, columns=True))
        register_parametrization(head, "biases", Scales(change, columns=False))


def tuned_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The head's tensors after training, the low-rank change added."""
    return {HEAD_WEIGHT: model.lm_head.weight.detach(), HEAD_BIAS: model.lm_head.biases.detach()}


def tuned_weights(model: Any) -> list[float]:
    """``expert_weights`` that stand for the trained scales."""
    change = model.lm_head.parametrizations.biases[0].change.tolist()
    return [weight * (1 + share) for weight, share in zip(model.config.logit_weights, change, strict=True)]
