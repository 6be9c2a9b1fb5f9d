"""The compact vocabulary: ids in order, code points before n-grams, builds repeat exactly."""

import json
import logging
import os
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import build_tokenizer
from frozen_glyph.substrate.tokens import BYTE_TOKENS, list_tokens, tokenizer_sha256
from frozen_glyph.substrate.vocabulary import SPECIAL_TOKENS

SENTENCE = "The cat sat on the mat. Кот сидел на окне. 猫坐在垫子上。"
TEXTS = [SENTENCE * 30, "3+4=7, the cat's hat\n" * 30]


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


def test_compact_by_name_is_4096_ids():
    assert len(build_tokenizer([" ".join(f"{number:x}" for number in range(20_000))], "compact")) == 4096


def test_text_is_read_once_from_any_iterator():
    whole = build_tokenizer(TEXTS, 400).backend_tokenizer.to_str()
    pieces = (line for text in TEXTS for line in text.splitlines(keepends=True))
    assert build_tokenizer(pieces, 400).backend_tokenizer.to_str() == whole


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
    assert len(tokenizer) < 300 + 64
    assert f"5000 asked for, but the text yields only {len(tokenizer)}" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["a"], "vocab_size": 259}, "vocab_size 259"),
        ({"texts": ["a"], "vocab_size": 300, "max_ngram": 0}, "max_ngram 0"),
        ({"texts": ["a"], "vocab_size": 300, "max_ngram": 17}, "max_ngram 17"),
        ({"texts": ["", ""], "vocab_size": 300}, "no characters"),
        ({"texts": ["a"], "vocab_size": "bpm"}, "vocab_size 'bpm' is unknown.*Did you mean 'bmp'"),
        ({"texts": ["a"], "vocab_size": "bmp", "max_ngram": 17}, "max_ngram 17"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(FrozenGlyphError, match=message):
        build_tokenizer(**arguments)


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
