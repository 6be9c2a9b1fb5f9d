"""Intervals and tests against brute force, textbook values and scipy."""

from itertools import product

import numpy as np
import pytest

from frozen_glyph.statistics import (
    binomial_interval,
    bootstrap_interval,
    mcnemar_exact,
    paired_bootstrap,
    verdict,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 10), (61, 256), (2980, 11969)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_binomial_interval_equals_beta_quantiles(correct: int, total: int, confidence: float) -> None:
    beta = pytest.importorskip("scipy.stats").beta
    tail = (1 - confidence) / 2
    low = 0.0 if correct == 0 else beta.ppf(tail, correct, total - correct + 1)
    high = 1.0 if correct == total else beta.ppf(1 - tail, correct + 1, total - correct)
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


@pytest.mark.parametrize("columns", [([], None), ([1.0, 2.0], [1.0]), ([[1.0]], None)])
def test_bootstrap_refuses_columns_that_do_not_fit(columns: tuple[list[float], list[float] | None]) -> None:
    with pytest.raises(ValueError, match="one-dimensional columns of one length"):
        bootstrap_interval(*columns)


@pytest.mark.parametrize(("first_only", "second_only"), [(0, 0), (1, 0), (5, 1), (9, 9), (30, 55), (900, 1003)])
def test_mcnemar_equals_the_exact_binomial_test(first_only: int, second_only: int) -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    both = 7
    first = [1] * both + [1] * first_only + [0] * second_only + [0]
    second = [1] * both + [0] * first_only + [1] * second_only + [0]
    total = first_only + second_only
    result = mcnemar_exact(first, second)
    assert (result.first_only, result.second_only) == (first_only, second_only)
    assert result.p_value == pytest.approx(binomtest(first_only, total).pvalue if total else 1.0)


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
def test_verdict(interval: tuple[float, float], expected: str) -> None:
    assert verdict(interval, 0.25) == expected
