"""Means, ratios, differences and trends over units: against plain loops, scipy and what a statistic must not do."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.statistics import (
    MIN_UNITS,
    bootstrap_interval,
    cohens_d,
    linear_trend,
    paired_bootstrap,
    sign_flip_p_value,
    t_interval,
)
from frozen_glyph.statistics.means import UNSEEN


def t_of(values: np.ndarray) -> float:
    spread = values.std(ddof=1)
    return (
        float(values.mean() / (spread / math.sqrt(len(values)))) if spread else math.copysign(math.inf, values.mean())
    )


def drawn_t(values: np.ndarray, side: int, draws: int) -> np.ndarray:
    """What ``_drawn_t`` draws, one sample after the other."""
    with_unseen = np.append(values, values.mean() + side * UNSEEN * values.std(ddof=1))
    generator = np.random.default_rng(9)
    samples = [generator.choice(with_unseen, len(values)) - with_unseen.mean() for _ in range(draws)]
    return np.array([t_of(sample) for sample in samples])


def test_interval_and_p_value_equal_a_plain_loop() -> None:
    """Skewed, so that the bootstrap and not Student decides on one side."""
    values = np.random.default_rng(3).exponential(size=12) + 0.4
    error, mean = values.std(ddof=1) / math.sqrt(12), values.mean()
    below, above = drawn_t(values, -1, 8_000), drawn_t(values, 1, 8_000)
    student = t_interval(values)
    expected = (
        min(student.low, mean - error * np.quantile(below, 0.975)),
        max(student.high, mean - error * np.quantile(above, 0.025)),
    )
    found = paired_bootstrap(np.zeros(12), values)
    assert (found.low, found.high) == pytest.approx(expected, rel=0.04)
    assert (found.low, found.high) != pytest.approx(tuple(student), rel=0.04)
    assert found.p_value == pytest.approx(2 * np.mean(below >= mean / error), abs=0.008)


def test_a_ratio_is_the_mean_of_its_linearised_values() -> None:
    """Of many units, the spread of nats over characters is that of whole resamples of both."""
    generator = np.random.default_rng(1)
    characters = generator.integers(5, 60, 400).astype(float)
    nats = characters * generator.normal(2.0, 0.5, 400)
    drawn = [generator.integers(0, 400, 400) for _ in range(2000)]
    expected = np.quantile([nats[rows].sum() / characters[rows].sum() for rows in drawn], [0.025, 0.975])
    assert bootstrap_interval(nats, characters) == pytest.approx(expected, abs=0.01)
    assert bootstrap_interval(nats, characters) == bootstrap_interval(nats, characters)
    assert bootstrap_interval(nats, characters) != bootstrap_interval(nats, characters, seed=1)


def test_paired_bootstrap_cancels_what_the_units_share() -> None:
    generator = np.random.default_rng(2)
    characters = generator.integers(50, 100, size=200).astype(float)
    first = characters * generator.normal(2.0, 0.5, size=200)
    second = first - 0.01 * characters + generator.normal(0.0, 0.1, size=200)
    result = paired_bootstrap(first, second, characters)
    assert result.difference == pytest.approx((second.sum() - first.sum()) / characters.sum())
    assert result.low < result.difference < result.high < 0
    assert result.p_value is not None and result.p_value < 0.001 and result.units == 200
    separate = bootstrap_interval(first, characters)
    assert result.high - result.low < 0.05 * (separate.high - separate.low)


def test_equal_models_and_equal_gaps() -> None:
    values = np.arange(30.0)
    same = paired_bootstrap(values, values)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    apart = paired_bootstrap(values[:8], values[:8] + 1.1)  # equal but for rounding
    assert (apart.low, apart.high, apart.p_value) == (pytest.approx(1.1), pytest.approx(1.1), 2 / 2**8)


def test_few_items_that_differ_tell_nothing() -> None:
    """Three of a hundred items changed, all for the better: draws without any of them are common."""
    found = paired_bootstrap(np.zeros(100), [1.0] * 3 + [0.0] * 97)
    assert found.p_value is not None and found.p_value > 0.2
    assert -math.inf < found.low < 0 < found.high < math.inf


def test_units_are_what_is_drawn() -> None:
    """Twenty windows of each of ten documents say what ten documents say, however many windows a document has."""
    generator = np.random.default_rng(4)
    by_document = generator.normal(0.3, 1.0, 10)
    windows, documents = np.repeat(by_document, 20), np.repeat(np.arange(10), 20).tolist()
    found = paired_bootstrap(np.zeros(200), windows, units=documents)
    expected = paired_bootstrap(np.zeros(10), by_document)
    assert (found.low, found.high, found.units) == pytest.approx((expected.low, expected.high, 10))
    alone = paired_bootstrap(np.zeros(200), windows)
    assert found.high - found.low > 4 * (alone.high - alone.low)
    shuffled = generator.permutation(200)
    labels = [f"document {documents[place]}" for place in shuffled]
    assert bootstrap_interval(windows[shuffled], units=labels).low == pytest.approx(
        bootstrap_interval(windows, units=documents).low, abs=0.3
    )


@pytest.mark.parametrize("units", range(1, 8))
def test_few_units_tell_nothing(units: int) -> None:
    """However clear the difference: no p-value below the number that can reach 0.05, and no interval of two."""
    values = 5.0 + np.arange(units) / 100
    found = paired_bootstrap(np.zeros(units), values)
    assert (found.p_value is None) == (units < MIN_UNITS)
    assert math.isnan(found.low) == math.isnan(found.high) == (units < 3)
    trend = linear_trend([1, 2], np.stack([np.zeros(units), values]))
    assert (trend.p_value, trend.units) == (found.p_value, units)
    if found.p_value is not None:
        assert 2 ** (1 - units) <= found.p_value < 0.05


def test_p_values_have_a_floor() -> None:
    """No normal tail: what no draw has seen is below the resolution of the draws, and nothing more is said."""
    assert sign_flip_p_value(np.ones(60)) == pytest.approx(2 / 10_001)
    generator = np.random.default_rng(8)
    found = paired_bootstrap(np.zeros(500), 3 + generator.normal(size=500))
    assert found.p_value == 2 / 10_001


@pytest.mark.parametrize("differences", [[1.0, 2.0, -0.5, 3.0, 1.0, 0.25, 2.0], [1.0, 1.0, -1.0, 1.0, 0.0, 1.0], [2.0]])
def test_sign_flips_agree_with_all_of_them(differences: list[float]) -> None:
    values = np.array(differences)
    sums = [abs((values * signs).sum()) for signs in product([1, -1], repeat=len(values))]
    assert sign_flip_p_value(values) == np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p_value(values, resamples=40) == pytest.approx(sign_flip_p_value(values), abs=0.3)
    assert sign_flip_p_value(np.zeros(5)) == 1.0


@pytest.mark.parametrize("denominators", [None, [3.0, 1.0, 4.0, 2.0, 5.0, 9.0, 2.0, 6.0]])
def test_trend_is_the_slope_of_the_stages(denominators: list[float] | None) -> None:
    depths = np.array([1, 2, 4, 9])
    values = np.random.default_rng(4).normal(size=(4, 8)) + 0.5 * depths[:, None]
    sizes = np.ones(8) if denominators is None else np.array(denominators)
    result = linear_trend(depths, values, denominators)
    assert result.slope == pytest.approx(np.polyfit(depths, values.sum(axis=1) / sizes.sum(), 1)[0])
    assert result.low < result.slope < result.high and result.units == 8
    if denominators is None:
        slopes = [np.polyfit(depths, item, 1)[0] for item in values.T]
        alone = paired_bootstrap(np.zeros(8), slopes)
        assert (result.low, result.high, result.p_value) == pytest.approx((alone.low, alone.high, alone.p_value))


def test_trend_refuses_a_single_depth() -> None:
    for depths in ([3], [2, 2]):
        with pytest.raises(ValueError, match="two different positions"):
            linear_trend(depths, np.ones((len(depths), 4)))


@pytest.mark.parametrize(("degrees", "quantile"), [(2, 4.3027), (3, 3.1824), (9, 2.2622), (30, 2.0423)])
def test_t_interval_has_the_tables_quantiles(degrees: int, quantile: float) -> None:
    values = np.random.default_rng(degrees).normal(size=degrees + 1)
    half = quantile * values.std(ddof=1) / np.sqrt(len(values))
    assert t_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-4 * half + 1e-5)


def test_t_interval_equals_scipy_and_refuses_two_runs() -> None:
    values = [0.21, 0.25, 0.23, 0.24, 0.19]
    for confidence in (0.5, 0.95, 0.999):
        expected = stats.t.interval(confidence, 4, loc=np.mean(values), scale=stats.sem(values))
        assert t_interval(values, confidence) == pytest.approx(expected)
    for few in ([0.3], [0.3, 0.31]):
        with pytest.raises(ValueError, match="at least 3 of them"):
            t_interval(few)


@pytest.mark.parametrize("columns", [([], None), ([1.0, 2.0], [1.0]), ([[1.0]], None)])
def test_bootstrap_refuses_columns_that_do_not_fit(columns: tuple[list[float], list[float] | None]) -> None:
    with pytest.raises(ValueError, match="one-dimensional columns of one length"):
        bootstrap_interval(*columns)


def test_bootstrap_refuses_units_of_other_items() -> None:
    with pytest.raises(ValueError, match="of one length"):
        bootstrap_interval([1.0, 2.0, 3.0], units=[0, 0])


def test_effect_size_of_differences() -> None:
    assert cohens_d([1.0, 2.0, 3.0]) == 2.0
    assert np.isnan(cohens_d([1.0, 1.0])) and np.isnan(cohens_d([1.0]))
