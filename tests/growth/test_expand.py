"""A grown model has new blocks on top of the old ones, which keep their bits and do not train."""

import pytest
import torch
from torch.nn.utils import prune

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, grow
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


def test_copies_with_outputs_of_zero_compute_nothing_and_hold_the_rest(model, token_ids):
    ids = token_ids(2, 12)
    grown = grow(model, 2, init="copy_zero").eval()
    assert torch.equal(grown(ids).logits, model(ids).logits)
    for old, new in zip(model.model.layers, grown.model.layers[2:], strict=True):
        for name, tensor in new.state_dict().items():
            zero = name.startswith(("self_attn.o_proj", "mlp.fc_out"))
            assert torch.equal(tensor, torch.zeros_like(tensor) if zero else old.state_dict()[name]), name


def test_interpolated_blocks_are_means_of_neighbours(build_model):
    model = build_model(seed=4, num_hidden_layers=3)
    old = [block.state_dict() for block in model.model.layers]
    new = [block.state_dict() for block in grow(model, 2, init="interpolate").model.layers[3:]]
    for name in old[0]:
        torch.testing.assert_close(new[0][name], (old[0][name] + old[1][name]) / 2)
        torch.testing.assert_close(new[1][name], (old[1][name] + old[2][name]) / 2)
    alone = grow(build_model(seed=4, num_hidden_layers=1), 1, init="interpolate").model.layers
    assert all(torch.equal(alone[1].state_dict()[name], tensor) for name, tensor in alone[0].state_dict().items())


@pytest.mark.parametrize("init", ["identity", "random", "copy", "copy_zero", "interpolate"])
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_identity_growth_changes_no_logit_in_half_precision(build_model, token_ids, tmp_path, dtype):
    """Rotary frequencies stay float32, far positions included, and a reload computes what was saved."""
    model = build_model(seed=4, max_position_embeddings=2048).to(dtype)
    ids, far = token_ids(1, 12), torch.arange(1024, 1036)[None]
    expected = model(ids, position_ids=far).logits
    grown = grow(model, 1).eval()
    assert torch.equal(grown(ids, position_ids=far).logits, expected)
    grown.save_pretrained(tmp_path)
    again = FrozenGlyphForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert torch.equal(again(ids, position_ids=far).logits, expected)


def test_every_tensor_keeps_its_dtype(model):
    model.to(torch.bfloat16).model.layers[0].mlp.float()
    grown = grow(model, 1)
    dtypes = {name: tensor.dtype for name, tensor in grown.state_dict().items()}
    assert all(dtypes[name] == tensor.dtype for name, tensor in model.state_dict().items())


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_blocks(model):
    for index, block in enumerate(model.model.layers):
        model.model.layers[index] = compiled(block)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        compiled_blocks,
        torch.nn.DataParallel,
        lambda model: compiled(torch.nn.DataParallel(model)),
        torch.optim.swa_utils.AveragedModel,
    ],
)
def test_what_compiles_or_distributes_a_model_is_taken_off(build_model, token_ids, wrap):
    ids = token_ids(2, 12)
    expected = build_model(seed=4)(ids).logits
    grown = grow(wrap(build_model(seed=4)), 1).eval()
    assert torch.equal(grown(ids).logits, expected)
    assert not any("_orig_mod" in name or name.startswith("module.") for name in grown.state_dict())


def adapted(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["q_proj"]))


def injected(model):
    from peft import LoraConfig, inject_adapter_in_model

    return inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), model)


def weight_norm(model):
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[1].mlp.fc_in)
    return model


def pruned(model):
    prune.random_unstructured(model.model.layers[0].mlp.fc_in, "weight", 0.5)
    return model


def integers(model):
    linear = model.model.layers[0].self_attn.q_proj
    linear.weight = torch.nn.Parameter(linear.weight.to(torch.int8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (adapted, "missing: model.embed_tokens.*unknown: base_model"),
        (injected, "q_proj.weight.*q_proj.base_layer.weight.* more"),
        (weight_norm, "layers.1.mlp.fc_in.parametrizations.weight.original0"),
        (pruned, "layers.0.mlp.fc_in.weight_mask"),
        (integers, "quantised.*layers.0.self_attn.q_proj.weight"),
        (lambda model: model.to("meta"), "offloaded.*model.embed_tokens.packed_bits"),
        (lambda model: model.model, r"missing: model\.embed_tokens.packed_bits"),
    ],
)
def test_no_tensor_is_lost_silently(build_model, change, named):
    with pytest.raises(FrozenGlyphError, match=named) as error:
        grow(change(build_model(seed=4)), 1)
    assert "\n" not in str(error.value)


def test_merged_experts_do_not_grow(merged_folder):
    with pytest.raises(FrozenGlyphError, match="not a FrozenGlyphMoEForCausalLM"):
        grow(FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder), 1)
