"""What counts as one when something is measured many times: documents, or blocks of one document chosen from the data.

Windows of one document depend on each other, so a document is one unit. Where there is only one, its windows are a
series: neighbours are joined to blocks so long that what is left between blocks hardly matters. Such blocks speak of
that document alone.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Units = Sequence[Hashable] | None  # the unit of every item; None: each item is one

BLOCKS_APART = 2  # times the length that estimates a variance best: our blocks must be as good as independent


def as_mean(numerators: Floats, denominators: Floats) -> Floats:
    """A value for each row, whose mean is sum(numerators) / sum(denominators) and whose spread is that of the ratio.

    Source: linearisation of a ratio, Cochran 1977, Sampling Techniques, section 6.4.
    """
    ratio = numerators.sum() / denominators.sum()
    return np.asarray(ratio + (numerators - ratio * denominators) / denominators.mean())


def sums_of_units(units: Units, numerators: Floats, denominators: Floats) -> tuple[Floats, Floats]:
    """Sums of both columns [items] by unit. Items of one and the same unit are a series, cut into blocks.

    Raises:
        ValueError: ``units`` are not as many as the items.
    """
    if units is None:
        return numerators, denominators
    if len(units) != len(numerators):
        raise ValueError(f"units must be of one length with the items, got {len(units)} for {len(numerators)}")
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(unit, len(numbers)) for unit in units])
    if len(numbers) == 1:
        places = _blocks(as_mean(numerators, denominators))
    first, second = (np.bincount(places, weights=column) for column in (numerators, denominators))
    return first.astype(np.float64), second.astype(np.float64)


def _blocks(values: Floats) -> NDArray[np.int64]:
    """The block of each value of a series; a remainder that fills no block belongs to the last."""
    length = automatic_block_length(values)
    length *= BLOCKS_APART if length > 1 else 1
    return np.minimum(np.arange(len(values)) // length, max(1, len(values) // length) - 1)


def automatic_block_length(values: Floats) -> int:
    """Length of the blocks of a block bootstrap of the mean of a series, from its autocorrelation.

    Source: Politis and White 2004, https://doi.org/10.1081/ETC-120028836, as corrected by Patton, Politis and White
    2009, https://doi.org/10.1080/07474930802459016 (circular bootstrap).
    """
    count = len(values)
    centred = values - values.mean()
    spread = float(centred @ centred) / count
    if count < 4 or spread <= 1e-18 * float(values @ values) / count:
        return 1
    run = max(5, math.ceil(math.sqrt(math.log10(count))))  # so many small correlations in a row: the rest is noise
    longest = math.ceil(math.sqrt(count)) + run
    lags = min(count - 1, 2 * longest)
    covariance = np.array([float(centred[lag:] @ centred[: count - lag]) / count for lag in range(lags + 1)])
    small = np.abs(covariance[1:]) < 2 * math.sqrt(math.log10(count) / count) * spread
    starts = [lag for lag in range(len(small)) if small[lag : lag + run].all()]
    bandwidth = min(2 * max(1, starts[0] if starts else longest), lags)
    lag = np.arange(1, bandwidth + 1)
    weights = np.minimum(1.0, 2 * (1 - lag / bandwidth)) * covariance[1 : bandwidth + 1]  # a flat-top window
    level, slope = covariance[0] + 2 * weights.sum(), 2 * (lag * weights).sum()
    bound = math.ceil(min(3 * math.sqrt(count), count / 3))
    if level <= 0:
        return bound
    best = (1.5 * count * (slope / level) ** 2) ** (1 / 3)
    return int(min(max(1, round(best)), bound))
