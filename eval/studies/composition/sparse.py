"""Sparse reading written out plainly: what a token costs where only the experts run that the text is of.

The reference of ``frozen_glyph/model/scheduling_frozen_glyph.py``, whose numbers it takes, one row at a time. Experts
read a prompt together; then a token at a time those that lead, with the weights of the last step in which all ran, and
who rests counts as one that knows nothing. All run again, as if they always had, when the leading expert is surprised
or enough tokens were missed.
"""

import math

import torch

from frozen_glyph.model.scheduling_frozen_glyph import CATCH_UP_TOKENS, DRIFT, LIMIT

PROMPT_TOKENS = 32
THRESHOLD = 0.05  # as merged models have it


def sparse_nats(
    log_probs_NBT: torch.Tensor,
    entropies_NBT: torch.Tensor,
    log_weights_NBT: torch.Tensor,
    active: int,
    vocab_size: int,
) -> torch.Tensor:
    """Nats of each target [B, T] with at most ``active`` experts running.

    ``log_probs_NBT`` are the targets' under each expert, ``entropies_NBT`` of what each predicts there, and
    ``log_weights_NBT`` what each counts there when all have read every token.
    """
    dense = -(log_weights_NBT + log_probs_NBT).logsumexp(0)
    rows = [
        sparse_row(*(part[:, row].double() for part in (log_probs_NBT, entropies_NBT, log_weights_NBT)), active)
        for row in range(dense.shape[0])
    ]
    ran, running, left_out = (torch.stack(part) for part in zip(*rows, strict=True))
    unknown = (left_out / vocab_size).log()
    return torch.where(ran, dense, -torch.logaddexp(running.to(dense.dtype), unknown.to(dense.dtype)))


def sparse_row(
    log_probs_NT: torch.Tensor, entropies_NT: torch.Tensor, log_weights_NT: torch.Tensor, active: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each target: whether all ran, what those that ran say of it [T] with what they count, and what is left out."""
    count, length = log_probs_NT.shape
    ran, said, left_out = torch.ones(length, dtype=torch.bool), torch.zeros(length), torch.ones(length)
    own, weights = log_probs_NT.T.tolist(), log_weights_NT.exp().T.tolist()
    entropies = entropies_NT.T.tolist()
    last, surprise = min(PROMPT_TOKENS, length) - 1, 0.0
    for step in range(PROMPT_TOKENS, length):
        order = sorted(range(count), key=lambda expert: -weights[last][expert])
        leading = order[0]
        surprise = max(0.0, surprise - own[step - 1][leading] - entropies[step - 1][leading] - DRIFT)
        experts = leaders(weights[last], order)
        missed = step - 1 - last
        if missed >= CATCH_UP_TOKENS or surprise > LIMIT or not len(experts) <= active or len(experts) == count:
            last, surprise = step, 0.0
            continue
        held = sum(weights[last][expert] for expert in experts)
        ran[step], left_out[step] = False, max(1 - held, 2.0**-126)
        said[step] = math.log(
            sum(weights[last][expert] * math.exp(own[step][expert]) for expert in experts) / held + 1e-300
        ) + math.log1p(-float(left_out[step]))
    return ran, said, left_out


def leaders(weights: list[float], order: list[int]) -> list[int]:
    """The experts, the first of ``order``, that hold all but the threshold."""
    held, experts = 0.0, []
    for expert in order:
        if experts and held >= 1 - THRESHOLD:
            break
        experts.append(expert)
        held += weights[expert]
    return experts
