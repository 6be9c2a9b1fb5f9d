"""The rules by which several experts' predictions of the next token become one: the only list of them.

Configurations, recipes, the command line, model cards and the README read it. A new rule is a new entry of ``RULES``
and the function that its ``combine`` names. No torch is imported here, so that the list is at hand without it.

Shapes: B batch, T tokens, N experts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

DEFAULT_RULE = "mean"
# Fields of the configuration that some rules take, with their defaults.
OPTIONS: dict[str, Any] = {
    "evidence_window": 16,  # tokens that the rule evidence looks back
    "switching_rates": [0.01],  # how often the rule fixed_share expects another expert to take over
    "prompt_sample": None,  # tokens of a prompt that rules read to estimate; None: all that count
    "active_experts": None,  # experts that run at most while a text is written; None: all
    "active_threshold": 0.05,  # of the weight, which those that run need not have
}
MOST_RATES = 64
SMALLEST = 2.0**-126  # float32's smallest normal number


def mixture(logits_NBTV: Sequence[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """Log of the weighted mean of the experts' probabilities [B, T, V]; none below float32's smallest."""
    return weighted_sum((logits.softmax(-1) for logits in logits_NBTV), log_weights_BTN).clamp_min(SMALLEST).log()


def log_pool(logits_NBTV: Sequence[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """The weighted mean of the experts' logits [B, T, V]."""
    return weighted_sum(logits_NBTV, log_weights_BTN)


def weighted_sum(parts_NBTV: Iterable[torch.Tensor], log_weights_BTN: torch.Tensor) -> torch.Tensor:
    """The sum [B, T, V] of what the experts say, one at a time."""
    weights_NBT1 = log_weights_BTN.exp().unsqueeze(-1).movedim(-2, 0)
    total = weights_NBT1.new_zeros(())
    for part, weight in zip(parts_NBTV, weights_NBT1, strict=True):
        total = total.addcmul(part, weight)
    return total


@dataclass(frozen=True)
class MergeRule:
    """How the experts' predictions of the next token become one.

    name: what configurations, recipes and the command line call it.
    costs: what it computes, and what that costs, for people. N experts.
    source: where the method is from.
    weights: what ``expert_weights`` may be. ``none``: all experts count alike; ``any``: any finite numbers, for a sum
        of logits; ``prior``: non-negative and of sum 1.
    combine: logits [B, T, V] from each expert's own, N of [B, T, V] in float32, and the logarithms of what each counts
        [B, T, N]. None: the sum of the logits times the weights, which one head over the experts' states computes.
    reads_tokens: an expert counts as much as its weight times the probability that it gave to the tokens read so far.
    options: those of ``OPTIONS`` that it takes beside the weights. ``evidence_window``: of the tokens read, how many of
        the last ones say how much an expert counts. ``switching_rates``: with these probabilities another expert takes
        over at a token. ``prompt_sample``: of a longer prompt only so many tokens are read, and the rest estimated.
        ``active_experts``, ``active_threshold``: who holds little weight need not run (``scheduling_frozen_glyph.py``).
    """

    name: str
    costs: str
    source: str
    weights: Literal["none", "any", "prior"] = "prior"
    combine: Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor] | None = None
    reads_tokens: bool = False
    options: tuple[str, ...] = ()

    @property
    def one_head(self) -> bool:
        """Whether one head over the experts' states computes it."""
        return self.combine is None

    def weights_of(self, expert_weights: Sequence[float]) -> list[float]:
        """What each expert counts, given the ``expert_weights`` of the configuration."""
        count = len(expert_weights)
        return [1 / count] * count if self.weights == "none" else list(expert_weights)

    def covers(self, other: MergeRule) -> bool:
        """Whether this rule, with the weights that a model has under ``other``, makes the same logits."""
        return other is self or (other.one_head and self.one_head and self.weights == "any")


RULES = {
    rule.name: rule
    for rule in (
        MergeRule(
            "mean",
            "the published rule: logits are the equal mean of the experts' logits. Where an expert never saw a "
            "language, it pulls the mean away from the expert that knows it.",
            source="arXiv 2507.07129, section on composition",
            weights="none",
        ),
        MergeRule(
            "weighted",
            "logits are the weighted sum of the experts' logits, one weight for all text: what favours one expert's "
            "language costs the languages of the others.",
            source="logarithmic opinion pool, doi 10.1214/ss/1177013825",
            weights="any",
        ),
        MergeRule(
            "probability",
            "log of the weighted mean of the experts' probabilities. Every token costs at most minus the log of an "
            "expert's weight more than under that expert: log N nats a token at equal weights.",
            source="linear opinion pool, doi 10.1214/ss/1177013825",
            combine=mixture,
        ),
        MergeRule(
            "posterior",
            "a Bayesian mixture: each expert counts as much as it has predicted the text so far. The loss of a whole "
            "sequence exceeds an expert's by at most minus the log of its weight: log N nats at equal weights.",
            source="Bayesian mixture, doi 10.1017/CBO9780511546921, chapter 9",
            combine=mixture,
            reads_tokens=True,
            options=("prompt_sample",),
        ),
        MergeRule(
            "fixed_share",
            "a Bayesian mixture of texts whose writer changes: each expert counts as much as it predicts the text of "
            "late. Over T tokens the loss exceeds that of the best sequence of experts with S switches by at most "
            "log N + S log(N / rate) - (T - 1 - S) log(1 - rate) nats at equal weights.",
            source="Herbster and Warmuth 1998, doi 10.1023/A:1007424614876",
            combine=mixture,
            reads_tokens=True,
            options=("switching_rates", "prompt_sample", "active_experts", "active_threshold"),
        ),
        MergeRule(
            "evidence",
            "logits weighted by how well each expert predicted the latest tokens. Nothing bounds what it loses to the "
            "best expert; measure it on your text.",
            source="measured in eval/results/composition-study.md",
            combine=log_pool,
            reads_tokens=True,
            options=("evidence_window", "prompt_sample"),
        ),
    )
}


def rules_with(**fields: Any) -> list[str]:
    """The names of the rules whose attributes are these: ``rules_with(one_head=True)``."""
    return [name for name, rule in RULES.items() if all(getattr(rule, key) == value for key, value in fields.items())]


def rules_with_option(option: str) -> list[str]:
    """The names of the rules that take this one of ``OPTIONS``."""
    return [name for name, rule in RULES.items() if option in rule.options]


__all__ = ["DEFAULT_RULE", "MOST_RATES", "OPTIONS", "RULES", "MergeRule", "rules_with", "rules_with_option"]
