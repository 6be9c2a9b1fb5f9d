"""Nats per character: every token scored once, every character counted once, whatever the batch."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from frozen_glyph import FrozenGlyphMoEForCausalLM
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model import loss_frozen_glyph
from frozen_glyph.text.documents import split_documents
from frozen_glyph.text.loss import text_loss, windows_of

CONTEXT = 16
SHORT = "The cat sat."
TEXT = (
    "The cat sat on the mat, and the hat is on the cat. The cat sat on the hat.\n\n"
    "Кот сидел 😀 на окне, 𠀀 другой 👩‍👩‍👧 кот тоже сидел там. 猫坐在垫子上。\n\n"
    f"{SHORT}\n\n😀"
)


@pytest.fixture(scope="module")
def model(build_model):
    return build_model(seed=3)


def token_nats(model, ids: list[int]) -> float:
    """Loss of the last of ``ids`` given the others."""
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0, -1]
    return -float(logits.double().log_softmax(-1)[ids[-1]])


def naive_blocks(model, tokenizer, text: str, context_length: int) -> list[float]:
    """Token by token: each is scored in the first of the half-overlapping windows that reaches it."""
    stride, blocks = context_length // 2, []
    for document in split_documents(text):
        ids = [tokenizer.bos_token_id, *tokenizer(document, add_special_tokens=False)["input_ids"]]
        by_window: dict[int, float] = {}
        for target in range(1, len(ids)):
            begin = max(0, -(-(target + 1 - context_length) // stride)) * stride
            by_window[begin] = by_window.get(begin, 0.0) + token_nats(model, ids[begin : target + 1])
        blocks += by_window.values()
    return blocks


def test_loss_equals_the_naive_one_block_by_block(model, tokenizer):
    loss = text_loss(model, tokenizer, TEXT, CONTEXT)
    expected = naive_blocks(model, tokenizer, TEXT, CONTEXT)
    assert len(expected) > 8  # otherwise the windows are not tested
    assert loss.nats.tolist() == pytest.approx(expected, rel=1e-5)
    assert loss.tokens == sum(len(tokenizer(d, add_special_tokens=False)["input_ids"]) for d in split_documents(TEXT))


@pytest.mark.parametrize("kind", ["llama", "mean", "posterior"])
def test_loss_of_other_models_equals_the_naive_one(merged_folder, tokenizer, kind):
    """Those that make logits of all that is scored, and a merged model that makes none."""
    if kind == "llama":
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape))
    else:
        model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=kind)
    text = TEXT[: TEXT.index("Кот")]
    loss, expected = text_loss(model.eval(), tokenizer, text, CONTEXT), naive_blocks(model, tokenizer, text, CONTEXT)
    assert len(expected) > 1 and loss.nats.tolist() == pytest.approx(expected, rel=1e-5)


def test_logits_are_made_of_scored_tokens_alone_and_a_few_at_a_time(model, tokenizer, monkeypatch):
    monkeypatch.setattr(loss_frozen_glyph, "CHUNK_BYTES", 0)
    monkeypatch.setattr(loss_frozen_glyph, "LEAST_TOKENS", 2)
    seen: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda module, inputs, logits: seen.append(logits.shape[:-1].numel()))
    try:
        loss = text_loss(model, tokenizer, TEXT, CONTEXT)
    finally:
        hook.remove()
    assert sum(seen) == loss.tokens
    assert max(seen) == 2 * loss_frozen_glyph.READ_CHUNKS


def test_document_that_fits_one_window_has_its_exact_loss(model, tokenizer):
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(SHORT, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        mean = float(model(ids, labels=ids).loss)
    loss = text_loss(model, tokenizer, SHORT)
    assert loss.tokens == ids.shape[1] - 1 <= CONTEXT
    assert loss.nats.tolist() == pytest.approx([mean * loss.tokens], rel=1e-5)
    assert loss.nats_per_character == pytest.approx(mean * loss.tokens / len(SHORT), rel=1e-5)


@pytest.mark.parametrize("context_length", [2, 3, 7, CONTEXT, 500])
def test_characters_add_up_to_the_documents(model, tokenizer, context_length):
    assert len(tokenizer("😀", add_special_tokens=False)["input_ids"]) == 4  # spelt in bytes, which windows can part
    loss = text_loss(model, tokenizer, TEXT, context_length)
    assert loss.characters.sum() == sum(map(len, split_documents(TEXT)))
    assert loss.nats.shape == loss.characters.shape


@pytest.mark.parametrize("context_length", [2, 5, CONTEXT])
def test_every_token_is_scored_once_with_enough_context(tokenizer, context_length):
    document = split_documents(TEXT)[1]
    ids = [tokenizer.bos_token_id, *tokenizer(document, add_special_tokens=False)["input_ids"]]
    scored = []
    for number, window in enumerate(windows_of(document, tokenizer, context_length)):
        assert len(window.input_ids) <= context_length
        assert number == 0 or window.first_scored >= context_length // 2
        scored += window.input_ids[window.first_scored :]
    assert scored == ids[1:]


def test_loss_does_not_depend_on_the_batch(model, tokenizer):
    one = text_loss(model, tokenizer, TEXT, CONTEXT, batch_size=1)
    many = text_loss(model, tokenizer, TEXT, CONTEXT, batch_size=64)
    assert one.nats.tolist() == pytest.approx(many.nats.tolist(), rel=1e-5)
    assert one.characters.tolist() == many.characters.tolist()
    assert one.tokens == many.tokens


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_comes_back_and_dropout_is_off(build_model, tokenizer, training):
    model = build_model(seed=3, attention_dropout=0.5).train(training)
    first, second = (text_loss(model, tokenizer, TEXT, CONTEXT) for _ in range(2))
    assert model.training is training
    assert first.nats.tolist() == second.nats.tolist()


@pytest.mark.parametrize("context_length", [0, 1])
def test_windows_without_room_to_score_are_refused(model, tokenizer, context_length):
    with pytest.raises(FrozenGlyphError, match=f"context_length={context_length} must be at least 2"):
        text_loss(model, tokenizer, TEXT, context_length)


def test_blank_text_is_refused(model, tokenizer):
    with pytest.raises(FrozenGlyphError, match="nothing to score"):
        text_loss(model, tokenizer, " \n\n")


def test_documents_are_scored_as_they_are_given(model, tokenizer):
    """A list holds documents, and a blank line in one divides nothing."""
    apart = text_loss(model, tokenizer, [SHORT, SHORT], CONTEXT)
    assert apart.nats.tolist() == text_loss(model, tokenizer, f"{SHORT}\n\n{SHORT}", CONTEXT).nats.tolist()
    together = text_loss(model, tokenizer, [f"{SHORT}\n\n{SHORT}"], CONTEXT)
    assert together.characters.sum() == 2 * len(SHORT) + 2


def test_what_spells_a_special_token_is_scored_as_text(model, tokenizer):
    windows = windows_of("The <eos> cat", tokenizer, 64)
    assert not set(windows[0].input_ids[1:]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(windows[0].input_ids[1:]) == "The <eos> cat"


def test_a_context_beyond_the_positions_of_the_model_is_told(model, tokenizer):
    longest = model.config.max_position_embeddings
    with pytest.warns(UserWarning, match=f"context_length={longest + 1} exceeds max_position_embeddings={longest}"):
        text_loss(model, tokenizer, SHORT, longest + 1)


def test_every_window_says_which_document_it_is_of(model, tokenizer):
    """Documents are the units of intervals: windows of one depend on each other."""
    documents = [SHORT, TEXT.replace("\n\n", " "), SHORT]
    loss = text_loss(model, tokenizer, documents, CONTEXT)
    for place, document in enumerate(documents):
        assert loss.characters[loss.documents == place].sum() == len(document)
    assert (np.diff(loss.documents) >= 0).all() and loss.documents.max() == 2
