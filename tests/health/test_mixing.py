"""Probes against whole Jacobians."""

import pytest
import torch
from torch import nn

from frozen_glyph.health.gradients import effective_rank
from frozen_glyph.health.mixing import PROBES, probe, probe_block
from frozen_glyph.model.modeling_frozen_glyph import prepare_blocks


def exact_off_diagonal(jacobian):
    return float(1 - jacobian.diagonal().square().sum() / jacobian.square().sum())


def test_probes_of_a_linear_map():
    torch.manual_seed(0)
    dense = torch.randn(24, 24)
    for share in (0.0, 0.3, 1.0):
        matrix = torch.diag(torch.rand(24) + 3) + share * dense
        found = probe(lambda x, matrix=matrix: x @ matrix.T, torch.randn(24))
        assert found.off_diagonal == pytest.approx(exact_off_diagonal(matrix), abs=0.06)
    low = torch.randn(40, 3) @ torch.randn(3, 24)
    found = probe(lambda x: x @ low.T, torch.randn(24))
    assert found.off_diagonal is None  # not the same features
    assert 2 < found.rank <= 3 and found.rank == pytest.approx(effective_rank(low), rel=0.15)
    assert probe(nn.Linear(300, 300), torch.randn(300)).rank <= PROBES


def test_the_jacobian_is_taken_where_the_input_is():
    kink = probe(lambda x: x.clamp(min=0), torch.tensor([1.0, -1.0, 2.0, -2.0]))
    assert kink.rank == pytest.approx(2, abs=0.1) and kink.off_diagonal == pytest.approx(0, abs=1e-6)


def test_nothing_in_nothing_out():
    assert probe(lambda x: 0 * x, torch.ones(5)) == (0, 0)
    assert probe(lambda x: x.detach() + torch.ones(5, requires_grad=True), torch.ones(5)) == (0, 0)
    assert probe(lambda x: 1e-7 * x.flip(-1), torch.ones(6)).rank == 0  # rounding error has full rank


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_probes_of_a_block_see_what_it_adds_at_the_last_token(build_model, token_ids, attention):
    model = build_model(attn_implementation=attention).model
    states, shared = prepare_blocks(model, token_ids(1, 9), None, None, None, None, False)
    shared["position_embeddings"] = model.rotary_emb(states, shared["position_ids"])
    block = model.layers[0]

    def added(last):
        return block(torch.cat([states[:, :-1], last[None, None]], 1), **shared)[0, -1] - last

    jacobian = torch.autograd.functional.jacobian(added, states[0, -1])
    found = probe_block(block, states[0], shared)
    assert found.off_diagonal == pytest.approx(exact_off_diagonal(jacobian), abs=0.03)
    signs = torch.randint(0, 2, (PROBES, 48), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    assert found.rank == pytest.approx(effective_rank(signs @ jacobian), rel=1e-3)
