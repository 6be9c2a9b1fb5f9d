"""What no formula shows: how often a difference is found that is not there, and one that is.

Every distribution has mean zero, so a difference that is told apart is a false one. Clustered: each unit is five items
that share most of their value. Power is stated beside Student's test, which rejects too often on skewed values.
"""

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.statistics import paired_bootstrap, share_interval

NULLS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "exponential": lambda generator, shape: generator.exponential(size=shape) - 1,
    "log-normal": lambda generator, shape: generator.lognormal(size=shape) - np.exp(0.5),
    "Student, 2 degrees": lambda generator, shape: generator.standard_t(2, size=shape),
}
ITEMS = 5  # of a unit, when clustered
REPEATS = 4000


def rejected(name: str, units: int, clustered: bool, repeats: int, resamples: int, effect: float = 0.0) -> float:
    """Share of repeats in which a test at 0.05 tells ``effect`` from nothing."""
    generator = np.random.default_rng([units, clustered, *map(ord, name)])
    found = 0
    for seed in range(repeats):
        values, labels = NULLS[name](generator, units) + effect, list(range(units))
        if clustered:
            values = np.repeat(values, ITEMS) + 0.5 * generator.normal(size=units * ITEMS)
            labels = np.repeat(labels, ITEMS).tolist()
        p_value = paired_bootstrap(np.zeros(len(values)), values, units=labels, resamples=resamples, seed=seed).p_value
        found += p_value is not None and p_value <= 0.05
    return found / repeats


def most_of(repeats: int, share: float = 0.06, confidence: float = 0.99) -> float:
    """The share of repeats that a test which rejects ``share`` of true nulls exceeds with 1 - ``confidence``."""
    return float(stats.binom.ppf(confidence, repeats, share)) / repeats


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("name", NULLS)
def test_few_false_positives(name: str, clustered: bool) -> None:
    """The slow test below at a size that a default run can afford."""
    for units in (2, 5, 6, 12):
        assert rejected(name, units, clustered, repeats=100, resamples=99) <= most_of(100, confidence=0.999)


@pytest.mark.slow
@pytest.mark.parametrize("units", [*range(2, 13), 15, 20, 30, 50, 100])
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("name", NULLS)
def test_at_most_six_percent_false_positives(name: str, clustered: bool, units: int) -> None:
    """No cell rejects more than 6% (99% sure, binomial); a cell that rejects 8% is found in 99 runs of 100."""
    assert 1 - stats.binom.cdf(REPEATS * most_of(REPEATS), REPEATS, 0.08) > 0.99
    assert rejected(name, units, clustered, REPEATS, resamples=199) <= most_of(REPEATS)


def missed(share: float, units: int, repeats: int) -> float:
    """Share of repeats in which the interval of right answers leaves out the true ``share``: questions of one article
    are right together, beta-binomial with a correlation of 0.2."""
    generator = np.random.default_rng([units, round(1000 * share)])
    found = 0
    for seed in range(repeats):
        sizes = generator.integers(1, 12, units)
        chances = generator.beta(4 * share, 4 * (1 - share), units)
        right = np.concatenate([generator.random(size) < chance for size, chance in zip(sizes, chances, strict=True)])
        low, high = share_interval(right, np.repeat(range(units), sizes).tolist(), resamples=199, seed=seed)
        found += not low <= share <= high
    return found / repeats


@pytest.mark.slow
@pytest.mark.parametrize("units", [6, 12, 48])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_intervals_of_clustered_shares_miss_at_most_six_percent(share: float, units: int) -> None:
    assert missed(share, units, repeats=2000) <= most_of(2000)


@pytest.mark.slow
@pytest.mark.parametrize(("units", "power"), [(5, 0.0), (10, 0.37), (20, 0.9), (100, 1.0)])
def test_power_is_as_stated(units: int, power: float) -> None:
    """Of an effect of one standard deviation; Student's test has 0.40, 0.80, 0.99 and 1.00."""
    assert rejected("normal", units, False, repeats=1000, resamples=999, effect=1.0) >= power
