"""A substrate under models of other makers: vectors by the definition, frozen, trained around, saved and loaded."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from frozen_glyph import GlyphSubstrate, install_glyph_embedding, load_with_glyph_embedding
from frozen_glyph.substrate.choices import SubstrateError

WIDTH, PADDED = 64, 384  # the tokenizer has 380 tokens
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


@pytest.fixture
def make(tokenizer):
    """``make(kind, tied)``: a tiny model with a padded vocabulary."""

    def make(kind="llama", tied=False, **fields):
        config_class, model_class = KINDS[kind]
        shape = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        fields = {"vocab_size": PADDED, "num_key_value_heads": 2, "tie_word_embeddings": tied} | shape | ids | fields
        torch.manual_seed(0)
        return model_class(config_class(**fields))

    return make


@pytest.fixture(scope="module")
def glyphs(tokenizer, font):
    return GlyphSubstrate.build(tokenizer, WIDTH, font=font)


def train(model, tokenizer, texts, folder):
    """Three steps with transformers' Trainer."""
    ids = tokenizer("".join(texts))["input_ids"][: 24 * 16]
    windows = [{"input_ids": ids[i : i + 16], "labels": ids[i : i + 16]} for i in range(0, len(ids), 16)]
    arguments = TrainingArguments(
        folder, max_steps=3, per_device_train_batch_size=4, learning_rate=0.01, weight_decay=0.1, report_to="none",
        use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=windows).train()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_train_save_load_generate(make, tokenizer, font, texts, tmp_path, kind, tied):
    model = make(kind, tied)
    old = model.get_input_embeddings().weight
    glyphs = install_glyph_embedding(model, tokenizer, font=font)
    vectors = model.get_input_embeddings().weight
    np.testing.assert_allclose(vectors[:380].numpy(), glyphs.reference_vectors(np.arange(380)), atol=1e-7)
    assert vectors.shape == (PADDED, WIDTH) and not vectors[380:].any()
    assert (model.lm_head.weight is old) == tied
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains == {name for name, _ in model.named_parameters()} - {"model.embed_tokens.weight"}

    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(model, tokenizer, texts, tmp_path / "run")
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == trains

    model.save_pretrained(tmp_path / "model")
    glyphs.save_pretrained(tmp_path / "model" / "glyphs")
    ids = tokenizer("Кот сидел", return_tensors="pt")["input_ids"]
    logits, text = model.eval()(ids).logits, model.generate(ids, max_new_tokens=5, do_sample=False)
    for loaded in (
        load_with_glyph_embedding(tmp_path / "model")[0],
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"),  # by anyone, without this package
    ):
        assert torch.equal(loaded.eval()(ids).logits, logits)
        assert torch.equal(loaded.generate(ids, max_new_tokens=5, do_sample=False), text)
        assert not loaded.config.tie_word_embeddings
    again = AutoTokenizer.from_pretrained(tmp_path / "model" / "glyphs")
    assert again("Кот сидел", return_tensors="pt")["input_ids"].tolist() == ids.tolist()


def test_loading_freezes_again(make, glyphs, tmp_path):
    model = make()
    install_glyph_embedding(model, glyphs)
    model.save_pretrained(tmp_path)
    glyphs.save_pretrained(tmp_path / "glyphs")
    assert json.loads((tmp_path / "config.json").read_text())["glyph_substrate_fingerprint"] == glyphs.fingerprint
    for dtype in (torch.float32, torch.bfloat16):
        loaded, found = load_with_glyph_embedding(tmp_path, dtype=dtype)
        assert found.fingerprint == glyphs.fingerprint
        assert loaded.dtype == loaded.get_input_embeddings().weight.dtype == dtype
        assert not loaded.get_input_embeddings().weight.requires_grad and loaded.lm_head.weight.requires_grad


def test_installing_twice_changes_nothing(make, glyphs):
    model = make(tied=True)
    install_glyph_embedding(model, glyphs)
    head, vectors = model.lm_head.weight, model.get_input_embeddings().weight.clone()
    assert install_glyph_embedding(model, glyphs) is glyphs
    assert model.lm_head.weight is head and torch.equal(model.get_input_embeddings().weight, vectors)


def test_the_models_dtype_is_kept(make, glyphs):
    model = make().to(torch.bfloat16)
    install_glyph_embedding(model, glyphs)
    assert torch.equal(model.get_input_embeddings().weight[:380], glyphs.as_embedding().weight.bfloat16())
    assert model(torch.arange(8)[None]).logits.dtype == torch.bfloat16


def test_codes_can_be_installed(make, tokenizer):
    install_glyph_embedding(model := make(), tokenizer, layout="binary", bits=16)
    assert len(torch.unique(model.get_input_embeddings().weight[:380], dim=0)) == 380


def test_what_does_not_fit(make, glyphs, tokenizer, font):
    with pytest.raises(SubstrateError, match="substrate of width 64 does not fit a model of width 128"):
        install_glyph_embedding(make(hidden_size=128), glyphs)
    for given in (glyphs, tokenizer):
        with pytest.raises(
            SubstrateError, match=r"has 380 tokens, the model's embedding 379 rows; .* call model\.resize"
        ):
            install_glyph_embedding(make(vocab_size=379), given)
    with pytest.raises(SubstrateError, match="layout, font cannot be changed in a finished substrate"):
        install_glyph_embedding(make(), glyphs, layout="grid", font=font)
    with pytest.raises(SubstrateError, match="layout 'gird' is unknown"):
        install_glyph_embedding(make(), tokenizer, layout="gird")


def test_a_folder_with_other_vectors_is_refused(make, glyphs, tokenizer, tmp_path):
    model = make()
    install_glyph_embedding(model, glyphs)
    model.save_pretrained(tmp_path / "other")
    GlyphSubstrate.build(tokenizer, WIDTH, "random", bits=64).save_pretrained(tmp_path / "other" / "glyphs")
    with pytest.raises(SubstrateError, match=f"was trained on substrate {glyphs.fingerprint}, the folder holds sha256"):
        load_with_glyph_embedding(tmp_path / "other")
    with torch.no_grad():
        model.get_input_embeddings().weight[7, 7] += 1
    model.save_pretrained(tmp_path / "trained")
    glyphs.save_pretrained(tmp_path / "trained" / "glyphs")
    with pytest.raises(SubstrateError, match="holds other vectors than its substrate"):
        load_with_glyph_embedding(tmp_path / "trained")
