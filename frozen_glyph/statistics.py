"""Intervals, paired tests and verdicts for scores and losses; numpy only, seeded, no model in sight.

All intervals are two-sided at ``confidence`` (95% unless told). The bootstrap draws whole blocks or documents, never
tokens, because the tokens of one block depend on each other.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["above chance", "at chance", "below chance"]

_RESAMPLES = 10_000
_INDICES_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap to about 50 MB


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first on the same items: the estimate, its interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class McNemarResult:
    """How many items only one of two models got right, and the exact two-sided p-value of that split."""

    first_only: int
    second_only: int
    p_value: float


def _log_binomial_coefficients(total: int) -> NDArray[np.float64]:
    """Return log C(total, k) for k = 0..total."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    return log_factorials[-1] - log_factorials - log_factorials[::-1]


def binomial_interval(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a proportion: the values that an equal-tailed binomial test does not reject.

    Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404. The bounds are beta quantiles; they are
    found here by bisection on the binomial tail, which needs no special functions.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"correct={correct} of total={total}: need 0 <= correct <= total and total >= 1")
    log_coefficients = _log_binomial_coefficients(total)
    counts = np.arange(total + 1)
    tail = (1 - confidence) / 2

    def probability(proportion: float, chosen: slice) -> float:
        logs = log_coefficients + counts * np.log(proportion) + (total - counts) * np.log1p(-proportion)
        return float(np.exp(logs[chosen]).sum())

    def solve(chosen: slice, rising: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if (probability(middle, chosen) < tail) == rising:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    at_least, at_most = slice(correct, None), slice(None, correct + 1)
    lower = 0.0 if correct == 0 else solve(at_least, rising=True)
    upper = 1.0 if correct == total else solve(at_most, rising=False)
    return Interval(lower, upper)


def _resampled_sums(columns: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw the rows of ``columns`` [rows, k] with replacement, ``resamples`` times: column sums [resamples, k]."""
    rows = len(columns)
    generator = np.random.default_rng(seed)
    step = max(1, _INDICES_AT_ONCE // rows)
    sums = []
    for start in range(0, resamples, step):
        chosen = generator.integers(0, rows, size=(min(step, resamples - start), rows))
        sums.append(np.stack([column[chosen].sum(axis=1) for column in columns.T], axis=1))
    return np.concatenate(sums)


def _as_columns(*columns: ArrayLike | None) -> NDArray[np.float64]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns if column is not None]
    lengths = {array.shape for array in arrays}
    if len(lengths) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
        raise ValueError(
            f"a bootstrap needs non-empty one-dimensional columns of one length, got shapes {sorted(lengths)}"
        )
    return np.stack(arrays, axis=1)


def _percentiles(values: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of sum(numerators) / sum(denominators), or else of the mean.

    Source: Efron 1979, https://doi.org/10.1214/aos/1176344552. For a loss the rows are blocks: nats over characters.
    """
    columns = _as_columns(numerators, np.ones(np.shape(numerators)) if denominators is None else denominators)
    sums = _resampled_sums(columns, resamples, seed)
    return _percentiles(sums[:, 0] / sums[:, 1], confidence)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Return second - first on the same rows: of two means, or of two ratios over shared ``denominators``.

    Both models are drawn with the same rows, so what the rows have in common cancels. The p-value is twice the smaller
    share of draws on one side of zero, at least 1 / (resamples + 1). Source: Koehn 2004, https://aclanthology.org/W04-3250.
    """
    columns = _as_columns(first, second, np.ones(np.shape(first)) if denominators is None else denominators)
    totals = columns.sum(axis=0)
    sums = _resampled_sums(columns, resamples, seed)
    differences = (sums[:, 1] - sums[:, 0]) / sums[:, 2]
    smaller_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    low, high = _percentiles(differences, confidence)
    p_value = min(1.0, 2 * (smaller_side + 1) / (resamples + 1))
    return PairedDifference(float((totals[1] - totals[0]) / totals[2]), low, high, p_value)


def mcnemar_exact(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemarResult:
    """Compare two models on the same right-or-wrong items; only the items on which they differ count.

    Under equal ability each such item falls to either model with probability one half, so the smaller count is
    Binomial(n, 1/2). Source: McNemar 1947, https://doi.org/10.1007/BF02295996, in its exact form.
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"McNemar's test needs the same items for both models, got {first.shape} and {second.shape}")
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    total = first_only + second_only
    logs = _log_binomial_coefficients(total)[: min(first_only, second_only) + 1] - total * np.log(2)
    return McNemarResult(first_only, second_only, min(1.0, 2 * float(np.exp(logs).sum())))


def verdict(interval: tuple[float, float], chance: float) -> Verdict:
    """Say where a score's interval lies: wholly above chance, wholly below it, or neither."""
    low, high = interval
    if low > chance:
        return "above chance"
    if high < chance:
        return "below chance"
    return "at chance"
