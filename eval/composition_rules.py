"""Ways to mix experts' predictions: those of merged checkpoints, written out plainly, and others that were tried.

Each takes the experts' logits [N, B, T, V] and the token ids [B, T] and returns the nats [B, T - 1] of the tokens after
the first. All priors are equal. ``history`` [N, B, T - 1] below is what an expert's log-probabilities of the tokens
before say of it, at the moment a token is predicted.
"""

import functools
import math
from collections.abc import Callable

import torch

Mix = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def target_log_probs(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Each expert's log-probability of the tokens after the first, [N, B, T - 1]."""
    targets = ids_BT[None, :, 1:, None].expand(logits_NBTV.shape[0], -1, -1, 1)
    return logits_NBTV[:, :, :-1].gather(-1, targets).squeeze(-1) - logits_NBTV[:, :, :-1].logsumexp(-1)


def before(values: torch.Tensor) -> torch.Tensor:
    """``values`` [..., T - 1] moved to the token after, zero for the first: what was known when it was predicted."""
    return torch.nn.functional.pad(values, (1, 0))[..., :-1]


def last_tokens(log_probs: torch.Tensor, window: int) -> torch.Tensor:
    """Sum of the log-probabilities of the ``window`` tokens before each, [N, B, T - 1]."""
    sums = log_probs.double().cumsum(-1)
    earlier = torch.nn.functional.pad(sums, (window, 0))[..., : sums.shape[-1]]
    return before(sums - earlier)


def fixed_share_log_weights(log_probs: torch.Tensor, share: float) -> torch.Tensor:
    """Log posterior that one expert is right, which another replaces at each token with probability ``share``.

    Source: Herbster and Warmuth 1998, https://doi.org/10.1023/A:1007424614876. [N, B, T - 1] -> the same.
    """
    count = log_probs.shape[0]
    weights = [torch.full_like(log_probs[..., 0], -math.log(count))]
    for step in range(log_probs.shape[-1] - 1):
        posterior = (weights[-1] + log_probs[..., step]).log_softmax(0)
        weights.append(((1 - share) * posterior.exp() + share / count).log())
    return torch.stack(weights, -1)


def mix_probabilities(log_weights: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    return -(log_weights.log_softmax(0) + log_probs).logsumexp(0).float()


def mix_logits(log_weights: torch.Tensor, logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    weights = log_weights.softmax(0).float()
    mixed = torch.zeros_like(logits_NBTV[0, :, :-1])
    for weight_BT, logits_BTV in zip(weights, logits_NBTV, strict=True):
        mixed += weight_BT[..., None] * logits_BTV[:, :-1]
    return torch.nn.functional.cross_entropy(mixed.transpose(1, 2), ids_BT[:, 1:], reduction="none")


def mean(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    return mix_logits(torch.zeros((*logits_NBTV.shape[:2], ids_BT.shape[1] - 1)), logits_NBTV, ids_BT)


def probability(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    log_probs = target_log_probs(logits_NBTV, ids_BT)
    return mix_probabilities(torch.zeros_like(log_probs), log_probs)


def posterior(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    log_probs = target_log_probs(logits_NBTV, ids_BT)
    return mix_probabilities(before(log_probs.double().cumsum(-1)), log_probs)


def fixed_share(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor, share: float) -> torch.Tensor:
    log_probs = target_log_probs(logits_NBTV, ids_BT)
    return mix_probabilities(fixed_share_log_weights(log_probs.double(), share), log_probs)


def window_probability(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor, window: int) -> torch.Tensor:
    """Probabilities, weighted as ``evidence`` weighs logits."""
    log_probs = target_log_probs(logits_NBTV, ids_BT)
    return mix_probabilities(last_tokens(log_probs, window), log_probs)


def evidence(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor, window: int, power: float = 1) -> torch.Tensor:
    history = last_tokens(target_log_probs(logits_NBTV, ids_BT), window)
    return mix_logits(power * history, logits_NBTV, ids_BT)


def fixed_share_logits(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor, share: float, power: float = 1) -> torch.Tensor:
    """Logits, weighted by the fixed-share posterior."""
    log_probs = target_log_probs(logits_NBTV, ids_BT).double()
    return mix_logits(power * fixed_share_log_weights(log_probs, share), logits_NBTV, ids_BT)


def confidence(logits_NBTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits, weighted by each expert's certainty about the token to come (its negative entropy); no history."""
    log_probs = logits_NBTV[:, :, :-1].log_softmax(-1)
    return mix_logits((log_probs.exp() * log_probs).sum(-1), logits_NBTV, ids_BT)


MODEL_RULES: dict[str, Mix] = {
    "mean": mean,
    "probability": probability,
    "posterior": posterior,
    "evidence": functools.partial(evidence, window=16),
}
TRIED: dict[str, Mix] = {
    **{f"evidence, window {window}": functools.partial(evidence, window=window) for window in (4, 8, 32, 64)},
    **{
        f"evidence, window {window}, power {power}": functools.partial(evidence, window=window, power=power)
        for window, power in ((16, 0.5), (64, 0.25))
    },
    "probability, window 16": functools.partial(window_probability, window=16),
    **{f"fixed share {share}": functools.partial(fixed_share, share=share) for share in (0.01, 0.05)},
    **{f"fixed share {share}, logits": functools.partial(fixed_share_logits, share=share) for share in (0.01, 0.05)},
    "fixed share 0.01, logits, power 0.5": functools.partial(fixed_share_logits, share=0.01, power=0.5),
    "confidence": confidence,
}
RULES = MODEL_RULES | TRIED
