"""The compact tokenizer: ids in order, every string comes back, contexts keep their tokens, builds repeat exactly."""

import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import build_tokenizer
from frozen_glyph.substrate.vocabulary import BYTE_TOKENS, SPECIAL_TOKENS, list_tokens, tokenizer_sha256

SENTENCE = "The cat sat on the mat. Кот сидел на окне. 猫坐在垫子上。"
TEXTS = [SENTENCE * 30, "3+4=7, the cat's hat\n" * 30]
STRINGS = [
    "", " ", "\n", "\0", "\r\n\r\n", "  two  spaces  ", "\t\ttabs", "a\u3000b\u00a0c", "<0x41>", "<0x41", "<pad>",
    "x<eos><bos> y", "<|endoftext|>", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd",
    "\U0001f1fa\U0001f1e6", "\U00020000\U00020bb7", "e\u0301\u0302\u0323", "\u202eabc\u202c", "\ufb01 ½ \u212b",
    "\x7f\x85\x1c", "\U0010ffff", "\ufeffbom", "한국어 ไทย हिन्दी العربية", SENTENCE,
]  # fmt: skip


def encode(tokenizer, text):
    return tokenizer(text)["input_ids"]


def test_ids_are_specials_bytes_code_points_ngrams(tokenizer):
    tokens = list_tokens(tokenizer)
    assert len(tokenizer) == len(tokens) == 380
    assert [token.text for token in tokens[:3]] == list(SPECIAL_TOKENS)
    assert [token.text for token in tokens[3:259]] == list(BYTE_TOKENS)
    assert {token.kind for token in tokens[:3]} == {"special"} and {token.kind for token in tokens[3:259]} == {"byte"}
    lengths = [len(token.text) for token in tokens[259:]]
    ngrams_from = lengths.index(next(length for length in lengths if length > 1))
    assert ngrams_from > 20 and all(length == 1 for length in lengths[:ngrams_from])
    assert all(2 <= length <= 4 for length in lengths[ngrams_from:]) and 4 in lengths
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_code_points_are_ordered_by_frequency_then_number():
    tokens = list_tokens(build_tokenizer(["bbb aa cc d"], vocab_size=300, max_ngram=1))
    assert [token.text for token in tokens[259:]] == [" ", "b", "a", "c", "d"]


def test_rare_code_points_make_room_for_ngrams():
    common = "the cat sat on the mat and the dog ran to the man " * 1000
    rare = "".join(chr(0x4E00 + number) for number in range(15))
    small = {token.text for token in list_tokens(build_tokenizer([common + rare], vocab_size=259 + 40))}
    assert not small & set(rare) and {" the", "t", "o"} <= small
    large = {token.text for token in list_tokens(build_tokenizer([common + rare], vocab_size=259 + 100))}
    assert set(rare) <= large


def test_ngrams_never_join_across_a_left_out_code_point():
    text = "".join(f"xa{chr(0x4E00 + number)}by " for number in range(200))
    texts = [text, "qwertyuiop " * 2000]
    kept = {token.text for token in list_tokens(build_tokenizer(texts, vocab_size=259 + 60))}
    assert "xa" in kept and not any("ab" in token for token in kept)


def test_max_ngram_and_reserved_texts():
    texts = ["<0x41> <pad> " * 300]
    tokens = list_tokens(build_tokenizer(texts, vocab_size=330, max_ngram=8))
    texts_of_text_tokens = [token.text for token in tokens if token.kind == "text"]
    assert not set(texts_of_text_tokens) & {*SPECIAL_TOKENS, *BYTE_TOKENS}
    assert len({token.text for token in tokens}) == len(tokens)
    ngrams = [token.text for token in list_tokens(build_tokenizer([SENTENCE * 50], 500, max_ngram=2))]
    assert max(len(ngram) for ngram in ngrams[259:]) == 2


def test_a_short_text_gives_fewer_ids_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = build_tokenizer(["ab ab"], vocab_size=5000)
    assert len(tokenizer) < 300
    assert f"5000 asked for, but the text yields only {len(tokenizer)}" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["a"], "vocab_size": 259}, "vocab_size 259"),
        ({"texts": ["a"], "vocab_size": 300, "max_ngram": 0}, "max_ngram 0"),
        ({"texts": ["a"], "vocab_size": 300, "max_ngram": 17}, "max_ngram 17"),
        ({"texts": ["", ""], "vocab_size": 300}, "no characters"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(FrozenGlyphError, match=message):
        build_tokenizer(**arguments)


@pytest.mark.parametrize("text", STRINGS)
def test_known_difficult_strings_come_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True)["input_ids"]) == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(STRINGS)), max_size=6).map("".join))
def test_every_string_comes_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*SENTENCE.split(), " ", "  ", "\n", "\t", "?", "：", "zz", "猫", "="]), max_size=12),
    st.sampled_from([" cat", " Кот", " 猫", " ...", "\ncat", "\n\n"]),
)
def test_appending_at_a_word_boundary_keeps_the_context(tokenizer, words, continuation):
    context = "".join(words).rstrip(" ") if continuation[0] != " " else "".join(words)
    before, after = encode(tokenizer, context), encode(tokenizer, context + continuation)
    assert after[: len(before)] == before


@pytest.mark.parametrize(
    ("context", "continuation"),
    [("The cat", " sat"), ("The cat\n", "sat"), ("The cat\n", " sat"), ("A:\n\n", "The"), ("3+4=", "7"),
     ("答案：", "猫"), ("the mat.", " The"), ("cat  ", " sat"), ("the cat", "'s"), ("(", "cat"), ("cat\n\n", "\nsat")],
)  # fmt: skip
def test_boundaries_by_hand(tokenizer, context, continuation):
    before, after = encode(tokenizer, context), encode(tokenizer, context + continuation)
    assert after[: len(before)] == before


def test_unknown_characters_become_bytes(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, "字"))
    assert tokens == ["<0xE5>", "<0xAD>", "<0x97>"]


def test_auto_tokenizer_loads_it_as_it_was(tokenizer, tmp_path):
    tokenizer = build_tokenizer(TEXTS, vocab_size=330, model_max_length=77)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_sha256(loaded) == tokenizer_sha256(tokenizer)
    assert loaded.model_max_length == 77
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == SPECIAL_TOKENS
    text = "cat , don't ? <0x41>  x"
    assert loaded.decode(encode(loaded, text)) == text


def test_hash_ignores_padding_calls_and_sees_content(tokenizer):
    before = tokenizer_sha256(tokenizer)
    tokenizer(["cat", "the cat sat"], padding=True, truncation=True, max_length=2)
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer_sha256(build_tokenizer(TEXTS, vocab_size=330)) != before


def test_another_process_builds_the_same_bytes(tmp_path):
    script = (
        "import json, sys; from frozen_glyph.substrate.vocabulary import build_tokenizer; "
        "sys.stdout.write(build_tokenizer(json.load(sys.stdin), 400).backend_tokenizer.to_str())"
    )
    here = build_tokenizer(TEXTS, 400).backend_tokenizer.to_str()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    there = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(TEXTS),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert there == here


def test_a_tokenizer_of_another_kind_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    )
    with pytest.raises(FrozenGlyphError, match="'WordLevel' cannot be drawn"):
        list_tokens(other)
