"""Statistics of summed counts: their interval is the bootstrap's, their p-value counts swaps of the two models."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.statistics import MIN_UNITS, bootstrap_statistic, paired_statistic


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def counts(items: int, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(3)
    sizes = generator.integers(5, 9, items)
    return np.stack([generator.normal(2.0, 0.5, items) + shift, sizes], axis=1)


def test_interval_agrees_with_all_resamples_of_a_tiny_set() -> None:
    """At the level that stands for 80% of six items: Student's quantile, and a variance over five."""
    columns = np.array([[1.0, 2.0], [4.0, 3.0], [2.0, 5.0], [9.0, 6.0], [3.0, 2.0], [5.0, 7.0]])
    every = ratio(columns[np.array([*product(range(6), repeat=6)])].sum(axis=1))
    tail = stats.norm.cdf(-np.sqrt(6 / 5) * stats.t.ppf(0.9, 5))
    expected = np.quantile(every, [tail, 1 - tail])
    assert bootstrap_statistic(columns, ratio, confidence=0.8, resamples=40_000) == pytest.approx(expected, abs=0.02)


def test_p_value_agrees_with_all_swaps() -> None:
    first, second = counts(8), counts(8, 0.1) + np.random.default_rng(5).normal(0, 0.2, (8, 2))
    observed = abs(ratio(second.sum(0)[None]) - ratio(first.sum(0)[None]))[0]
    extreme = 0
    for swaps in product([False, True], repeat=8):
        mask = np.array(swaps)[:, None]
        one, other = np.where(mask, second, first).sum(0), np.where(mask, first, second).sum(0)
        extreme += abs(ratio(other[None]) - ratio(one[None]))[0] >= observed - 1e-12
    found = paired_statistic(first, second, ratio)
    assert found.p_value == pytest.approx(extreme / 2**8, abs=0.02)
    assert found.difference == pytest.approx(ratio(second.sum(0)[None])[0] - ratio(first.sum(0)[None])[0])
    assert found.low < found.difference < found.high


def test_equal_models_and_too_few_items() -> None:
    assert paired_statistic(counts(9), counts(9), ratio).p_value == 1.0
    for items in (1, MIN_UNITS - 1):
        found = paired_statistic(counts(items), counts(items, 5.0), ratio)
        assert found.p_value is None and np.isnan([found.low, *bootstrap_statistic(counts(items), ratio)]).all()
    clear = paired_statistic(counts(MIN_UNITS), counts(MIN_UNITS, 5.0), ratio).p_value
    assert clear is not None and clear < 0.05
