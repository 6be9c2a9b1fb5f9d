"""Intervals and tests against brute force, textbook values and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.statistics import (
    McNemarResult,
    binomial_interval,
    bootstrap_interval,
    bootstrap_statistic,
    cohens_d,
    cohens_g,
    holm,
    linear_trend,
    mcnemar_exact,
    paired_bootstrap,
    paired_bootstrap_statistic,
    sign_flip_p_value,
    t_interval,
    verdict,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 10), (61, 256), (2980, 11969)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_binomial_interval_equals_beta_quantiles(correct: int, total: int, confidence: float) -> None:
    tail = (1 - confidence) / 2
    low = 0.0 if correct == 0 else stats.beta.ppf(tail, correct, total - correct + 1)
    high = 1.0 if correct == total else stats.beta.ppf(1 - tail, correct + 1, total - correct)
    assert binomial_interval(correct, total, confidence) == pytest.approx((low, high), abs=1e-9)


def test_binomial_interval_textbook_value_and_refusal() -> None:
    # No success in n trials: the upper bound is 1 - (alpha / 2) ** (1 / n).
    assert binomial_interval(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)), abs=1e-12)
    for correct, total in [(1, 0), (-1, 3), (4, 3)]:
        with pytest.raises(ValueError, match="need 0 <= correct <= total"):
            binomial_interval(correct, total)


def test_bootstrap_agrees_with_all_resamples_of_a_tiny_set() -> None:
    nats, characters = np.array([1.0, 4.0, 2.0, 9.0]), np.array([2.0, 3.0, 5.0, 6.0])
    every = [nats[list(rows)].sum() / characters[list(rows)].sum() for rows in product(range(4), repeat=4)]
    expected = np.quantile(every, [0.1, 0.9])
    assert bootstrap_interval(nats, characters, confidence=0.8, resamples=40_000) == pytest.approx(expected, abs=0.02)


def test_bootstrap_of_a_mean_approaches_the_normal_interval_and_is_seeded() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=3000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    interval = bootstrap_interval(values, resamples=2000)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert interval == bootstrap_interval(values, resamples=2000)
    assert interval != bootstrap_interval(values, resamples=2000, seed=1)


def test_paired_bootstrap_cancels_what_the_blocks_share() -> None:
    generator = np.random.default_rng(2)
    characters = generator.integers(50, 100, size=200).astype(float)
    first = characters * generator.normal(2.0, 0.5, size=200)
    second = first - 0.01 * characters + generator.normal(0.0, 0.1, size=200)
    result = paired_bootstrap(first, second, characters)
    assert result.difference == pytest.approx((second.sum() - first.sum()) / characters.sum())
    assert result.low < result.difference < result.high < 0
    assert result.p_value < 0.001
    separate = bootstrap_interval(first, characters)
    assert result.high - result.low < 0.05 * (separate.high - separate.low)


def test_paired_bootstrap_of_equal_models_finds_nothing() -> None:
    values = np.arange(30.0)
    result = paired_bootstrap(values, values)
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_ratio_as_a_statistic_of_sums_is_the_same_bootstrap() -> None:
    generator = np.random.default_rng(3)
    first, second, sizes = [*generator.normal(2.0, 0.5, (2, 40)).tolist(), generator.integers(5, 9, 40).tolist()]

    def ratio(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    columns = [np.stack([values, sizes], axis=1) for values in (first, second)]
    assert bootstrap_statistic(columns[0], ratio) == bootstrap_interval(first, sizes)
    result, expected = paired_bootstrap_statistic(*columns, ratio), paired_bootstrap(first, second, sizes)
    assert result.difference == pytest.approx(expected.difference)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert result.p_value == expected.p_value


@pytest.mark.parametrize("differences", [[1.0, 2.0, -0.5, 3.0, 1.0, 0.25, 2.0], [1.0, 1.0, -1.0, 1.0, 0.0, 1.0]])
def test_sign_flips_agree_with_all_of_them(differences: list[float]) -> None:
    values = np.array(differences)
    sums = [abs((values * signs).sum()) for signs in product([1, -1], repeat=len(values))]
    every = np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p_value(values, resamples=40_000) == pytest.approx(every, abs=0.01)
    assert sign_flip_p_value(values) == sign_flip_p_value(values)
    assert sign_flip_p_value(np.zeros(5)) == 1.0


def test_p_values_go_on_where_no_draw_is_as_extreme() -> None:
    # Sixty of sixty positive: two of the 2 ** 60 flips are as extreme, and no draw will meet them.
    assert 2**-59 <= sign_flip_p_value(np.ones(60)) < 1e-12
    assert sign_flip_p_value(np.ones(60), resamples=99) == sign_flip_p_value(np.ones(60))
    generator = np.random.default_rng(8)
    first, noise = generator.normal(size=(2, 500))
    result = paired_bootstrap(first, first + 0.3 * noise.std() + noise)
    normal = stats.norm.sf(result.difference / (noise.std() / np.sqrt(500)))
    assert np.log(result.p_value) == pytest.approx(np.log(2 * normal), rel=0.05)
    assert result.p_value < 2 / 10_001
    assert paired_bootstrap([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).p_value == 2 / 10_001  # three items: no less than before


@pytest.mark.parametrize("denominators", [None, [3.0, 1.0, 4.0, 2.0, 5.0, 9.0, 2.0, 6.0]])
def test_trend_is_the_slope_of_the_stages(denominators: list[float] | None) -> None:
    depths = np.array([1, 2, 4, 9])
    values = np.random.default_rng(4).normal(size=(4, 8)) + 0.5 * depths[:, None]
    sizes = np.ones(8) if denominators is None else np.array(denominators)
    result = linear_trend(depths, values, denominators)

    def slope(rows: list[int]) -> float:
        return float(np.polyfit(depths, values[:, rows].sum(axis=1) / sizes[rows].sum(), 1)[0])

    assert result.slope == pytest.approx(slope(list(range(8))))
    generator = np.random.default_rng(5)
    expected = np.quantile([slope(generator.integers(0, 8, 8).tolist()) for _ in range(3000)], [0.025, 0.975])
    assert (result.low, result.high) == pytest.approx(expected, abs=0.05)
    assert result.p_value == pytest.approx(2 / 2**8, abs=0.003)  # all eight rise: two of the 256 flips are as extreme


def test_trend_of_noise_is_told_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(6)
    p_values = [linear_trend([1, 2, 3], generator.normal(size=(3, 30)), resamples=300).p_value for _ in range(300)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_trend_refuses_a_single_depth() -> None:
    for depths in ([3], [2, 2]):
        with pytest.raises(ValueError, match="two different positions"):
            linear_trend(depths, np.ones((len(depths), 4)))


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (30, 2.0423)])
def test_t_interval_has_the_tables_quantiles(degrees: int, quantile: float) -> None:
    values = np.random.default_rng(degrees).normal(size=degrees + 1)
    half = quantile * values.std(ddof=1) / np.sqrt(len(values))
    assert t_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-4 * half + 1e-5)


def test_t_interval_equals_scipy_and_refuses_one_run() -> None:
    values = [0.21, 0.25, 0.23, 0.24, 0.19]
    for confidence in (0.5, 0.95, 0.999):
        expected = stats.t.interval(confidence, 4, loc=np.mean(values), scale=stats.sem(values))
        assert t_interval(values, confidence) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least two"):
        t_interval([0.3])


def test_holm_textbook_example_and_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    p_values = np.random.default_rng(7).uniform(0, 0.2, size=12)
    adjusted = np.array(holm(p_values.tolist()))
    for level in (0.01, 0.05, 0.1, 0.5):
        rejected = set()  # step down by hand: the smallest against level / m, the next against level / (m - 1), ...
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > level / (len(p_values) - rank):
                break
            rejected.add(index)
        assert rejected == set(np.flatnonzero(adjusted <= level))


def test_effect_sizes_equal_hand_counts_and_are_nan_where_undefined() -> None:
    assert cohens_g(McNemarResult(first_only=5, second_only=15, p_value=0.04)) == 0.25
    assert cohens_g(McNemarResult(first_only=15, second_only=5, p_value=0.04)) == -0.25
    assert np.isnan(cohens_g(McNemarResult(0, 0, 1.0)))
    assert cohens_d([1.0, 2.0, 3.0]) == 2.0
    assert np.isnan(cohens_d([1.0, 1.0])) and np.isnan(cohens_d([1.0]))


@pytest.mark.parametrize("columns", [([], None), ([1.0, 2.0], [1.0]), ([[1.0]], None)])
def test_bootstrap_refuses_columns_that_do_not_fit(columns: tuple[list[float], list[float] | None]) -> None:
    with pytest.raises(ValueError, match="one-dimensional columns of one length"):
        bootstrap_interval(*columns)


@pytest.mark.parametrize(("first_only", "second_only"), [(0, 0), (1, 0), (5, 1), (9, 9), (30, 55), (900, 1003)])
def test_mcnemar_equals_the_exact_binomial_test(first_only: int, second_only: int) -> None:
    both = 7
    first = [1] * both + [1] * first_only + [0] * second_only + [0]
    second = [1] * both + [0] * first_only + [1] * second_only + [0]
    total = first_only + second_only
    result = mcnemar_exact(first, second)
    assert (result.first_only, result.second_only) == (first_only, second_only)
    assert result.p_value == pytest.approx(stats.binomtest(first_only, total).pvalue if total else 1.0)


def test_mcnemar_refuses_different_items() -> None:
    with pytest.raises(ValueError, match="same items"):
        mcnemar_exact([1, 0], [1])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.26, 0.3), "above chance"),
        ((0.2, 0.24), "below chance"),
        ((0.2, 0.3), "at chance"),
        ((0.25, 0.3), "at chance"),
    ],
)
def test_interval_that_holds_chance_is_at_chance(interval: tuple[float, float], expected: str) -> None:
    assert verdict(interval, 0.25) == expected
