"""Other layers in the place of Linears: each against its definition, in checkpoints, and out of the way by default.

Running what ``torch.compile`` makes takes a minute of a C++ compiler, so it is in the slow tests.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.model.configuration_frozen_glyph import LINEAR_KINDS
from frozen_glyph.model.head_frozen_glyph import OutputHead
from frozen_glyph.model.linear_frozen_glyph import (
    ADDER_RATE,
    LINEAR_CLASSES,
    AdderLinear,
    AdditiveLinear,
    FusedLinear,
    LowRankLinear,
    QuantizedLinear,
    additive_naive,
    initialise_linear,
    kind_of,
    make_linear,
)

EVERY_KIND = [
    ["layers.*", "additive"],
    ["*.q_proj", "fused"],
    ["*.k_proj", "fused"],
    ["*.v_proj", "fused"],
    ["layers.0.self_attn.o_proj", "matmul"],
    ["layers.0.mlp.fc_in", "low_rank"],
    ["layers.0.mlp.fc_out", "quantized"],
    ["layers.1.mlp.fc_in", "adder"],
]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(kind, inputs=12, outputs=20, bias=True, seed=0):
    torch.manual_seed(seed)
    layer = make_linear(kind, inputs, outputs, bias)
    return layer.apply(lambda module: initialise_linear(module, 0.3))


# --- the additive layer -----------------------------------------------------------------------------------------------


def test_the_fast_additive_layer_computes_the_definition():
    layer, x = layer_of("additive"), drawn(2, 5, 12).requires_grad_()
    grad = drawn(2, 5, 20, seed=1)
    naive = additive_naive(x, layer.weight)
    assert naive.shape == (2, 5, 20)
    written_out = [[sum(x[0, 0, i] + layer.weight[j, i] for i in range(12)).item() for j in range(20)]]
    torch.testing.assert_close(naive[0, :1], torch.tensor(written_out))
    torch.testing.assert_close(layer(x), naive)
    for found, expected in zip(
        torch.autograd.grad(layer(x), [x, layer.weight], grad), torch.autograd.grad(naive, [x, layer.weight], grad),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, expected)


def test_what_holds_of_the_additive_layers_gradients():
    """Output j has the gradient 1 at each of its own weights and 0 at the others. So the gradient of a loss is the sum
    over tokens of its gradient at output j: one number for all inputs i, which is not 1, and depends on the text."""
    layer, x, grad = layer_of("additive"), drawn(7, 12), drawn(7, 20, seed=1)
    for j in (0, 13):
        (of_output,) = torch.autograd.grad(additive_naive(x[0], layer.weight)[j], layer.weight)
        own = torch.arange(20) == j
        assert torch.equal(of_output, own.float().unsqueeze(1).expand(20, 12))
    (of_loss,) = torch.autograd.grad(additive_naive(x, layer.weight), layer.weight, grad)
    torch.testing.assert_close(of_loss, grad.sum(0).unsqueeze(1).expand(20, 12))
    assert torch.equal(of_loss, of_loss[:, :1].expand(20, 12))
    assert (of_loss - 1).abs().max() > 1
    target = drawn(7, 20, seed=2)
    gradients = [
        torch.autograd.grad((layer(inputs) - target).square().sum(), layer.weight)[0] for inputs in (x, x + 0.1)
    ]
    assert (gradients[0] - gradients[1]).abs().max() > 1e-2


def test_an_additive_layer_sees_nothing_behind_a_layer_norm():
    """The features of a normalised token add up to zero, so every token has the same output."""
    outputs = layer_of("additive")(nn.functional.layer_norm(drawn(9, 12), (12,)))
    torch.testing.assert_close(outputs, outputs[:1].expand_as(outputs), atol=2e-6, rtol=0)


# --- AdderNet's layer -------------------------------------------------------------------------------------------------


def test_the_adder_layer_and_its_gradients_are_those_of_the_paper(monkeypatch):
    monkeypatch.setattr("frozen_glyph.model.linear_frozen_glyph.ADDER_ELEMENTS", 600)  # several pieces
    layer, x, grad = layer_of("adder").eval(), drawn(7, 12).requires_grad_(), drawn(7, 20, seed=1)
    differences = x.unsqueeze(1) - layer.weight
    distance = -differences.abs().sum(-1)
    torch.testing.assert_close(layer(x), layer.norm(distance))
    (at_distance,) = torch.autograd.grad(layer.norm(distance), distance, grad)
    expected_x = (at_distance.unsqueeze(-1) * (-differences).clamp(-1, 1)).sum(1)
    expected_weight = (at_distance.unsqueeze(-1) * differences).sum(0)
    found = torch.autograd.grad(layer(x), [x, layer.weight], grad)
    torch.testing.assert_close(found[0], expected_x)
    torch.testing.assert_close(found[1], expected_weight)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_in_training_the_adders_gradient_has_a_norm_of_its_own(scale):
    layer = layer_of("adder")
    (raw,) = torch.autograd.grad(layer.eval()(drawn(7, 12)), layer.weight, drawn(7, 20, seed=1))
    (adapted,) = torch.autograd.grad(layer.train()(drawn(7, 12)), layer.weight, scale * drawn(7, 20, seed=1))
    assert adapted.norm().item() == pytest.approx(ADDER_RATE * 240**0.5, rel=1e-4)
    torch.testing.assert_close(adapted / adapted.norm(), raw / raw.norm())


# --- the remedies -----------------------------------------------------------------------------------------------------


def test_a_low_rank_layer_is_the_product_of_its_factors():
    layer, x = layer_of("low_rank", 64, 128), drawn(3, 64)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.up.weight @ layer.down.weight, layer.up.bias))
    assert layer.down.out_features == 16
    assert (layer.up.weight @ layer.down.weight).std().item() == pytest.approx(0.3, rel=0.15)


def test_a_quantized_layer_has_255_levels_and_passes_gradients_straight_through():
    layer, x, grad = layer_of("quantized", 400, 6), drawn(3, 400), drawn(3, 6, seed=1)
    levels = (layer(torch.eye(400)) - layer.bias).T  # the weights as the forward pass has them
    steps = levels / (layer.weight.abs().amax(-1, keepdim=True) / 127)
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.abs().max().round() == 127 and (levels - layer.weight).abs().max() > 1e-4
    (found,) = torch.autograd.grad(layer(x), layer.weight, grad)
    torch.testing.assert_close(found, grad.T @ x)


@pytest.mark.parametrize("kind", [pytest.param("compiled", marks=pytest.mark.slow), "fused"])
def test_kinds_that_compute_what_a_linear_computes(kind, build_model, token_ids):
    plain = build_model()
    other = build_model(linear_kinds=[["layers.*", kind]])
    assert list(other.state_dict()) == list(plain.state_dict())
    ids = token_ids(2, 9)
    for model in (plain, other):
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
    torch.testing.assert_close(other(ids).logits, plain(ids).logits)
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(other.get_parameter(name).grad, parameter.grad, msg=name)


def test_fused_layers_make_one_product_for_query_key_and_value(build_model, token_ids, monkeypatch):
    model, products = build_model(linear_kinds=[["layers.*", "fused"]]), []
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *given: products.append(given) or linear(*given))
    model.model(token_ids(1, 4))
    assert len(products) == 4 * model.config.num_hidden_layers  # not 6
    key = model.model.layers[0].self_attn.k_proj
    torch.testing.assert_close(key(drawn(1, 48)), linear(drawn(1, 48), key.weight))  # on its own as well


# --- in models and checkpoints ----------------------------------------------------------------------------------------


def test_names_of_kinds_and_the_default_are_what_the_configuration_says(build_model):
    assert tuple(LINEAR_CLASSES) == LINEAR_KINDS
    assert FrozenGlyphConfig().linear_kinds is None
    linears = {name: type(each) for name, each in build_model().named_modules() if isinstance(each, nn.Linear)}
    assert linears.pop("lm_head") is OutputHead and set(linears.values()) == {nn.Linear}
    assert kind_of("layers.0.mlp.fc_in", None) == "matmul"
    assert kind_of("layers.0.mlp.fc_in", [["layers.*", "adder"], ["*.fc_in", "matmul"]]) == "matmul"


@pytest.mark.parametrize("pair", [["layers.*", "addtive"], ["layers.*"]])
def test_unknown_kinds_are_refused(pair):
    with pytest.raises(Exception, match=r"linear_kinds has .*additive, adder"):
        FrozenGlyphConfig(linear_kinds=[pair])


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_every_kind_starts_at_a_working_scale(kind):
    """Its outputs vary over tokens and units; those of a fresh additive layer hardly do, which is the point."""
    config = FrozenGlyphConfig(
        vocab_size=64, hidden_size=32, substrate_bits=32, num_attention_heads=2, num_hidden_layers=1,
        linear_kinds=[["layers.*", kind]],
    )  # fmt: skip
    layer = FrozenGlyphForCausalLM(config).model.layers[0].mlp.fc_in
    assert type(layer) is LINEAR_CLASSES[kind]
    if kind == "compiled":
        layer.forward = lambda x: nn.functional.linear(x, layer.weight, layer.bias)
    spread = layer(drawn(50, 32)).std().item()
    assert 0.02 * 32**0.5 * 0.7 < spread < (10 if kind == "additive" else 0.02 * 32**0.5 * 1.4)


@pytest.fixture(scope="module")
def folder(build_model, tokenizer, tmp_path_factory):
    """A checkpoint with a layer of every kind but ``compiled``, which stores what ``matmul`` stores."""
    folder = tmp_path_factory.mktemp("kinds")
    build_model(3, linear_kinds=EVERY_KIND).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_kind_saves_and_loads(folder, build_model, token_ids):
    model, ids = build_model(3, linear_kinds=EVERY_KIND), token_ids(2, 6)
    for loaded in (AutoModelForCausalLM.from_pretrained(folder), FrozenGlyphForCausalLM.from_pretrained(folder)):
        block = loaded.model.layers
        assert type(block[0].self_attn.q_proj) is FusedLinear and type(block[0].mlp.fc_in) is LowRankLinear
        assert type(block[0].mlp.fc_out) is QuantizedLinear and type(block[1].mlp.fc_in) is AdderLinear
        assert type(block[1].mlp.fc_out) is AdditiveLinear
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    base = AutoModel.from_pretrained(folder)
    assert torch.equal(base(ids).last_hidden_state, model.model(ids).last_hidden_state)
    longer = loaded.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert longer.shape == (2, 10)
    torch.testing.assert_close(longer[:, 6], model(ids).logits[:, -1].argmax(-1))


def test_loading_stays_strict(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.fc_in.norm.weight"]
    (tmp_path / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: model\.layers\.1\.mlp\.fc_in\.norm\.weight"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


STRANGER = """
import json, sys
sys.modules["frozen_glyph"] = None  # importing it fails
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
task = json.loads(sys.stdin.read())
model = AutoModelForCausalLM.from_pretrained(task["folder"], trust_remote_code=True)
logits = model(torch.tensor(task["ids"])).logits
sys.stdout.write("RESULT" + json.dumps([type(model.model.layers[1].mlp.fc_in).__module__, logits.tolist()]))
"""


def test_a_machine_without_the_package_loads_every_kind(folder, token_ids, tmp_path):
    ids = token_ids(1, 5)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER], input=json.dumps({"folder": str(folder), "ids": ids.tolist()}),
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HF_HOME": str(tmp_path)}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    module, logits = json.loads(done.stdout.rpartition("RESULT")[2])
    assert module.startswith("transformers_modules") and module.endswith("linear_frozen_glyph")
    expected = FrozenGlyphForCausalLM.from_pretrained(folder)(ids).logits
    torch.testing.assert_close(torch.tensor(logits), expected)
