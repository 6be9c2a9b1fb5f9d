"""Quantised frozen blocks: near the same outputs, a quarter of the bytes, nothing else touched, clear refusals."""

import copy
import importlib.util
from types import SimpleNamespace

import pytest
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint.files import sha256_file
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth import stage
from frozen_glyph.growth.lora import add_adapters
from frozen_glyph.growth.quantize import plain_parts, quantize_frozen, quantize_with_torchao
from frozen_glyph.growth.recipe import LoraRecipe, StageRecipe

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


@pytest.fixture
def model(build_model):
    return build_model(seed=9, num_hidden_layers=3, num_frozen_layers=2)


def is_plain(tensor):
    return type(tensor.data) is torch.Tensor and tensor.is_floating_point()


@needs_torchao
def test_int8_computes_with_rounded_weights_in_frozen_blocks_only(model, token_ids):
    ids, reference = token_ids(2, 12), copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    quantize_frozen(model, "int8")
    quantized = {name: weight for name, weight in model.named_parameters() if not is_plain(weight)}
    linears = {name for name, module in reference.named_modules() if isinstance(module, torch.nn.Linear)}
    assert quantized.keys() == {
        f"{name}.weight" for name in linears if name.startswith(("model.layers.0", "model.layers.1"))
    }
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name not in quantized
    )
    with torch.no_grad():
        full = reference(ids).logits
        for name, weight in quantized.items():
            step = before[name].abs().amax(1, keepdim=True) / 127.5
            assert ((weight.dequantize() - before[name]).abs() <= 0.501 * step).all()
            reference.get_parameter(name).copy_(weight.dequantize())
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, atol=1e-4, rtol=1e-4)
        assert 0 < (model(ids).logits - full).abs().max() < 0.5


@needs_torchao
def test_int8_takes_a_quarter_of_the_bytes_and_the_same_bits_each_time(model):
    twin, weights = copy.deepcopy(model), []
    for each in (model, twin):
        quantize_frozen(each, "int8")
        weights.append([part for name, p in each.named_parameters() if not is_plain(p) for part in plain_parts(p)])
    assert all(type(part) is torch.Tensor and torch.equal(part, twin) for part, twin in zip(*weights, strict=True))
    size, full = sum(part.nbytes for part in weights[0]), 4 * 2 * 12 * 48 * 48
    assert full / 4 < size < full / 3
    plain = torch.ones(2)
    assert plain_parts(plain)[0] is plain


@needs_torchao
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_training_above_moves_what_trains_and_no_frozen_bit(model, token_ids, bf16):
    quantize_frozen(model, "int8")
    ids = token_ids(2, 12)
    before = {name: [part.clone() for part in plain_parts(p.data)] for name, p in model.named_parameters()}
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {
        name
        for name, parameter in model.named_parameters()
        if not all(map(torch.equal, plain_parts(parameter.data), before[name]))
    }
    assert moved == trainable.keys()


@needs_torchao
def test_stored_shards_of_frozen_blocks_are_not_written_from_the_quantised_model(build_model, substrate, tmp_path):
    substrate.save_pretrained(tmp_path)
    first = build_model(seed=9, num_hidden_layers=1, ladder=[1])
    hashes = write_stage(tmp_path, first, 1)
    grown = grow(first, 1)
    quantize_frozen(grown, "int8")
    write_stage(tmp_path, grown, 2)
    assert {name: sha256_file(tmp_path / name) for name in hashes} == hashes
    loaded = type(grown).from_pretrained(tmp_path)
    assert torch.equal(loaded.model.layers[0].mlp.fc_in.weight, first.model.layers[0].mlp.fc_in.weight)
    assert torch.equal(loaded.model.layers[1].mlp.fc_in.weight, grown.model.layers[1].mlp.fc_in.weight)


@needs_torchao
def test_adapters_and_quantised_blocks_exclude_each_other(model):
    adapted = copy.deepcopy(model)
    add_adapters(adapted, LoraRecipe())
    with pytest.raises(FrozenGlyphError, match=r"quantize_frozen='int8': frozen blocks have adapters that train"):
        quantize_frozen(adapted, "int8")
    quantize_frozen(model, "int8")
    with pytest.raises(FrozenGlyphError, match=r"layers\.0\.self_attn\.q_proj\.weight is quantised \(Int8Tensor\)"):
        add_adapters(model, LoraRecipe())


def test_a_run_quantises_on_the_device_that_trains(build_model, monkeypatch):
    """int4 and nf4 are made by the GPU, and a checkpoint is loaded into the memory of the machine."""
    found = []
    monkeypatch.setattr(stage, "PartialState", lambda: SimpleNamespace(device=torch.device("meta")))
    monkeypatch.setattr(stage, "quantize_frozen", lambda model, kind: found.append((model.device.type, kind)) or 1 / 0)
    monkeypatch.setattr(stage, "blocks_phase", lambda *_: None)
    monkeypatch.setattr(stage, "step_flops", lambda *_: 0)
    run = SimpleNamespace(recipe=SimpleNamespace(training=SimpleNamespace(quantize_frozen="int4")))
    with pytest.raises(ZeroDivisionError):
        stage.train_blocks(run, build_model(seed=9, num_hidden_layers=3, num_frozen_layers=2), 2, StageRecipe())
    assert found == [("meta", "int4")]


@needs_torchao
def test_without_frozen_blocks_nothing_is_quantised(build_model):
    model = build_model(num_frozen_layers=0)
    quantize_frozen(model, "int8")
    assert all(is_plain(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["int4", "nf4"])
def test_what_needs_a_gpu_is_refused_without_one(model, kind):
    with pytest.raises(FrozenGlyphError, match=rf"quantize_frozen='{kind}' needs a CUDA GPU, the model is on cpu; say"):
        quantize_frozen(model, kind)
    assert all(is_plain(parameter) for parameter in model.parameters())


def test_unknown_kinds_and_missing_libraries_are_named(model, monkeypatch):
    with pytest.raises(FrozenGlyphError, match=r"='int3' is not known; allowed: int8, int4, nf4, none"):
        quantize_frozen(model, "int3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FrozenGlyphError, match=r"'int8' needs torchao: pip install 'frozen-glyph\[quant\]', or say"):
        quantize_frozen(model, "int8")


@needs_torchao
def test_int4_says_what_it_cannot_group():
    with pytest.raises(FrozenGlyphError, match=r"'int4' groups 32 inputs or more, and a Linear has 48; say int8"):
        quantize_with_torchao(torch.nn.Linear(48, 8), "int4")


@needs_cuda
@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
def test_on_a_gpu_every_kind_comes_near_full_precision(kind):
    pytest.importorskip("bitsandbytes" if kind == "nf4" else "torchao")
    fields = {"hidden_size": 64, "substrate_bits": 64, "num_attention_heads": 2, "num_frozen_layers": 2}
    torch.manual_seed(0)
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig(vocab_size=340, num_hidden_layers=3, **fields)).cuda()
    model.substrate.packed_bits.random_()
    ids = torch.randint(340, (2, 12), device="cuda")
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        full = model(ids, labels=ids).loss
        quantize_frozen(model, kind)
        assert 0 < abs(model(ids, labels=ids).loss - full) < 0.1
