"""Tokens of existing tokenizers stand for the text that the tokenizer itself makes of them."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.tokens import BYTE_OF_CHARACTER, BYTE_TOKENS, Token, list_tokens, tokenizer_sha256

SPECIALS = ["<unk>", "<s>", "</s>"]
TEXTS = [
    "The cat sat on the mat, the other cat sang.",
    "Кот сидел на окне, и другой кот.",
    "猫坐在垫子上。",
    "e\u0301 \u2581x",
]
UNSEEN = ["the singing cats", "дом", "狗\U0001f600", "\ufffd", "a  b\n c\t\x00"]


def wrap(backend):
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=SPECIALS, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 5, trainer)
    return wrap(backend)


def unigram():
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(TEXTS * 5, trainer)
    return wrap(backend)


def byte_fallback():
    """BPE as sentencepiece has it: a normaliser writes the spaces, unknown characters are bytes."""
    marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE())
    learner.normalizer = marks
    learner.train_from_iterator(TEXTS[:2] * 5, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    vocab = {name: number for number, name in enumerate([*SPECIALS, *BYTE_TOKENS, *learnt["vocab"]])}
    merges = [tuple(pair) for pair in learnt["merges"]]
    backend = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = marks
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(SPECIALS)
    return wrap(backend)


def word_piece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    backend.train_from_iterator(TEXTS * 5, trainer)
    return wrap(backend)


def word_suffix():
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(TEXTS * 5, trainer)
    return wrap(backend)


def text_of(tokens):
    """What tokens stand for, one after the other."""
    return b"".join(text_bytes(token) for token in tokens).decode("utf-8", errors="replace")


def text_bytes(token):
    if token.kind == "byte":
        return bytes.fromhex(token.text.replace("<0x", "").replace(">", ""))
    return token.text.encode()


def encoded(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = list_tokens(tokenizer)
    return [tokens[token_id] for token_id in ids], tokenizer.decode(ids)


@pytest.mark.parametrize("text", [*TEXTS, *UNSEEN])
def test_byte_level_tokens_spell_the_text(text):
    tokenizer = byte_level()
    tokens, decoded = encoded(tokenizer, text)
    assert text_of(tokens) == decoded == text


def test_byte_level_spaces_and_parts_of_characters():
    tokenizer = byte_level()
    by_name = dict(zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), list_tokens(tokenizer), strict=True))
    assert by_name["Ġthe"] == Token(" the", "text") and by_name["Ċ"] == Token("\n", "text")
    assert by_name["é"] == Token("<0xE9>", "byte")  # the first byte of many Chinese characters
    assert by_name["<s>"] == Token("<s>", "special")
    parts = {name: token for name, token in by_name.items() if token.kind == "byte"}
    assert set(BYTE_TOKENS[0x80:]) <= {token.text for token in parts.values()}
    assert any(token.text.count("<0x") > 1 for token in parts.values())
    for name, token in parts.items():
        assert "\ufffd" in tokenizer.backend_tokenizer.decoder.decode([name])
        assert bytes(BYTE_OF_CHARACTER[character] for character in name) == text_bytes(token)


def test_byte_alphabet_is_that_of_the_library():
    assert sorted(BYTE_OF_CHARACTER) == sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, [*range(0x800), *range(0x800, 0xD800, 61), *range(0x10000, 0x110000, 4099)]))
    written = "".join(piece for piece, _ in splitter.pre_tokenize_str(text))
    assert bytes(BYTE_OF_CHARACTER[character] for character in written) == text.encode()


@pytest.mark.parametrize("make", [unigram, byte_fallback], ids=["unigram", "byte_fallback"])
def test_metaspace_is_read_as_a_space(make):
    tokenizer = make()
    by_name = dict(zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), list_tokens(tokenizer), strict=True))
    assert by_name["▁"] == Token(" ", "text") and by_name["<unk>"] == Token("<unk>", "special")
    assert any(token.text.startswith(" ") and len(token.text) > 2 for token in by_name.values())
    for text in TEXTS[:2]:
        tokens, decoded = encoded(tokenizer, text)
        assert text_of(tokens) == " " + decoded and decoded == text


def test_byte_fallback_tokens_spell_unseen_text_too():
    tokenizer = byte_fallback()
    for text in [*TEXTS[:3], *UNSEEN]:
        tokens, decoded = encoded(tokenizer, text)
        assert text_of(tokens) == " " + decoded and decoded == text
    assert list_tokens(tokenizer)[3 + 0xE2] == Token("<0xE2>", "byte")


def test_word_piece_continuations_lose_their_mark():
    tokenizer = word_piece()
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokens = list_tokens(tokenizer)
    assert [token.kind for token in tokens[:3]] == ["special", "special", "text"]
    assert any(name.startswith("##") for name in names) and not any("##" in token.text for token in tokens)
    assert tokens[names.index("##t")] == tokens[names.index("t")] == Token("t", "text")
    for text in TEXTS[:3]:
        found, decoded = encoded(tokenizer, text)
        assert text_of(found) == decoded.replace(" ", "") == text.replace(" ", "")


def test_word_suffix_is_read_as_a_space_behind_the_word():
    tokenizer = word_suffix()
    for text in TEXTS[:3]:
        tokens, decoded = encoded(tokenizer, text)
        assert text_of(tokens) == decoded + " " == text + " "


def test_added_tokens_stand_for_their_literal_text():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("    ", special=False), AddedToken("Ġodd", special=False)])
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    assert list_tokens(tokenizer)[-3:] == [Token("    ", "text"), Token("Ġodd", "text"), Token("<|end|>", "special")]


def test_words_without_a_decoder():
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "b c": 2}, unk_token="[UNK]"))
    assert list_tokens(wrap(backend)) == [Token("a", "text"), Token("[UNK]", "special"), Token("b c", "text")]


@pytest.mark.parametrize("read", [list_tokens, tokenizer_sha256])
def test_a_slow_tokenizer_is_refused(read):
    with pytest.raises(FrozenGlyphError, match="ByT5Tokenizer is not a fast one"):
        read(ByT5Tokenizer())


def test_a_gap_in_the_ids_is_named():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 2}, unk_token="a"))
    with pytest.raises(FrozenGlyphError, match="no token with id 1"):
        list_tokens(wrap(backend))
