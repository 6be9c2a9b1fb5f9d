"""Ways to mix experts' predictions: those of merged checkpoints, written out plainly, and others that were tried.

A rule has two parts: how much each expert counts when a token is predicted, which follows from the log-probabilities it
gave to the tokens before, [N, B, T] -> log weights [N, B, T] (experts, windows, tokens after the first); and what is
averaged with these weights, logits or probabilities. All priors are equal.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch


class Rule(NamedTuple):
    log_weights: Callable[[torch.Tensor], torch.Tensor]
    averages: Literal["logits", "probabilities"]

    def nats(self, logits_NBTV: torch.Tensor, log_probs_NBT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Nats of each target [B, T], whose log-probabilities under each expert are ``log_probs_NBT``."""
        log_weights = self.log_weights(log_probs_NBT.double()).log_softmax(0).float()
        if self.averages == "probabilities":
            return -(log_weights + log_probs_NBT).logsumexp(0)
        mixed = torch.einsum("nbt,nbtv->btv", log_weights.exp(), logits_NBTV)
        return torch.nn.functional.cross_entropy(mixed.transpose(1, 2), targets_BT, reduction="none")


def log_probs_of(logits_NBTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Each expert's log-probability of the targets, [N, B, T]."""
    targets = targets_BT.expand(logits_NBTV.shape[:-1]).unsqueeze(-1)
    return logits_NBTV.gather(-1, targets).squeeze(-1) - logits_NBTV.logsumexp(-1)


def before(values: torch.Tensor) -> torch.Tensor:
    """``values`` [..., T] moved to the token after, zero for the first: what was known when it was predicted."""
    return torch.nn.functional.pad(values, (1, 0))[..., :-1]


def all_tokens(log_probs: torch.Tensor) -> torch.Tensor:
    return before(log_probs.cumsum(-1))


def last_tokens(log_probs: torch.Tensor, window: int, power: float = 1) -> torch.Tensor:
    """The sum over the ``window`` tokens before each, times ``power``."""
    sums = log_probs.cumsum(-1)
    earlier = torch.nn.functional.pad(sums, (window, 0))[..., : sums.shape[-1]]
    return power * before(sums - earlier)


def fixed_share(log_probs: torch.Tensor, share: float) -> torch.Tensor:
    """Log posterior that one expert is right, which another replaces at each token with probability ``share``.

    Source: Herbster and Warmuth 1998, https://doi.org/10.1023/A:1007424614876.
    """
    count = log_probs.shape[0]
    weights = [torch.full_like(log_probs[..., 0], -math.log(count))]
    for step in range(log_probs.shape[-1] - 1):
        posterior = (weights[-1] + log_probs[..., step]).softmax(0)
        weights.append(((1 - share) * posterior + share / count).log())
    return torch.stack(weights, -1)


def last(window: int, power: float = 1) -> Callable[[torch.Tensor], torch.Tensor]:
    return functools.partial(last_tokens, window=window, power=power)


def shared(share: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return functools.partial(fixed_share, share=share)


MODEL_RULES = {
    "mean": Rule(torch.zeros_like, "logits"),
    "probability": Rule(torch.zeros_like, "probabilities"),
    "posterior": Rule(all_tokens, "probabilities"),
    "fixed_share": Rule(shared(0.01), "probabilities"),
    "evidence": Rule(last(16), "logits"),
}
TRIED = {
    "evidence, window 4": Rule(last(4), "logits"),
    "evidence, window 64": Rule(last(64), "logits"),
    "evidence, window 16, power 0.5": Rule(last(16, 0.5), "logits"),
    "evidence of probabilities": Rule(last(16), "probabilities"),
    "fixed share 0.05": Rule(shared(0.05), "probabilities"),
    "fixed share 0.01 of logits": Rule(shared(0.01), "logits"),
    "fixed share 0.05 of logits": Rule(shared(0.05), "logits"),
}
RULES = MODEL_RULES | TRIED
# Names of the rule `evidence` by its window, of which the development text chooses one.
WINDOWS = {4: "evidence, window 4", 16: "evidence", 64: "evidence, window 64"}
