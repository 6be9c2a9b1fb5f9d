"""Reserved ids: where they lie, what their vectors are, and the chat template over the first of them."""

import numpy as np
import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
from frozen_glyph.substrate.reserved import CHAT_MARKS
from frozen_glyph.substrate.tokens import list_tokens

TOOLS = [{"type": "function", "function": {"name": "look"}}]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "猫"}}}
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sat"},
    {"role": "assistant", "content": [{"type": "text", "text": "It sat"}, {"type": "text", "text": " there."}]},
]


@pytest.fixture(scope="module")
def made(texts):
    return build_tokenizer(texts, 320, reserved=10)


def test_they_follow_all_other_ids_which_stay_where_they_were(texts, made):
    names = made.convert_ids_to_tokens(range(310, 320))
    assert names == [*CHAT_MARKS, "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>", "<|reserved_3|>"]
    assert list_tokens(made)[:310] == list_tokens(build_tokenizer(texts, 310))
    assert {token.kind for token in list_tokens(made)[310:]} == {"special"}


def test_a_vocabulary_has_them_where_they_are_a_small_part_of_it():
    text = " ".join(f"{number:x}" for number in range(3000))
    large, small = (build_tokenizer([text], size) for size in (1088, 1024))
    assert len(large) == 1088 and large.convert_tokens_to_ids(list(CHAT_MARKS)) == list(range(1024, 1030))
    assert large.convert_ids_to_tokens(1087) == "<|reserved_57|>" and large.chat_template is not None
    assert small.chat_template is None and not set(CHAT_MARKS) & small.get_vocab().keys()


def test_published_layouts_have_them_only_when_asked(texts):
    made = build_tokenizer(texts, "bmp", reserved=7)
    assert made.convert_ids_to_tokens([57346, 57347, 57352, 57353, 57354]) == [
        "<eos>", "<|system|>", "<|tool_call|>", "<|reserved_0|>", "<unused_57354>",
    ]  # fmt: skip
    assert made.apply_chat_template(CHAT[:1], return_dict=False) == [57345, 57347, *map(ord, "Be kind."), 57346]


@pytest.mark.parametrize(
    ("size", "reserved", "message"),
    [
        (400, 5, "reserved 5 is not allowed; give 0, or 6"),
        (400, -1, "reserved -1"),
        (400, 10**12, "reserved 1000000000000"),
        (400, 141, "vocab_size 400 is too small: 400 ids"),
        ("bmp", 254, "to 253 ids"),
    ],
)
def test_a_number_that_cannot_be_reserved_is_named(size, reserved, message):
    with pytest.raises(FrozenGlyphError, match=message):
        build_tokenizer(["a"], size, reserved=reserved)


@pytest.mark.parametrize("layout", ["grid", "random"])
def test_vectors_of_reserved_ids_are_far_from_all_others(made, font, layout):
    """Pictures of names that differ in one digit would have cosines of 0.997 and more."""
    font = font if layout == "grid" else None
    glyphs = GlyphSubstrate.build(made, width=256, font=font, layout=layout)
    vectors = glyphs.reference_vectors(range(320)) / glyphs.scale
    cosines = vectors[316:] @ vectors.T - np.eye(320)[316:]
    assert cosines.max() < 0.8


def test_the_code_of_a_reserved_id_follows_from_its_name(texts, made, font):
    bits = GlyphSubstrate.build(made, font=font).packed_bits
    more = build_tokenizer(texts, 321, reserved=11)
    again = GlyphSubstrate.build(more, font=font).packed_bits
    assert bits[316:].equal(again[more.convert_tokens_to_ids(["<|reserved_0|>"])[0] :][:4])
    large = GlyphSubstrate.build(made, width=4096, font=font)
    assert large.bits == 4096 and len(large.packed_bits[316:].unique(dim=0)) == 4


def test_a_mark_that_is_written_in_a_text_stays_text(texts):
    text = "<|user|> x<|reserved_0|><|tool_call|>"
    made = build_tokenizer([*texts, text * 99], 400, max_ngram=16, reserved=8)
    ids = made(text, split_special_tokens=True)["input_ids"]
    assert max(ids) < 392 and made.decode(ids) == text
    assert len(list_tokens(made)) == len({token.text for token in list_tokens(made)})


def test_a_chat_is_one_document_of_marked_turns(made, tmp_path):
    made.save_pretrained(tmp_path)
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        text = tokenizer.apply_chat_template(CHAT, tools=TOOLS, tokenize=False, add_generation_prompt=True)
        assert text == (
            '<bos><|tools|>[{"type": "function", "function": {"name": "look"}}]<eos>'
            "<|system|>Be kind.<eos><|user|>the cat?<eos>"
            '<|assistant|><|tool_call|>{"name": "look", "arguments": {"at": "猫"}}<eos>'
            "<|tool|>sat<eos><|assistant|>It sat there.<eos><|assistant|>"
        )


def test_what_the_assistant_says_is_marked_for_training(made):
    found = made.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = made.decode([i for i, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask])
    assert said == '<|tool_call|>{"name": "look", "arguments": {"at": "猫"}}<eos>It sat there.<eos>'


def test_a_message_can_be_gone_on_with(made):
    begun = [*CHAT[:2], {"role": "assistant", "content": "It s"}]
    text = made.apply_chat_template(begun, tokenize=False, continue_final_message=True)
    assert text.endswith("<|assistant|>It s")


def test_an_unknown_role_is_refused(made):
    with pytest.raises(TemplateError, match='role "king" is unknown; allowed: system, user, assistant, tool'):
        made.apply_chat_template([{"role": "king", "content": "x"}])
