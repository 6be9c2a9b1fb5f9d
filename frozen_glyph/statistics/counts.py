"""Right and wrong items: exact intervals and tests, and what is said of several of them together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from frozen_glyph.statistics.means import NO_INTERVAL, RESAMPLES, Interval, bootstrap_interval
from frozen_glyph.statistics.units import Units, as_mean, sums_of_units

Verdict = Literal["above chance", "at chance", "below chance", "too few items to tell"]


@dataclass(frozen=True)
class McNemarResult:
    """How many items only one of two models got right, and the exact two-sided p-value of that split."""

    first_only: int
    second_only: int
    p_value: float


def binomial_interval(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a proportion: the values that an equal-tailed binomial test does not reject.

    Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404: the bounds are beta quantiles.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"correct={correct} of total={total}: need 0 <= correct <= total and total >= 1")
    return _beta_quantiles(correct, total, confidence)


def _beta_quantiles(correct: float, total: float, confidence: float) -> Interval:
    """Of counts that need not be whole."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    lower = betaincinv(correct, total - correct + 1, tail) if correct > 0 else 0.0
    upper = betaincinv(correct + 1, total - correct, 1 - tail) if correct < total else 1.0
    return Interval(float(lower), float(upper))


def share_interval(
    values: ArrayLike,
    units: Units = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of the share of right ones among right-or-wrong items [items].

    Where items share ``units``, such as the article that several questions are about, it is the wider on each side of
    the bootstrap over units and of the exact interval of so many independent items as would spread like these; where
    nothing spreads, as many as there are units. NaN below three units.
    Source: Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24.

    >>> share_interval([1, 1, 0, 0]).low < 0.1
    True
    """
    from scipy.special import stdtrit

    items = np.asarray(values, np.float64)
    if units is None:
        return binomial_interval(round(items.sum()), len(items), confidence)
    low, high = bootstrap_interval(items, units=units, confidence=confidence, resamples=resamples, seed=seed)
    if math.isnan(low):
        return NO_INTERVAL
    spread = as_mean(*sums_of_units(units, items, np.ones(len(items))))
    share, count = float(items.mean()), len(spread)
    variance, effective = float(spread.var(ddof=1)) / count, float(count)
    if variance > 0:
        quantiles = [float(stdtrit(number - 1, (1 + confidence) / 2)) for number in (len(items), count)]
        effective = min(len(items), share * (1 - share) / variance * (quantiles[0] / quantiles[1]) ** 2)
    exact = _beta_quantiles(share * effective, effective, confidence)
    return Interval(*np.clip([min(low, exact.low), max(high, exact.high)], 0, 1).tolist())


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


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number: below a level, they keep the chance of any false finding below it.

    The k-th smallest of m is multiplied by m - k + 1 and then raised to what a smaller one became. None (too few
    units for a test) stays None and does not count.
    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    places = [place for place, value in enumerate(p_values) if value is not None]
    known = np.array([p_values[place] for place in places], np.float64)
    order = np.argsort(known, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted: list[float | None] = [None] * len(p_values)
    for place, value in zip(order, np.minimum(1.0, np.maximum.accumulate(known[order] * factors)), strict=True):
        adjusted[places[place]] = float(value)
    return adjusted


def verdict(interval: tuple[float, float], chance: float) -> Verdict:
    """Say where a score's interval lies: wholly above chance, wholly below it, or neither; NaN: there is none."""
    low, high = interval
    if math.isnan(low):
        return "too few items to tell"
    if low > chance:
        return "above chance"
    if high < chance:
        return "below chance"
    return "at chance"
