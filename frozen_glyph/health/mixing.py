"""How a layer mixes features: effective rank and off-diagonal share of its input-output Jacobian, by random probes.

A probe is a vector w of random signs at the output; one backward pass gives J^T w at the input. P probes give P columns
of J^T in random combinations, whose singular values tell its rank up to P, and w * (J^T w), whose mean over probes is
the diagonal of J (Bekas et al. 2007, https://doi.org/10.1016/j.apnum.2007.01.003). J is never made.

Shapes: P probes, T tokens, D features in, O features out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from frozen_glyph.health.gradients import effective_rank

PROBES = 32
NOTHING = 1e-5  # a Jacobian smaller than this share of the identity's is rounding error, and counts as zero


class Mixing(NamedTuple):
    """``rank``: directions of the input that reach the output, at most PROBES. ``off_diagonal``: share of the squared
    Jacobian that leads from one feature to another; None where inputs and outputs are not the same features."""

    rank: float
    off_diagonal: float | None


def probe(function: Callable[[torch.Tensor], torch.Tensor], point_D: torch.Tensor) -> Mixing:
    """Mixing of ``function``, which takes copies [P, D] of ``point_D`` [D] to outputs [P, O], each copy on its own."""
    copies = point_D.detach().repeat(PROBES, 1).requires_grad_()
    with torch.enable_grad():
        output = function(copies)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, output.shape, generator=generator).mul_(2).sub_(1).to(output)
    (rows,) = torch.autograd.grad(output, copies, signs, allow_unused=True, materialize_grads=True)
    rows, signs = rows.double(), signs.double()
    if rows.norm() < NOTHING * signs.norm():
        rows = torch.zeros_like(rows)
    off_diagonal = None
    if rows.shape == signs.shape:
        diagonal = rows * signs
        squares = (diagonal.sum(0).square() - diagonal.square().sum(0)).sum() / (PROBES * (PROBES - 1))  # unbiased
        total = rows.square().sum() / PROBES
        off_diagonal = float((1 - squares / total).clamp(0, 1)) if total > 0 else 0.0
    return Mixing(effective_rank(rows), off_diagonal)


def probe_block(block: Any, states_TD: torch.Tensor, arguments: dict[str, Any]) -> Mixing:
    """Mixing of what ``block`` adds to the residual stream at the last of ``states_TD``, by the state at that place.

    ``arguments`` are the block's other arguments, for one sequence of T tokens.
    """
    before = states_TD[:-1].expand(PROBES, -1, -1)

    def added(last_PD: torch.Tensor) -> torch.Tensor:
        states = torch.cat([before, last_PD.unsqueeze(1)], dim=1)
        return block(states, **arguments)[:, -1] - last_PD

    return probe(added, states_TD[-1])
