"""A grown model has new blocks on top of the old ones, which keep their bits and do not train."""

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.errors import FrozenGlyphError


@pytest.fixture
def model(build_model):
    return build_model(seed=4, num_hidden_layers=2)


def test_identity_growth_changes_no_logit(model, token_ids):
    ids = token_ids(2, 12)
    grown = grow(model, 2).eval()
    assert torch.equal(grown(ids).logits, model(ids).logits)


def test_random_growth_changes_the_logits(model, token_ids):
    ids = token_ids(2, 12)
    grown = grow(model, 1, init="random").eval()
    assert not torch.allclose(grown(ids).logits, model(ids).logits, atol=1e-3)


def test_identity_blocks_still_learn(model, token_ids):
    ids = token_ids(2, 12)
    grown = grow(model, 1)
    grown(ids, labels=ids).loss.backward()
    new = grown.model.layers[2]
    assert all(output.grad.abs().max() > 0 for output in (new.self_attn.o_proj.weight, new.mlp.fc_out.weight))


@pytest.mark.parametrize("init", ["identity", "random"])
def test_newest_blocks_norm_and_head_train_and_nothing_else(model, init):
    grown = grow(model, 2, init)
    trainable = {name for name, parameter in grown.named_parameters() if parameter.requires_grad}
    expected = {
        name
        for name, _ in grown.named_parameters()
        if name.startswith(("model.layers.2.", "model.layers.3.", "model.norm.", "lm_head."))
    }
    assert trainable == expected
    again = grow(grown, 1, init)
    assert not any(p.requires_grad for block in again.model.layers[:4] for p in block.parameters())
    assert all(p.requires_grad for p in again.model.layers[4].parameters())


@pytest.mark.parametrize("init", ["identity", "random"])
def test_everything_old_keeps_its_bits_and_the_argument_stays_as_it_was(model, init):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    config = model.config.to_dict()
    grown = grow(model, 1, init)
    assert all(torch.equal(grown.state_dict()[name], tensor) for name, tensor in before.items())
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1)  # shows whether the two share memory
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert model.config.to_dict() == config


def test_config_records_depth_freezing_and_ladder(model):
    once = grow(model, 1)
    twice = grow(once, 3)
    found = [(m.config.num_hidden_layers, m.config.num_frozen_layers, m.config.ladder) for m in (once, twice)]
    assert found == [(3, 2, [2, 3]), (6, 3, [2, 3, 6])]


def test_growing_an_earlier_stage_begins_a_new_ladder_there(experts):
    below = FrozenGlyphForCausalLM.from_pretrained(experts[1], growth_stage=1)
    assert grow(below, 1).config.ladder == [1, 2]


def test_dtype_is_kept_and_the_substrate_stays_whole(model):
    bits = model.substrate.packed_bits.clone()
    grown = grow(model.to(torch.bfloat16), 1)
    assert grown.dtype == torch.bfloat16
    assert torch.equal(grown.substrate.packed_bits, bits)


def test_wrong_arguments_are_refused(model):
    with pytest.raises(FrozenGlyphError, match="layers=-1 must be 0 or more"):
        grow(model, -1)
    with pytest.raises(FrozenGlyphError, match="init='zero' is not known; allowed: identity, random, copy"):
        grow(model, 1, init="zero")
