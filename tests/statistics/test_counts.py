"""Exact counts, corrections and verdicts against textbook values and scipy."""

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.statistics import (
    McNemarResult,
    binomial_interval,
    cohens_g,
    holm,
    mcnemar_exact,
    share_interval,
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


def test_share_of_items_that_depend_on_each_other() -> None:
    """Questions of one article: as few as the articles if they are answered alike, never more than they are."""
    values = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    assert share_interval(values) == binomial_interval(3, 8)
    alike = share_interval(np.repeat(values, 25), units=np.repeat(range(8), 25).tolist())
    assert alike.low <= binomial_interval(3, 8).low + 0.02 and alike.high >= binomial_interval(3, 8).high - 0.02
    mixed = share_interval(np.tile(values, 25), units=np.repeat(range(25), 8).tolist())
    assert mixed.low <= binomial_interval(75, 200).low and mixed.high >= binomial_interval(75, 200).high
    assert mixed.high - mixed.low < 0.5 * (alike.high - alike.low)
    wrong = share_interval(np.zeros(60), units=np.repeat(range(6), 10).tolist())
    assert wrong == (0.0, pytest.approx(binomial_interval(0, 6).high))
    assert np.isnan(share_interval([1.0, 1.0, 0.0], units=["a", "a", "b"])).all()


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


def test_holm_leaves_out_what_has_no_p_value() -> None:
    """Too few units for a test: nothing is claimed, so nothing is corrected for."""
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([None, None]) == [None, None]


def test_effect_size_of_a_split() -> None:
    assert cohens_g(McNemarResult(first_only=5, second_only=15, p_value=0.04)) == 0.25
    assert cohens_g(McNemarResult(first_only=15, second_only=5, p_value=0.04)) == -0.25
    assert np.isnan(cohens_g(McNemarResult(0, 0, 1.0)))
