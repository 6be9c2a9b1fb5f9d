"""Adapters start as nothing, train alone, and end merged into plain Linears or in a folder that peft loads."""

import copy

import pytest
import torch
from peft import PeftModel

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.lora import add_adapters, add_adapters_below, drop_adapters, merge_adapters, write_adapters
from frozen_glyph.growth.recipe import LoraRecipe

RECIPE = LoraRecipe(rank=3, alpha=5.0)
KEPT = LoraRecipe(rank=3, alpha=5.0, merge=False)


@pytest.fixture
def model(build_model):
    return build_model(seed=6, num_hidden_layers=3, num_frozen_layers=2)


def trained(model, ids, steps=3):
    """A few real steps on everything that trains."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("recipe", [RECIPE, KEPT], ids=["merged", "kept"])
def test_adapters_of_all_blocks_train_and_of_the_rest_norm_and_head_if_merged(model, recipe, token_ids):
    ids, before = token_ids(2, 12), model(token_ids(2, 12)).logits
    add_adapters(model, recipe)
    assert torch.equal(model(ids).logits, before)
    found = trainable(model)
    low_rank = {name for name in found if ".lora_" in name}
    assert len(low_rank) == 3 * 6 * 2
    rest = {"model.norm.weight", "model.norm.bias", "lm_head.weight", "lm_head.bias"} if recipe.merge else set()
    assert found - low_rank == rest


def test_adapters_below_join_what_trains(model, token_ids):
    """The newest of three blocks, norm and head train on, and the two below get adapters; of none frozen nothing is."""
    ids, before, newest = token_ids(2, 12), model(token_ids(2, 12)).logits, trainable(model)
    add_adapters_below(model, RECIPE, model.config.num_frozen_layers)
    assert torch.equal(model(ids).logits, before)
    low_rank = trainable(model) - newest
    assert len(low_rank) == 2 * 6 * 2 and all(
        name.startswith(("model.layers.0.", "model.layers.1.")) for name in low_rank
    )
    trained(model, ids)
    merge_adapters(model)
    assert trainable(model) == newest
    model.config.num_frozen_layers = 0
    add_adapters_below(model, RECIPE, model.config.num_frozen_layers)
    assert not [name for name in model.state_dict() if "lora" in name]


def test_only_the_targets_get_adapters(model):
    add_adapters(model, LoraRecipe(targets=["q_proj", "fc_out"]))
    assert {name.split(".")[-4] for name in trainable(model) if ".lora_" in name} == {"q_proj", "fc_out"}


def test_training_moves_every_adapter_and_no_frozen_tensor(model, token_ids):
    add_adapters(model, RECIPE)
    before = copy.deepcopy(model.state_dict())
    moving = trainable(model)
    trained(model, token_ids(2, 12))
    unchanged = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert unchanged == before.keys() - moving


def test_the_seed_decides_the_adapters_and_the_global_generator_is_left_alone(model):
    def first_bits(seed, disturb):
        again = copy.deepcopy(model)
        torch.manual_seed(disturb)
        add_adapters(again, RECIPE, seed)
        return torch.cat([p.flatten() for name, p in again.named_parameters() if "lora_A" in name])

    assert torch.equal(first_bits(1, disturb=3), first_bits(1, disturb=4))
    assert not torch.equal(first_bits(1, disturb=3), first_bits(2, disturb=3))


def test_merged_model_is_plain_and_computes_the_same(model, token_ids):
    ids, plain = token_ids(2, 12), copy.deepcopy(model)
    add_adapters(model, RECIPE)
    trained(model, ids)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        adapted = model(ids).logits
        merge_adapters(model)
        merge_adapters(twin)
        torch.testing.assert_close(model(ids).logits, adapted, atol=1e-4, rtol=1e-4)
        assert (adapted - plain(ids).logits).abs().max() > 0.1
    states = [{name: (t.shape, t.dtype) for name, t in m.state_dict().items()} for m in (model, plain)]
    assert states[0] == states[1]
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in model.state_dict().items())
    kinds = [{name: type(module) for name, module in m.named_modules()} for m in (model, plain)]
    assert kinds[0] == kinds[1]
    assert trainable(model) == trainable(plain)


def test_merging_adds_the_scaled_product(model, token_ids):
    name = "model.layers.1.mlp.fc_in"
    before = model.get_submodule(name).weight.clone()
    add_adapters(model, RECIPE)
    trained(model, token_ids(2, 12))
    layer = model.get_submodule(name)
    product = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    merge_adapters(model)
    expected = (before.double() + RECIPE.alpha / RECIPE.rank * product).float()
    torch.testing.assert_close(model.get_submodule(name).weight, expected, atol=1e-6, rtol=1e-6)


def test_written_adapters_load_with_peft_and_the_stage_is_as_before(model, token_ids, tmp_path):
    ids, plain = token_ids(2, 12), copy.deepcopy(model)
    add_adapters(model, KEPT)
    trained(model, ids)
    adapted = model(ids).logits.detach()
    hashes = write_adapters(model, KEPT, tmp_path / "lora-2")
    assert sorted(hashes) == sorted(path.name for path in (tmp_path / "lora-2").iterdir())
    assert write_adapters(model, KEPT, tmp_path / "again") == hashes
    drop_adapters(model)
    assert torch.equal(model(ids).logits, plain(ids).logits)
    assert trainable(model) == trainable(plain)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in plain.state_dict().items())
    loaded = PeftModel.from_pretrained(plain, tmp_path / "lora-2").eval()
    assert torch.equal(loaded(ids).logits, adapted)


def test_adapters_come_again_after_merging(model, token_ids):
    for _ in range(2):
        add_adapters(model, RECIPE)
        trained(model, token_ids(2, 12), steps=1)
        merge_adapters(model)
    assert not any("lora" in name for name in model.state_dict())


def test_what_cannot_be_is_refused(model, tmp_path):
    with pytest.raises(FrozenGlyphError, match=r"no adapters can be written to .*: the model has no adapters"):
        write_adapters(model, KEPT, tmp_path / "lora-1")
    add_adapters(model, RECIPE)
    with pytest.raises(FrozenGlyphError, match=r"lora\.merge=True trained norm and head too"):
        write_adapters(model, RECIPE, tmp_path / "lora-1")
    assert not (tmp_path / "lora-1").exists()
    with pytest.raises(FrozenGlyphError, match=r"the model has adapters already; merge or drop them first"):
        add_adapters(model, RECIPE)
