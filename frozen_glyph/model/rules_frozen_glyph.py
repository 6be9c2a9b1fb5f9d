"""How several experts' predictions of the next token become one: pure functions, composed into the rules below.

mean, weighted: the sum of the experts' logits times constant weights, a log-opinion pool (arXiv 2507.07129, section on
    composition). It needs no function here: one head over the experts' scaled states computes it.
probability: ``mixture`` with constant weights, a linear opinion pool.
posterior: ``mixture`` with weights proportional to prior times the probability the expert gave to the tokens read so
    far: the Bayesian mixture. The total loss of a sequence exceeds an expert's by at most ``-log prior`` nats, which is
    log N of an equal prior.
evidence: ``log_pool`` with such weights, read from the last tokens only, so that it forgets.

Shapes: B batch, T tokens, N experts, V vocabulary.
"""

from collections.abc import Iterable, Sequence

import torch

READING_RULES = ("posterior", "evidence")  # weights depend on the tokens read


def mixture(logits_NBTV: Sequence[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """Log of the weighted mean of the experts' probabilities [B, T, V]; none below float32's smallest."""
    mean = weighted_sum((logits.softmax(-1) for logits in logits_NBTV), log_weights_BTN)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


def log_pool(logits_NBTV: Sequence[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """The weighted mean of the experts' logits [B, T, V]."""
    return weighted_sum(logits_NBTV, log_weights_BTN)


def weighted_sum(parts_NBTV: Iterable[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """The sum [B, T, V] of what the experts say, one at a time."""
    weights_NBT1 = log_weights_BTN.exp().unsqueeze(-1).movedim(-2, 0)
    total = torch.zeros((), device=weights_NBT1.device)
    for part, weight in zip(parts_NBTV, weights_NBT1, strict=True):
        total = torch.addcmul(total, part, weight)
    return total


def normalisers(logits_NBTV: Sequence[torch.Tensor]) -> torch.Tensor:
    """What is subtracted from an expert's logits to make log-probabilities of them: [B, T, N]."""
    # From any one token; log_softmax is one fused pass, logsumexp several.
    return torch.stack([logits[..., 0] - logits.log_softmax(-1)[..., 0] for logits in logits_NBTV], dim=-1)


def evidence_of(log_probs_BTN: torch.Tensor, counted_BT: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Each expert's log-probability of the tokens up to and including each position [B, T, N].

    Args:
        log_probs_BTN: of each token under each expert; zero where the token is not ``counted_BT`` (1.0, else 0.0).
        window: how many of the last counted tokens there are in the sum; None: all.
    """
    wide = log_probs_BTN if log_probs_BTN.device.type == "mps" else log_probs_BTN.double()  # differences of large sums
    total = wide.cumsum(1)
    if window is not None:
        counts_BT = counted_BT.cumsum(1)
        # How many positions lie before the window: all those where the count was still so low.
        before_BT = torch.searchsorted(counts_BT, counts_BT - window, right=True)
        total_before = torch.nn.functional.pad(total, (0, 0, 1, 0))
        total = total - total_before.gather(1, before_BT.unsqueeze(-1).expand_as(total))
    return total.to(log_probs_BTN.dtype)


__all__ = ["READING_RULES", "evidence_of", "log_pool", "mixture", "normalisers"]
