"""Statistics that are no mean of items, such as corpus BLEU: they depend on items through the sums of a few counts."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frozen_glyph.statistics.means import (
    INDICES_AT_ONCE,
    MIN_UNITS,
    NO_INTERVAL,
    RESAMPLES,
    Interval,
    PairedDifference,
)

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # column sums [draws, k] -> [draws]


def _resampled_sums(columns: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw the rows of ``columns`` [rows, k] with replacement, ``resamples`` times: column sums [resamples, k]."""
    rows = len(columns)
    generator = np.random.default_rng(seed)
    step = max(1, INDICES_AT_ONCE // rows)
    sums = []
    for start in range(0, resamples, step):
        chosen = generator.integers(0, rows, size=(min(step, resamples - start), rows))
        sums.append(np.stack([column[chosen].sum(axis=1) for column in columns.T], axis=1))
    return np.concatenate(sums)


def _percentiles(values: NDArray[np.float64], items: int, confidence: float) -> Interval:
    """Wider by what Student's quantile and a variance over ``items`` - 1 are wider; NaN below ``MIN_UNITS`` items."""
    from scipy.special import ndtr, stdtrit

    if items < MIN_UNITS:
        return NO_INTERVAL
    tail = float(ndtr(-math.sqrt(items / (items - 1)) * stdtrit(items - 1, (1 + confidence) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def bootstrap_statistic(
    columns: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of a statistic of column sums, such as corpus BLEU, of [items, k]; NaN of too few items.

    Source: the expanded percentile bootstrap, Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789.
    """
    rows = np.asarray(columns, np.float64)
    return _percentiles(statistic(_resampled_sums(rows, resamples, seed)), len(rows), confidence)


def paired_statistic(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Return second - first of a statistic of column sums, each [items, k].

    The interval draws both models with the same items. The p-value is that of approximate randomisation, valid at any
    number of items: if the models are alike, each item's two rows could as well have been swapped.
    Source: Riezler and Maxwell 2005, https://aclanthology.org/W05-0908.
    """
    columns = np.concatenate([np.asarray(first, np.float64), np.asarray(second, np.float64)], axis=1)
    items, width = len(columns), columns.shape[1] // 2

    def difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return statistic(sums[:, width:]) - statistic(sums[:, :width])

    total = columns.sum(axis=0)
    estimate = float(difference(total[None])[0])
    low, high = _percentiles(difference(_resampled_sums(columns, resamples, seed)), items, confidence)
    swapped = np.random.default_rng(seed).integers(0, 2, size=(resamples, items)).astype(np.float64)
    moved = swapped @ (columns[:, width:] - columns[:, :width])  # from the second model's sums to the first's
    differences = difference(np.concatenate([total[:width] + moved, total[width:] - moved], axis=1))
    extreme = int((np.abs(differences) >= abs(estimate) * (1 - 1e-9)).sum())
    p_value = (extreme + 1) / (resamples + 1) if items >= MIN_UNITS else None
    return PairedDifference(estimate, low, high, p_value, items)
