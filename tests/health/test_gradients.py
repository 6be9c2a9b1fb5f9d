"""Effective rank, ghost norms and constancy against what their definitions give when everything is written out."""

import math

import pytest
import torch
from torch import nn

from frozen_glyph.health.gradients import (
    SKETCH,
    ExampleGradients,
    constancy,
    effective_rank,
    example_gradients,
    update_ratio,
)
from frozen_glyph.model.linear_frozen_glyph import initialise_linear, make_linear


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_effective_rank_of_known_matrices():
    assert effective_rank(torch.eye(9)) == pytest.approx(9)
    assert effective_rank(drawn(9, 1) @ drawn(1, 40)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(3, 4)) == 0
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3**0.75)
    matrix = drawn(20, 33)
    shares = torch.linalg.svdvals(matrix.double())
    shares = shares / shares.sum()
    expected = math.exp(-(shares * shares.log()).sum())
    assert effective_rank(matrix) == pytest.approx(expected) == effective_rank(1e-6 * matrix.T)


def test_the_sketch_of_a_wide_matrix_keeps_low_ranks():
    wide = drawn(2 * SKETCH, 3 * SKETCH)
    assert SKETCH / 2 < effective_rank(wide) <= SKETCH < effective_rank_written_out(wide)
    for rank in (1, 5, 20):
        low = drawn(2 * SKETCH, rank) @ drawn(rank, 3 * SKETCH, seed=1)
        assert effective_rank(low) == pytest.approx(effective_rank_written_out(low), rel=0.03)


def effective_rank_written_out(matrix):
    shares = torch.linalg.svdvals(matrix.double())
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())


@pytest.mark.parametrize("kind", ["matmul", "quantized", "additive", "adder"])
def test_norms_and_products_without_the_gradients_themselves(kind):
    torch.manual_seed(0)
    layer = make_linear(kind, 12, 7, bias=True)
    initialise_linear(layer, 0.5)
    layer.eval()
    inputs, grads = drawn(5, 9, 12), drawn(5, 9, 7, seed=1)
    each = torch.stack([
        torch.autograd.grad(layer(inputs[n]), layer.weight, grads[n])[0] for n in range(5)
    ]).double()  # fmt: skip
    found = example_gradients(layer, inputs, grads)
    torch.testing.assert_close(found.total.double(), each.sum(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.norms, each.flatten(1).norm(dim=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.products, (each * each.sum(0)).sum((1, 2)), atol=1e-3, rtol=1e-4)


def summary(each):
    """What ``example_gradients`` would give for the gradients [N, K] themselves."""
    total = each.sum(0)
    return ExampleGradients(total, each.norm(dim=1).double(), (each @ total).double())


def test_constancy_is_one_for_equal_gradients_and_zero_for_unrelated_ones():
    assert constancy(summary(drawn(1, 50).expand(8, 50))) == pytest.approx((1, 1, 1), abs=1e-6)
    assert constancy(summary(torch.eye(8))) == pytest.approx((0, 0, 0), abs=1e-6)
    assert constancy(summary(torch.zeros(8, 3))) == (0, 0, 0)


def test_constancy_does_not_fall_with_the_number_of_examples_and_its_interval_holds_the_truth():
    """Gradients are a common part and noise of about the same norm."""
    common = drawn(400) / 20
    truth = float(common.norm() / (common.norm().square() + 1).sqrt())
    values: dict = {8: [], 64: []}
    naive, inside = [], 0
    for count, seen in values.items():
        for seed in range(60):
            gradients = summary(common + drawn(count, 400, seed=seed + 1) / 20)
            found = constancy(gradients)
            seen.append(found.value)
            inside += found.low <= truth <= found.high
            if count == 8:
                naive.append(float(gradients.total.norm() / gradients.norms.sum()))
    means = {count: sum(seen) / 60 for count, seen in values.items()}
    assert means[8] == pytest.approx(truth, abs=0.01) and means[64] == pytest.approx(truth, abs=0.01)
    assert sum(naive) / 60 > truth + 0.03
    assert inside >= 0.85 * 120


def test_the_jackknife_leaves_one_example_out_at_a_time():
    each = drawn(6, 30) + 0.5
    found = constancy(summary(each))
    without = []
    for n in range(6):
        rest = each[torch.arange(6) != n].double()
        gram = rest @ rest.T
        between = (gram.sum() - gram.trace()) / 20
        without.append(float(between / rest.norm(dim=1).mean().square()))
    mean = sum(without) / 6
    error = math.sqrt(5 / 6 * sum((value - mean) ** 2 for value in without))
    assert found.high == pytest.approx(math.sqrt(min(1, found.value**2 + 1.96 * error)), rel=1e-5)
    assert found.low == pytest.approx(math.sqrt(max(0, found.value**2 - 1.96 * error)), rel=1e-5)


def test_the_update_is_one_step_of_adamw():
    layer, x = nn.Linear(6, 4), drawn(5, 6)
    layer(x).square().sum().backward()
    before = layer.weight.detach().clone()
    torch.optim.AdamW([layer.weight], lr=1e-2, weight_decay=0.0).step()
    expected = float((layer.weight.detach() - before).norm() / before.norm())
    assert update_ratio(layer.weight.grad, before, 1e-2) == pytest.approx(expected, rel=1e-4)
    assert update_ratio(torch.zeros(4, 6), before, 1e-2) == 0
