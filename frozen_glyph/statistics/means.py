"""Means and ratios over units: intervals, paired differences and trends that hold at any number of units.

A ratio, such as nats over characters, is the mean of one value for each unit (``as_mean``), so everything here is a
question about a mean of independent values. Two distributions of its t-statistic answer it, and the one that claims
less counts: Student's, and the one that drawing the units again gives. The latter follows the skewness of the values,
of which a small sample shows too little, because it mostly misses the long tail; so one unit that nobody saw is drawn
with the others, ``UNSEEN`` standard deviations away on the side that would undo the finding. With it at most 6% of
true nulls are rejected at 5%, for symmetric, exponential and log-normal values alike (tests/statistics simulates).

Sources: Student 1908, https://doi.org/10.1093/biomet/6.1.1; the studentised bootstrap: Efron and Tibshirani 1993, An
Introduction to the Bootstrap, section 12.5. The unseen unit is our own, chosen by simulation.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from frozen_glyph.statistics.units import Floats, Units, as_mean, sums_of_units

RESAMPLES = 10_000
INDICES_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap to about 50 MB
MIN_UNITS = 6  # with fewer, even units that all agree say nothing at 5%: 2 ** (1 - 5) = 0.0625
MIN_RUNS = 3  # Student's interval of two values is 12.7 times as wide as their standard error: it says nothing
UNSEEN = 5.0


class Interval(NamedTuple):
    """A two-sided confidence interval; both ends are NaN where there are too few units for one."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first on the same units: the estimate, its interval, a two-sided p-value, and how many units.

    ``p_value`` is None below ``MIN_UNITS`` units: too few to tell.
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    units: int


@dataclass(frozen=True)
class TrendResult:
    """Change of a mean or ratio for one more unit of position, with what ``PairedDifference`` says of its estimate."""

    slope: float
    low: float
    high: float
    p_value: float | None
    units: int


def _columns(*columns: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
        shapes = sorted({array.shape for array in arrays})
        raise ValueError(f"a bootstrap needs non-empty one-dimensional columns of one length, got shapes {shapes}")
    return arrays


def _drawn_t(values: Floats, resamples: int, seed: int) -> dict[int, Floats]:
    """t-statistics of the mean of resampled ``values`` and the unseen one, by the side (-1 or 1) on which it lies."""
    units = len(values)
    centred = np.append((values - values.mean()) / values.std(ddof=1), 0.0)
    generator = np.random.default_rng(seed)
    step = max(1, INDICES_AT_ONCE // units)
    found: dict[int, list[Floats]] = {-1: [], 1: []}
    for start in range(0, resamples, step):
        chosen = generator.integers(0, units + 1, size=(min(step, resamples - start), units))
        drawn, unseen = centred[chosen], (chosen == units).sum(axis=1)
        sums, squares = drawn.sum(axis=1), (drawn**2).sum(axis=1)
        for side, statistics in found.items():
            mean = (sums + side * UNSEEN * unseen) / units
            variance = np.maximum(0.0, (squares + UNSEEN**2 * unseen) / units - mean**2) / (units - 1)
            with np.errstate(divide="ignore"):  # one value drawn over and over: infinitely far from the mean
                statistics.append((mean - side * UNSEEN / (units + 1)) / np.sqrt(variance))
    return {side: np.concatenate(statistics) for side, statistics in found.items()}


def _finite_quantile(statistics: Floats, share: float) -> float:
    """A quantile of t-statistics, or the outermost that is finite."""
    finite = statistics[np.isfinite(statistics)]
    return float(np.clip(np.quantile(statistics, share, method="nearest"), finite.min(), finite.max()))


class _Mean:
    """What is said of sum(numerators) / sum(denominators), both [items], as the mean of a value for each unit."""

    def __init__(self, numerators: Floats, denominators: Floats, units: Units, resamples: int, seed: int) -> None:
        numerators, denominators = sums_of_units(units, numerators, denominators)
        self.values = as_mean(numerators, denominators)
        self.mean, self.units = float(self.values.mean()), len(self.values)
        self._numerators, self._resamples, self._seed = numerators, resamples, seed
        self._error = float(self.values.std(ddof=1)) / math.sqrt(self.units) if self.units > 1 else 0.0
        self._drawn: dict[int, Floats] = {}  # by the side on which the unseen unit lies
        # Where units differ by rounding alone there is nothing to draw.
        if self.units >= MIN_UNITS and np.ptp(self.values) > 1e-9 * np.abs(self.values).max():
            self._drawn = _drawn_t(self.values, resamples, seed)

    def interval(self, confidence: float) -> Interval:
        """The wider of Student's and the bootstrap's on each side."""
        if self.units < MIN_RUNS:
            return NO_INTERVAL
        low, high = t_interval(self.values, confidence)
        if self._drawn:
            tail = (1 - confidence) / 2
            low = min(low, self.mean - self._error * _finite_quantile(self._drawn[-1], 1 - tail))
            high = max(high, self.mean - self._error * _finite_quantile(self._drawn[1], tail))
        return Interval(low, high)

    def p_value(self) -> float | None:
        """Two-sided, that the mean is zero: the larger of the sign-flip test's, exact where both models could as well
        have changed places, and the bootstrap's."""
        if self.units < MIN_UNITS:
            return None
        flipped = sign_flip_p_value(self._numerators, resamples=self._resamples, seed=self._seed)
        if not self._drawn:
            return flipped
        side = 1 if self.mean > 0 else -1
        beyond = int((side * self._drawn[-side] >= abs(self.mean) / self._error).sum())
        return max(flipped, min(1.0, 2 * (beyond + 1) / (self._resamples + 1)))


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    units: Units = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of sum(numerators) / sum(denominators), or else of the mean; NaN below ``MIN_RUNS`` units.

    Args:
        numerators, denominators: [items]; for a loss nats and characters of every window.
        units: the unit of every item, such as the document of a window; None: each item is one. Items of one and the
            same unit are a series, cut into blocks (see ``units``).

    >>> bootstrap_interval([3.1, 2.9, 4.0, 3.2], [10, 10, 10, 10], units=["a", "a", "b", "c"]).low < 0.33
    True
    """
    columns = _columns(numerators, np.ones(np.shape(numerators)) if denominators is None else denominators)
    return _Mean(columns[0], columns[1], units, resamples, seed).interval(confidence)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    units: Units = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Return second - first on the same items: of two means, or of two ratios over shared ``denominators``.

    Both models are measured on the same units, so what the units have in common cancels. Arguments as in
    ``bootstrap_interval``.
    """
    sizes = np.ones(np.shape(first)) if denominators is None else denominators
    before, after, sizes = _columns(first, second, sizes)
    found = _Mean(after - before, sizes, units, resamples, seed)
    return PairedDifference(found.mean, *found.interval(confidence), found.p_value(), found.units)


def sign_flip_p_value(differences: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p-value of a sum when each difference could as well have had the other sign.

    Every flip counts where they are no more than ``resamples``, else so many are drawn; the p-value of n differences is
    never below 2 ** (1 - n). Source: Fisher 1935, The Design of Experiments, section 21.
    """
    values = np.asarray(differences, np.float64)
    observed = values.sum()
    if len(values) < 2:
        return 1.0  # itself and its mirror image
    every = len(values) <= math.log2(resamples)
    sums = _every_flip(values) if every else _drawn_flips(values, resamples, seed)
    rounding = 1e-14 * np.abs(values).sum()  # sums that differ by no more are equal
    beyond = min((sums >= observed - rounding).sum(), (sums <= observed + rounding).sum())
    return min(1.0, float(2 * (beyond + (not every)) / (len(sums) + (not every))))


def _every_flip(values: Floats) -> Floats:
    """The sum of ``values`` under each choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_flips(values: Floats, resamples: int, seed: int) -> Floats:
    """The sum of ``values`` under signs that are drawn, eight from a byte."""
    generator, units = np.random.default_rng(seed), len(values)
    step = max(1, INDICES_AT_ONCE // units)
    drawn = []
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), -(-units // 8))
        signs = np.unpackbits(generator.integers(0, 256, size, dtype=np.uint8), axis=1, count=units)
        drawn.append(2 * (signs @ values) - values.sum())
    return np.concatenate(drawn)


def linear_trend(
    positions: ArrayLike,
    values: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    units: Units = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TrendResult:
    """Return the least-squares slope over ``positions`` [stages] of ``values`` [stages, items] of the same items.

    The slope is the linear contrast of an item's values, summed over the items and divided by the sum of
    ``denominators`` [items] (or their number): exactly the slope of the stages' means or ratios. Interval and p-value
    are those of a mean over units, as in ``paired_bootstrap``: they speak about other units, not about another
    training run. Source of contrasts: Rosenthal and Rosnow 1985, Contrast Analysis.
    """
    stages = np.asarray(positions, np.float64)
    centred = stages - stages.mean()
    if not centred.any():
        raise ValueError(f"a trend needs at least two different positions, got {stages.tolist()}")
    contrasts = centred @ np.asarray(values, np.float64) / (centred**2).sum()
    columns = _columns(contrasts, np.ones(len(contrasts)) if denominators is None else denominators)
    found = _Mean(columns[0], columns[1], units, resamples, seed)
    return TrendResult(found.mean, *found.interval(confidence), found.p_value(), found.units)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return Student's interval of a mean of a few independent values, such as repeated runs.

    Source: Student 1908, https://doi.org/10.1093/biomet/6.1.1.

    Raises:
        ValueError: there are fewer than ``MIN_RUNS`` values.
    """
    from scipy.special import stdtrit

    runs = np.asarray(values, np.float64)
    if len(runs) < MIN_RUNS:
        raise ValueError(f"an interval over runs needs at least {MIN_RUNS} of them, got {len(runs)}")
    half = stdtrit(len(runs) - 1, (1 + confidence) / 2) * runs.std(ddof=1) / np.sqrt(len(runs))
    return Interval(float(runs.mean() - half), float(runs.mean() + half))


def cohens_d(differences: ArrayLike) -> float:
    """Return the mean of paired differences over their standard deviation; nan without spread.

    By convention 0.2 is small, 0.5 medium, 0.8 large. Source: Cohen 1988, Statistical Power Analysis, section 2.3.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan")
    return float(values.mean() / values.std(ddof=1))
