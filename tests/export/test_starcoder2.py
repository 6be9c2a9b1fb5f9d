"""A grown model as a StarCoder2: transformers' own class computes the same logits, without code of ours."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Starcoder2ForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, export_dense
from frozen_glyph.checkpoint.files import CheckpointError, read_json
from frozen_glyph.export.starcoder2 import head_without_bias, to_starcoder2


def test_logits_are_the_same(build_model, token_ids):
    model, ids = build_model(seed=5), token_ids(2, 20)
    stock, logits = to_starcoder2(model), model(ids).logits
    assert torch.equal(stock.model.embed_tokens.weight, model.substrate.weight)
    torch.testing.assert_close(stock(ids).logits, logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits, logits - model.lm_head.bias, atol=0.1)  # there is a bias to be lost


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_more_than_before(build_model, token_ids, dtype):
    ids = token_ids(4, 20)
    exact, model = build_model(seed=5)(ids).logits, build_model(seed=5).to(dtype)
    stock = to_starcoder2(model)
    assert stock.dtype == dtype
    errors = [(each(ids).logits.float() - exact).square().mean().sqrt() for each in (stock, model)]
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "relu"},
        {"layer_norm_eps": 0.1},
        {"intermediate_size": 20},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_field_goes_along(build_model, token_ids, fields):
    model, plain, ids = build_model(seed=5, **fields), build_model(seed=5), token_ids(2, 20)
    expected = model(ids).logits
    torch.testing.assert_close(to_starcoder2(model)(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, plain(ids).logits, atol=0.1)


def test_head_without_bias_by_definition():
    generator = torch.Generator().manual_seed(0)
    norm, head = torch.nn.LayerNorm(6).double(), torch.nn.Linear(6, 4).double()
    with torch.no_grad():
        for parameter in (*norm.parameters(), *head.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        states = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        ones = torch.ones(6, dtype=torch.float64)
        found = torch.nn.functional.layer_norm(states, (6,), ones, ones) @ head_without_bias(norm, head).T
        torch.testing.assert_close(found, head(norm(states)))


@pytest.mark.parametrize("growth_stage", [None, 1])
def test_export_of_a_checkpoint(experts, token_ids, tmp_path, growth_stage):
    parent = AutoModelForCausalLM.from_pretrained(experts[1], growth_stage=growth_stage or 2).eval()
    source = experts[1] if growth_stage is None else f"{experts[1]}@{growth_stage}"
    out = export_dense(source, tmp_path / "stock", starcoder2=True)
    stock, ids = AutoModelForCausalLM.from_pretrained(out).eval(), token_ids(2, 9)
    assert type(stock) is Starcoder2ForCausalLM and stock.config.num_hidden_layers == parent.config.num_hidden_layers
    torch.testing.assert_close(stock(ids).logits, parent(ids).logits, atol=1e-4, rtol=1e-4)
    greedy = [model.generate(ids, max_new_tokens=8, do_sample=False) for model in (stock, parent)]
    assert torch.equal(*greedy)
    text = "кот on the mat 猫"
    assert (
        AutoTokenizer.from_pretrained(out)(text).input_ids == AutoTokenizer.from_pretrained(experts[1])(text).input_ids
    )
    assert list(out.glob("*.py")) == [] and "trust_remote_code" not in (out / "README.md").read_text()
    assert read_json(out / "provenance.json")["parents"][0]["name"] == experts[1].name


def test_a_dense_export_can_become_one(experts, token_ids, tmp_path):
    out = export_dense(export_dense(experts[0], tmp_path / "dense"), tmp_path / "stock", starcoder2=True)
    parent, ids = FrozenGlyphForCausalLM.from_pretrained(experts[0]).eval(), token_ids(2, 9)
    stock = Starcoder2ForCausalLM.from_pretrained(out).eval()
    torch.testing.assert_close(stock(ids).logits, parent(ids).logits, atol=1e-4, rtol=1e-4)


def test_what_is_no_starcoder2(merged_folder, write_expert, tmp_path):
    with pytest.raises(CheckpointError, match="holds 2 merged experts, each with LayerNorms of its own"):
        export_dense(merged_folder, tmp_path / "stock", starcoder2=True)
    low_rank = write_expert("low-rank", [1], seed=3, linear_kinds=[["layers.*.mlp.*", "low_rank"]])
    with pytest.raises(CheckpointError, match="StarCoder2 has Linears alone"):
        export_dense(low_rank, tmp_path / "stock", starcoder2=True)
    assert not (tmp_path / "stock").exists()
