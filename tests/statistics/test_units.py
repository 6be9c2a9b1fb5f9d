"""What counts as one: documents, and blocks of a single document whose length follows its autocorrelation."""

import numpy as np
import pytest
from scipy.signal import lfilter

from frozen_glyph.statistics import automatic_block_length, bootstrap_interval, paired_bootstrap, sums_of_units


def series(correlation: float, count: int, seed: int = 0) -> np.ndarray:
    """Of a first-order autoregression."""
    noise = np.random.default_rng(seed).normal(size=count + 100)
    return lfilter([1.0], [1.0, -correlation], noise)[100:]


def test_sums_by_document_in_any_order() -> None:
    nats, characters = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
    first, second = sums_of_units(["b", "a", "b", "c"], nats, characters)
    assert (first.tolist(), second.tolist()) == ([4.0, 2.0, 4.0], [40.0, 20.0, 40.0])
    assert sums_of_units(None, nats, characters) == (nats, characters)
    with pytest.raises(ValueError, match="of one length"):
        sums_of_units([0, 1], nats, characters)


def test_one_document_is_cut_into_blocks_that_hold_all_of_it() -> None:
    values = 2 + series(0.8, 311)
    sums, sizes = sums_of_units(["novel"] * 311, values, np.ones(311))
    assert sums.sum() == pytest.approx(values.sum()) and sizes.sum() == 311
    assert len(set(sizes[:-1])) == 1 and sizes[0] <= sizes[-1] < 2 * sizes[0]


def test_block_length_follows_the_correlation() -> None:
    lengths = {
        correlation: np.mean([automatic_block_length(series(correlation, 400, seed)) for seed in range(20)])
        for correlation in (0.0, 0.5, 0.9)
    }
    assert lengths[0.0] < 3 < lengths[0.5] < lengths[0.9]
    assert automatic_block_length(np.ones(50)) == automatic_block_length(np.array([1.0, 2.0])) == 1
    # For this process the best length is known: (6 (r / (1 - r**2))**2 n)**(1/3) of a circular bootstrap.
    expected = (6 * (0.5 / (1 - 0.5**2)) ** 2 * 4000) ** (1 / 3)
    found = np.mean([automatic_block_length(series(0.5, 4000, seed)) for seed in range(20)])
    assert found == pytest.approx(expected, rel=0.25)


def test_correlated_windows_widen_the_interval_by_what_they_repeat() -> None:
    """The mean of an autoregression at 0.8 spreads three times as far as that of as many independent values."""
    widths = []
    for seed in range(10):
        values = series(0.8, 600, seed)
        blocks, alone = bootstrap_interval(values, units=[0] * 600), bootstrap_interval(values)
        widths.append((blocks.high - blocks.low) / (alone.high - alone.low))
    assert 2.2 < np.mean(widths) < 4.5


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_few_false_positives_within_one_document(correlation: float) -> None:
    """Of 60 true nulls at 0.05; windows taken for independent reject a third of them at 0.8."""
    p_values = [
        paired_bootstrap(np.zeros(150), series(correlation, 150, seed), units=[0] * 150, resamples=199).p_value
        for seed in range(60)
    ]
    assert sum(p_value is not None and p_value <= 0.05 for p_value in p_values) <= 8
    assert sum(p_value is not None for p_value in p_values) > 30


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 200, 600])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_at_most_six_percent_false_positives_within_one_document(correlation: float, count: int) -> None:
    p_values = [
        paired_bootstrap(np.zeros(count), series(correlation, count, seed), units=[0] * count, resamples=499).p_value
        for seed in range(2000)
    ]
    assert np.mean([p_value is not None and p_value <= 0.05 for p_value in p_values]) <= 0.06
