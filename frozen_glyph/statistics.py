"""Intervals, paired tests, trends, effect sizes and verdicts for scores and losses; seeded, no model.

All intervals are two-sided at ``confidence`` (95% unless told). The bootstrap draws whole blocks or documents, never
tokens, because the tokens of one block depend on each other. Items are the rows of every array called ``columns``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["above chance", "at chance", "below chance"]
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # column sums [draws, k] -> [draws]

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


@dataclass(frozen=True)
class TrendResult:
    """Change of a mean or ratio for one more unit of position: the estimate, its interval and a two-sided p-value."""

    slope: float
    low: float
    high: float
    p_value: float


def binomial_interval(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a proportion: the values that an equal-tailed binomial test does not reject.

    Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404: the bounds are beta quantiles.
    """
    from scipy.special import betaincinv

    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"correct={correct} of total={total}: need 0 <= correct <= total and total >= 1")
    tail = (1 - confidence) / 2
    lower = betaincinv(correct, total - correct + 1, tail) if correct else 0.0
    upper = betaincinv(correct + 1, total - correct, 1 - tail) if correct < total else 1.0
    return Interval(float(lower), float(upper))


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


def bootstrap_statistic(
    columns: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic of column sums, such as corpus BLEU, of [items, k]."""
    return _percentiles(statistic(_resampled_sums(np.asarray(columns, np.float64), resamples, seed)), confidence)


def _paired(
    columns: NDArray[np.float64], difference: Statistic, confidence: float, resamples: int, seed: int
) -> PairedDifference:
    differences = difference(_resampled_sums(columns, resamples, seed))
    estimate = float(difference(columns.sum(axis=0, keepdims=True))[0])
    smaller_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    low, high = _percentiles(differences, confidence)
    p_value = min(1.0, 2 * (smaller_side + 1) / (resamples + 1))
    if smaller_side == 0:
        p_value = _beyond_draws(p_value, estimate, float(differences.std()), len(columns))
    return PairedDifference(estimate, low, high, p_value)


def _beyond_draws(p_value: float, estimate: float, deviation: float, items: int) -> float:
    """Return a normal tail where no draw was as extreme: a correction for many tests needs to know how much less.

    Never less than 2 ** (1 - items), the least that a test of the items' signs could tell.
    """
    tail = math.erfc(abs(estimate) / deviation / math.sqrt(2)) if deviation else 0.0
    return min(p_value, max(tail, 2.0 ** (1 - items)))


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
    share of draws on one side of zero; a normal tail where all lie on one side. Source: Koehn 2004, https://aclanthology.org/W04-3250.
    """
    columns = _as_columns(first, second, np.ones(np.shape(first)) if denominators is None else denominators)
    return _paired(columns, lambda sums: (sums[:, 1] - sums[:, 0]) / sums[:, 2], confidence, resamples, seed)


def paired_bootstrap_statistic(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Return second - first of a statistic of column sums, each [items, k], both drawn with the same items."""
    halves = np.asarray(first, np.float64), np.asarray(second, np.float64)
    width = halves[0].shape[1]
    return _paired(
        np.concatenate(halves, axis=1),
        lambda sums: statistic(sums[:, width:]) - statistic(sums[:, :width]),
        confidence,
        resamples,
        seed,
    )


def sign_flip_p_value(differences: ArrayLike, *, resamples: int = _RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p-value of a sum when each difference could as well have had the other sign.

    Flips are drawn at random; a normal tail is taken where none of them is as extreme.
    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    values = np.asarray(differences, np.float64)
    generator = np.random.default_rng(seed)
    step = max(1, _INDICES_AT_ONCE // len(values))
    # Flipped sums often tie with the observed one (right or wrong items): rounding must not break the ties.
    threshold = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    extreme = 0
    for start in range(0, resamples, step):
        flips = generator.integers(0, 2, size=(min(step, resamples - start), len(values)), dtype=np.int8)
        extreme += int((np.abs(values.sum() - 2 * (flips @ values)) >= threshold).sum())
    p_value = (extreme + 1) / (resamples + 1)
    if extreme == 0:
        p_value = _beyond_draws(p_value, float(values.sum()), float(np.sqrt((values**2).sum())), len(values))
    return p_value


def linear_trend(
    positions: ArrayLike,
    values: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> TrendResult:
    """Return the least-squares slope over ``positions`` [stages] of ``values`` [stages, items] of the same items.

    The slope is the linear contrast of an item's values, summed over the items and divided by the sum of
    ``denominators`` [items] (or their number): exactly the slope of the stages' means or ratios. Its interval is a
    bootstrap over items, its p-value flips the signs of the items' contrasts. Both speak about other items, not about
    another training run. Source of contrasts: Rosenthal and Rosnow 1985, Contrast Analysis.
    """
    stages = np.asarray(positions, np.float64)
    centred = stages - stages.mean()
    if not centred.any():
        raise ValueError(f"a trend needs at least two different positions, got {stages.tolist()}")
    contrasts = centred @ np.asarray(values, np.float64) / (centred**2).sum()
    columns = _as_columns(contrasts, np.ones(len(contrasts)) if denominators is None else denominators)
    total, size = columns.sum(axis=0)
    low, high = bootstrap_interval(*columns.T, confidence=confidence, resamples=resamples, seed=seed)
    p_value = sign_flip_p_value(contrasts, resamples=resamples, seed=seed)
    return TrendResult(float(total / size), low, high, p_value)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return Student's interval of a mean of a few independent values, such as repeated runs.

    Source: Student 1908, https://doi.org/10.1093/biomet/6.1.1.
    """
    from scipy.special import stdtrit

    runs = np.asarray(values, np.float64)
    degrees = len(runs) - 1
    if degrees < 1:
        raise ValueError(f"an interval over runs needs at least two of them, got {len(runs)}")
    half = stdtrit(degrees, (1 + confidence) / 2) * runs.std(ddof=1) / np.sqrt(len(runs))
    return Interval(float(runs.mean() - half), float(runs.mean() + half))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: below a level, they keep the chance of any false finding below it.

    The k-th smallest of m is multiplied by m - k + 1 and then raised to what a smaller one became.
    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors))
    return [float(value) for value in adjusted]


def mcnemar_exact(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemarResult:
    """Compare two models on the same right-or-wrong items; only the items on which they differ count.

    Under equal ability each such item falls to either model with probability one half, so the smaller count is
    Binomial(n, 1/2). Source: McNemar 1947, https://doi.org/10.1007/BF02295996, in its exact form.
    """
    from scipy.special import bdtr

    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"McNemar's test needs the same items for both models, got {first.shape} and {second.shape}")
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    total = first_only + second_only
    tail = bdtr(min(first_only, second_only), total, 0.5)
    return McNemarResult(first_only, second_only, min(1.0, 2 * float(tail)))


def cohens_g(result: McNemarResult) -> float:
    """Return the second model's share of the items on which two models differ, less one half; nan if there are none.

    By convention 0.05 is small, 0.15 medium, 0.25 large. Source: Cohen 1988, Statistical Power Analysis, chapter 5.
    """
    total = result.first_only + result.second_only
    return result.second_only / total - 0.5 if total else float("nan")


def cohens_d(differences: ArrayLike) -> float:
    """Return the mean of paired differences over their standard deviation; nan without spread.

    By convention 0.2 is small, 0.5 medium, 0.8 large. Source: Cohen 1988, Statistical Power Analysis, section 2.3.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan")
    return float(values.mean() / values.std(ddof=1))


def verdict(interval: tuple[float, float], chance: float) -> Verdict:
    """Say where a score's interval lies: wholly above chance, wholly below it, or neither."""
    low, high = interval
    if low > chance:
        return "above chance"
    if high < chance:
        return "below chance"
    return "at chance"
