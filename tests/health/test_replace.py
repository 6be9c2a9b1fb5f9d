"""``replace_linear`` makes any kind out of a model, takes over what the kind can hold, and the checkpoint remembers."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphMoEForCausalLM, grow, merge_experts, replace_linear
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.head_frozen_glyph import OutputHead
from frozen_glyph.model.linear_frozen_glyph import LINEAR_CLASSES, AdderLinear, AdditiveLinear, LowRankLinear


@pytest.mark.parametrize("kind", [kind for kind in LINEAR_CLASSES if kind != "compiled"])
def test_every_kind_saves_and_loads_like_any_model(kind, build_model, token_ids, tmp_path):
    model, ids = replace_linear(build_model(4), kind), token_ids(2, 7)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.linear_kinds == [["layers.*", kind]]
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["fused", "quantized", "matmul"])
def test_kinds_of_the_same_tensors_take_all_of_them_over(kind, build_model, token_ids):
    model, plain = replace_linear(build_model(4), kind), build_model(4)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    tolerance = {"quantized": 0.1}.get(kind, 1e-5)
    torch.testing.assert_close(model(token_ids(1, 5)).logits, plain(token_ids(1, 5)).logits, atol=tolerance, rtol=0.1)


def test_low_rank_is_the_nearest_of_its_rank_and_goes_back():
    from .conftest import make_model

    model = make_model()
    weight = model.model.layers[0].mlp.fc_in.weight.detach().clone()
    model.model.layers[0].mlp.fc_in.bias.data.normal_()
    bias = model.model.layers[0].mlp.fc_in.bias.detach().clone()
    replace_linear(model, "low_rank", "*.fc_in")
    layer = model.model.layers[0].mlp.fc_in
    values = torch.linalg.svdvals(weight)
    error = (layer.up.weight @ layer.down.weight - weight).norm()
    assert error.item() == pytest.approx(values[8:].square().sum().sqrt().item(), rel=1e-4)
    assert torch.equal(layer.up.bias, bias)
    replace_linear(model, "matmul", "*.fc_in")
    back = model.model.layers[0].mlp.fc_in
    assert type(back) is nn.Linear and torch.equal(back.bias, bias)
    torch.testing.assert_close(back.weight, layer.up.weight @ layer.down.weight)


def test_where_chooses_and_freezing_stays(build_model):
    model = build_model(num_frozen_layers=1)
    assert replace_linear(model, "adder", "layers.0.mlp.*") is model
    kinds = [type(module) for module in model.model.layers[0].mlp.modules()]
    assert kinds.count(AdderLinear) == 2 and type(model.model.layers[0].self_attn.q_proj) is nn.Linear
    assert type(model.model.layers[1].mlp.fc_in) is nn.Linear and type(model.lm_head) is OutputHead
    assert not any(each.requires_grad for each in model.model.layers[0].parameters())
    assert all(each.requires_grad for each in model.model.layers[1].parameters())


def test_grown_blocks_follow_the_pattern(build_model):
    model = replace_linear(build_model(ladder=[2]), "low_rank", "*.fc_in")
    grown = grow(model, init="identity")
    assert type(grown.model.layers[2].mlp.fc_in) is LowRankLinear
    with pytest.raises(ValueError, match=r"additive layer always .*'random' or 'copy'"):
        grow(replace_linear(build_model(ladder=[2])), init="identity")
    copied = grow(replace_linear(build_model(ladder=[2])), init="copy")
    assert type(copied.model.layers[2].mlp.fc_out) is AdditiveLinear
    assert torch.equal(copied.model.layers[2].mlp.fc_out.weight, copied.model.layers[1].mlp.fc_out.weight)


@pytest.mark.parametrize("kind", ["adder", "low_rank", "fused"])
def test_identity_blocks_of_other_kinds_change_nothing(kind, build_model, token_ids):
    model = replace_linear(build_model(ladder=[2]), kind)
    grown = grow(model, init="identity").eval()
    assert torch.equal(grown(token_ids(1, 6)).logits, model(token_ids(1, 6)).logits)


def test_what_cannot_be_replaced_is_refused(build_model, merged_folder):
    with pytest.raises(FrozenGlyphError, match=r"kind='aditive'.*Did you mean 'additive'"):
        replace_linear(build_model(), "aditive")
    with pytest.raises(FrozenGlyphError, match=r"where='blocks\.\*' matches none of the 12 .*layers\.0\.self_attn"):
        replace_linear(build_model(), where="blocks.*")
    with pytest.raises(FrozenGlyphError, match="give a single model"):
        replace_linear(FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder))


def test_experts_of_other_kinds_are_not_merged(write_expert, tmp_path):
    experts = [write_expert(name, [1], 1, linear_kinds=[["layers.*", "fused"]]) for name in ("a", "b")]
    with pytest.raises(FrozenGlyphError, match=r"linear_kinds=.*only plain Linears can be merged"):
        merge_experts(experts, tmp_path / "merged")
