"""Ways to mix experts' predictions: those of merged checkpoints, written out plainly, and what others do.

A rule has two parts: how much each expert counts when a token is predicted, which follows from the log-probabilities it
gave to the tokens before, [N, B, T] -> log weights [N, B, T] (experts, windows, tokens after the first); and what is
averaged with these weights, logits or probabilities. All priors are equal, so that ``weighted`` is ``mean``.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from eval.studies.composition.sparse import PROMPT_TOKENS


class Rule(NamedTuple):
    log_weights: Callable[[torch.Tensor], torch.Tensor]
    averages: Literal["logits", "probabilities"]

    def nats(self, logits_NBTV: torch.Tensor, log_probs_NBT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Nats of each target [B, T], whose log-probabilities under each expert are ``log_probs_NBT``."""
        log_weights = self.log_weights(log_probs_NBT.double()).log_softmax(0).float()
        if self.averages == "probabilities":
            return -(log_weights + log_probs_NBT).logsumexp(0)
        mixed = torch.einsum("nbt,nbtv->btv", log_weights.exp(), logits_NBTV)
        return -log_probs_of(mixed, targets_BT)

    def switches(self, log_probs_NBT: torch.Tensor) -> torch.Tensor:
        """Where another expert leads than at the token before, 1.0, else 0.0: [B, T]."""
        leading_BT = self.log_weights(log_probs_NBT.double()).argmax(0)
        return torch.nn.functional.pad((leading_BT[:, 1:] != leading_BT[:, :-1]).float(), (1, 0))


def log_probs_of(logits_NBTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Each expert's log-probability of the targets, [N, B, T]."""
    targets = targets_BT.expand(logits_NBTV.shape[:-1]).unsqueeze(-1)
    return logits_NBTV.gather(-1, targets).squeeze(-1) - logits_NBTV.logsumexp(-1)


def before(values: torch.Tensor) -> torch.Tensor:
    """``values`` [..., T] moved to the token after, zero for the first: what was known when it was predicted."""
    return torch.nn.functional.pad(values, (1, 0))[..., :-1]


def all_tokens(log_probs: torch.Tensor) -> torch.Tensor:
    return before(log_probs.cumsum(-1))


def last_tokens(log_probs: torch.Tensor, window: int) -> torch.Tensor:
    """The sum over the ``window`` tokens before each."""
    sums = log_probs.cumsum(-1)
    earlier = torch.nn.functional.pad(sums, (window, 0))[..., : sums.shape[-1]]
    return before(sums - earlier)


def first_tokens(log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean over the first ``PROMPT_TOKENS``, from there on, over ``temperature``; before them zero.

    As PackLLM weighs models by their perplexity of the prompt: Mavromatis et al. 2024, https://arxiv.org/abs/2404.11531.
    """
    mean = log_probs[..., :PROMPT_TOKENS].mean(-1, keepdim=True) / temperature
    return torch.where(torch.arange(log_probs.shape[-1]) < PROMPT_TOKENS, 0.0, mean)


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


def shared(share: float) -> Rule:
    return Rule(functools.partial(fixed_share, share=share), "probabilities")


def learnt(log_probs: torch.Tensor) -> torch.Tensor:
    """Fixed share of each of ``RATES``, which count by how well they predicted the text so far."""
    experts = [fixed_share(log_probs, rate) for rate in RATES]
    rates = torch.stack([all_tokens((weights + log_probs).logsumexp(0)) for weights in experts]).log_softmax(0)
    return torch.stack([weights + rate for weights, rate in zip(experts, rates, strict=True)]).logsumexp(0)


RATES = (0.003, 0.01, 0.03)
# Rules of which the development text chooses a variant: by rule its variants' names, and what each varies in.
VARIANTS = {
    "evidence": {f"evidence {window}": window for window in (4, 16, 64)},
    "fixed_share": {f"fixed_share {rate}": rate for rate in RATES},
    "prompt": {f"prompt {temperature}": temperature for temperature in (0.1, 1.0)},
}
PLAIN = {
    "mean": Rule(torch.zeros_like, "logits"),
    "probability": Rule(torch.zeros_like, "probabilities"),
    "posterior": Rule(all_tokens, "probabilities"),
    "fixed_share, learnt": Rule(learnt, "probabilities"),
}
RULES = (
    PLAIN
    | {
        name: Rule(functools.partial(last_tokens, window=window), "logits")
        for name, window in VARIANTS["evidence"].items()
    }
    | {name: shared(rate) for name, rate in VARIANTS["fixed_share"].items()}
    | {
        name: Rule(functools.partial(first_tokens, temperature=temperature), "logits")
        for name, temperature in VARIANTS["prompt"].items()
    }
)
# Sparse rows, at most so many experts running: each of the rule whose weights it follows.
SPARSE = {f"fixed_share, {active} run": active for active in (1, 2)}
SPARSE_RULE = "fixed_share 0.01"  # at the rate that merged models have
