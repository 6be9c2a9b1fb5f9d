"""The vocabularies ``bmp`` and ``wide``: code points are ids, the ids of surrogates and private use hold the rest."""

import unicodedata

import pytest
from transformers import AutoTokenizer

from frozen_glyph.substrate import build_tokenizer
from frozen_glyph.substrate.tokens import BYTE_TOKENS, list_tokens, tokenizer_sha256
from frozen_glyph.substrate.vocabulary import FREE_IDS

EMOJI = "\U0001f600"
RARE = "\U0001f601"
TEXTS = [
    "The university is near the university bridge. " * 40,
    "Кот сидел на окне, кот сидел. 猫坐在垫子上。" * 40,
    f"{EMOJI} \U00020000 {EMOJI} \U00020000 {EMOJI} {RARE} once_only \ue123\ue123",
]


@pytest.fixture(scope="module")
def bmp():
    return build_tokenizer(TEXTS, "bmp")


@pytest.fixture(scope="module")
def tokens(bmp):
    return list_tokens(bmp)


def learnt(tokens):
    return [tokens[token_id].text for token_id in FREE_IDS if not tokens[token_id].text.startswith("<unused_")]


def test_every_code_point_is_its_own_id(bmp, tokens):
    assert len(bmp) == len(tokens) == 65_536
    own = [code for code in range(0x10000) if not 0xD800 <= code <= 0xF8FF]
    assert all(tokens[code] == (chr(code), "text") for code in own)
    assert unicodedata.category("\ufdd0") == unicodedata.category("\u0378") == "Cn"  # a noncharacter, an unassigned one
    assert bmp("\0\ufdd0 \u0378 \uffff")["input_ids"] == [0, 0xFDD0, 0x20, 0x378, 0x20, 0xFFFF]


def test_specials_and_bytes_have_fixed_ids(bmp, tokens):
    assert (bmp.pad_token_id, bmp.bos_token_id, bmp.eos_token_id) == (57344, 57345, 57346)
    assert [token.text for token in tokens[0xE000:0xE004]] == ["<pad>", "<bos>", "<eos>", "<unused_57347>"]
    assert [token.kind for token in tokens].count("special") == 256
    assert {token.kind for token in tokens[0xE000:0xE100]} == {"special"}
    assert [token.text for token in tokens[0xE100:0xE200]] == list(BYTE_TOKENS)
    assert {token.kind for token in tokens[0xE100:0xE200]} == {"byte"}


def test_free_ids_hold_astral_characters_then_ngrams_then_placeholders(tokens):
    texts = learnt(tokens)
    assert texts[:2] == [EMOJI, "\U00020000"] and RARE not in texts
    assert [tokens[token_id].text for token_id in FREE_IDS[: len(texts)]] == texts
    assert all(len(text) > 1 for text in texts[2:]) and len(set(texts)) == len(texts)
    assert " university" in texts and "垫子" in "".join(texts) and not any("once_only" in text for text in texts)
    unused = [tokens[token_id] for token_id in FREE_IDS[len(texts) :]]
    assert unused[-1] == ("<unused_63743>", "text") and len(FREE_IDS) == 7936
    assert len({token.text for token in tokens}) == 65_536


def test_whole_words_are_one_token_and_unknown_characters_are_bytes(bmp):
    names = bmp.convert_ids_to_tokens(bmp(f"the university {RARE}\ue123")["input_ids"])
    assert names[-7:] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x81>", "<0xEE>", "<0x84>", "<0xA3>"]
    assert " university" in names
    assert bmp(EMOJI)["input_ids"] == [0xD800]


def test_max_ngram_limits_the_free_ids():
    assert max(map(len, learnt(list_tokens(build_tokenizer(TEXTS, "bmp", max_ngram=3))))) == 3
    assert learnt(list_tokens(build_tokenizer(TEXTS, "bmp", max_ngram=1))) == [EMOJI, "\U00020000"]


def test_text_that_looks_like_a_placeholder_is_text():
    tokenizer = build_tokenizer(["<unused_63743> <unused_57400> <0x41> <pad> " * 99], "bmp")
    assert len(tokenizer) == len({token.text for token in list_tokens(tokenizer)}) == 65_536
    ids = tokenizer("<unused_63743>")["input_ids"]
    assert 63743 not in ids and tokenizer.decode(ids) == "<unused_63743>"
    split = tokenizer("<unused_57400><pad>", split_special_tokens=True)["input_ids"]
    assert not set(split) & set(range(0xE000, 0xE100)) and tokenizer.decode(split) == "<unused_57400><pad>"


def test_at_most_a_quarter_of_the_free_ids_is_astral():
    astral = "".join(chr(0x20000 + number) for number in range(2000))
    texts = learnt(list_tokens(build_tokenizer([astral + " ", astral, "\U00020005"], "bmp")))
    single = [text for text in texts if len(text) == 1]
    assert len(single) == 1984 and single[:2] == ["\U00020005", "\U00020000"]
    assert all("\U00020000" <= character <= chr(0x20000 + 1983) for text in texts for character in text.strip())


def test_bmp_is_the_lower_half_of_wide():
    words = [f"{number * 7919 % 50021:x}" for number in range(12_000)]
    text = " ".join(words + words)
    bmp, wide = (build_tokenizer([*TEXTS, text], vocab) for vocab in ("bmp", "wide"))
    lower, all_tokens = list_tokens(bmp), list_tokens(wide)
    assert all_tokens[:65_536] == lower and len(learnt(lower)) == 7936
    upper = [token.text for token in all_tokens[65_536:]]
    assert len(wide) == 131_072 and len(upper[0]) > 1 and upper[-1] == "<unused_131071>"
    assert len(wide(text)["input_ids"]) < len(bmp(text)["input_ids"])


def test_auto_tokenizer_loads_it_as_it_was(bmp, tmp_path):
    bmp.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert tokenizer_sha256(loaded) == tokenizer_sha256(bmp) == tokenizer_sha256(build_tokenizer(iter(TEXTS), "bmp"))
    assert loaded.pad_token_id == 57344 and len(loaded) == 65_536
    assert loaded.decode(loaded("кот <eos>")["input_ids"], skip_special_tokens=True) == "кот "
