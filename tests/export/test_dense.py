"""Dense export: the vectors in an ordinary embedding, the same logits, still frozen, loaded by every way."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, export_dense, merge_experts
from frozen_glyph.checkpoint.files import CheckpointError, read_json
from frozen_glyph.merge.experts import ExpertsDoNotMatch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_logit_keeps_its_bits(build_model, token_ids, dtype):
    model, ids = build_model(seed=5).to(dtype), token_ids(2, 9)
    vectors, logits = model.substrate.weight, model(ids).logits
    assert model.to_dense() is model
    assert type(model.substrate) is nn.Embedding
    assert torch.equal(model.substrate.weight, vectors.to(dtype))
    assert torch.equal(model(ids).logits, logits)


def test_autocast_and_inputs_embeds_keep_their_bits(build_model, token_ids):
    model, ids = build_model(seed=5), token_ids(2, 9)

    def logits():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(ids).logits, model(inputs_embeds=model.get_input_embeddings()(ids)).logits

    before = logits()
    model.to_dense()
    for found, expected in zip(logits(), before, strict=True):
        assert torch.equal(found, expected)


def test_it_stays_frozen_saved_or_not(build_model, token_ids, tmp_path):
    model, ids = build_model(seed=6, num_hidden_layers=3, num_frozen_layers=1).to_dense(), token_ids(2, 9)
    model.save_pretrained(tmp_path)
    for dense in (model, FrozenGlyphForCausalLM.from_pretrained(tmp_path), model.to_dense()):
        assert dense.config.substrate_dense and dense.config.num_frozen_layers == 1
        assert not dense.substrate.weight.requires_grad
        before = dense.substrate.weight.clone()
        optimizer = torch.optim.AdamW([p for p in dense.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
        dense.train()(ids, labels=ids).loss.backward()
        optimizer.step()
        assert torch.equal(dense.substrate.weight, before)


@pytest.mark.parametrize("growth_stage", [None, 1])
def test_export_of_a_grown_checkpoint(experts, token_ids, tmp_path, growth_stage):
    parent = AutoModelForCausalLM.from_pretrained(experts[1], growth_stage=growth_stage or 2).eval()
    out = export_dense(experts[1] if growth_stage is None else f"{experts[1]}@{growth_stage}", tmp_path / "dense")
    dense, ids = AutoModelForCausalLM.from_pretrained(out).eval(), token_ids(2, 9)
    assert type(dense) is FrozenGlyphForCausalLM and type(dense.substrate) is nn.Embedding
    assert torch.equal(dense(ids).logits, parent(ids).logits)
    assert read_json(out / "config.json")["substrate_fingerprint"] == parent.config.substrate_fingerprint
    assert read_json(out / "provenance.json")["parents"][0]["name"] == experts[1].name
    assert {path.name for path in tmp_path.iterdir()} == {"dense"}


@pytest.mark.parametrize("rule", ["mean", "posterior"])
def test_export_of_a_merged_checkpoint(experts, token_ids, tmp_path, rule):
    merged = merge_experts(experts, tmp_path / "merged", rule)
    out = export_dense(merged, tmp_path / "dense")
    dense, ids = FrozenGlyphMoEForCausalLM.from_pretrained(out).eval(), token_ids(2, 9)
    assert dense.config.rule == rule and not dense.substrate.weight.requires_grad
    assert torch.equal(dense(ids).logits, FrozenGlyphMoEForCausalLM.from_pretrained(merged)(ids).logits)


def test_a_missing_table_is_refused(experts, tmp_path):
    out = export_dense(experts[0], tmp_path / "dense")
    config = (out / "config.json").read_text().replace('"substrate_dense": true', '"substrate_dense": false')
    (out / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"missing: model\.embed_tokens\.center"):
        FrozenGlyphForCausalLM.from_pretrained(out)


def test_a_dense_export_does_not_dock(experts, tmp_path):
    out = export_dense(experts[0], tmp_path / "dense")
    with pytest.raises(ExpertsDoNotMatch, match="is a dense export, which holds no glyph bits; merge its parent"):
        merge_experts([experts[1], out], tmp_path / "merged")


def test_what_cannot_be_exported(experts, tmp_path):
    out = export_dense(experts[0], tmp_path / "dense")
    with pytest.raises(CheckpointError, match="has an ordinary embedding already"):
        export_dense(out, tmp_path / "again")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        export_dense(experts[0], out)
    with pytest.raises(CheckpointError, match="nowhere' is no folder and cannot be fetched from the Hub"):
        export_dense(tmp_path / "nowhere", tmp_path / "again")
    with pytest.raises(ValueError, match=r"has no stage 9; its stages are 1\.\.2"):
        export_dense(f"{experts[0]}@9", tmp_path / "again")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="has model_type 'llama'"):
        export_dense(tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()
