"""What each token of a fast tokenizer stands for: its text, its bytes, or a special; and what a tokenizer's hash is.

Texts come from the tokenizer's own decoder: "Ġword" (byte-level BPE) and "▁word" (SentencePiece) are " word", and
"##ing" (WordPiece) is "ing". A token that is only part of a character's UTF-8 is its bytes.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.glyphs import Token

BYTE_TOKENS = tuple(f"<0x{value:02X}>" for value in range(256))
FALLBACK_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
VISIBLE_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
HIDDEN_BYTES = tuple(value for value in range(256) if value not in VISIBLE_BYTES)
# The alphabet of byte-level BPE (GPT-2): visible Latin-1 bytes are themselves, the others U+0100 on, in order.
BYTE_OF_CHARACTER = {chr(value): value for value in VISIBLE_BYTES} | {
    chr(0x100 + place): value for place, value in enumerate(HIDDEN_BYTES)
}
NEIGHBOUR = "a"  # decoders treat the first and the last token differently, so a token is read between two others
NAMED = "named_tokens"  # in tokenizer_config.json: name that a reserved id was given -> name that it was built with


def list_tokens(tokenizer: PreTrainedTokenizerBase, as_built: bool = False) -> list[Token]:
    """What each id of ``tokenizer`` stands for, in the order of the ids.

    A token of several bytes that are no text of their own is of kind ``byte`` with all of them: ``<0xE2><0x96>``. With
    ``as_built`` reserved ids have the names that they were built with, by which they are drawn.
    """
    built = built_names(tokenizer) if as_built else {}
    state = _backend_state(tokenizer)
    specials = _special_names(tokenizer, state)
    literal = {token["content"] for token in state["added_tokens"]}
    read = _token_reader(tokenizer.backend_tokenizer, state)
    tokens: list[Token] = []
    for token_id, name in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if name is None:
            raise FrozenGlyphError(f"tokenizer has no token with id {token_id}; ids must run from 0 without a gap")
        if name in specials:
            tokens.append(Token(built.get(name, name), "special"))
        elif name in literal:
            tokens.append(Token(name, "text"))
        else:
            tokens.append(read(name))
    return tokens


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what the tokenizer does: its tokenizer.json in canonical form, less the padding of its last call.

    A name that a reserved id was given changes nothing: the hash is that of the names it was built with.
    """
    state = {name: part for name, part in _backend_state(tokenizer).items() if name not in ("padding", "truncation")}
    rename_tokens(state, built_names(tokenizer))
    return hashlib.sha256(json.dumps(state, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def built_names(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Of each reserved id that was given a name: that name, and the one that it was built with.

    Raises:
        FrozenGlyphError: ``named_tokens`` of the tokenizer_config.json is no mapping of names.
    """
    named = tokenizer.init_kwargs.get(NAMED) or {}
    if not isinstance(named, dict) or not all(isinstance(built, str) for built in named.values()):
        raise FrozenGlyphError(
            f"{NAMED}={named!r} in tokenizer_config.json is no mapping of names; write the folder again"
        )
    tokens = tokenizer.get_vocab() if named else {}
    return {name: built for name, built in named.items() if name in tokens and built not in tokens}


def rename_tokens(state: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename special tokens in the content of a tokenizer.json, in place; ids stay."""
    special = [token for token in state["added_tokens"] if token["special"] and token["content"] in names]
    names = {token["content"]: names[token["content"]] for token in special}
    if not names:
        return
    for token in special:
        token["content"] = names[token["content"]]
    vocab = state["model"]["vocab"]
    if isinstance(vocab, dict):
        state["model"]["vocab"] = {names.get(name, name): token_id for name, token_id in vocab.items()}
    else:  # Unigram has pairs of name and score
        state["model"]["vocab"] = [[names.get(name, name), score] for name, score in vocab]


def _backend_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    if not tokenizer.is_fast:
        raise FrozenGlyphError(f"tokenizer {type(tokenizer).__name__} is not a fast one; it must have a tokenizer.json")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _special_names(tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]) -> set[str]:
    """Names of the tokens that stand for no text, the one for unknown text included."""
    names = {token["content"] for token in state["added_tokens"] if token["special"]}
    names.update(tokenizer.all_special_tokens)
    model = state["model"]
    if model.get("unk_token") is not None:
        names.add(model["unk_token"])
    if model.get("unk_id") is not None:  # Unigram has a number in place of the name
        names.add(model["vocab"][model["unk_id"]][0])
    return names


def _token_reader(backend: Tokenizer, state: dict[str, Any]) -> Callable[[str], Token]:
    """How a token's name is read, by the tokenizer's decoder."""
    decoder = state["decoder"] or {"type": None}
    steps = {step["type"] for step in decoder.get("decoders", [decoder])}
    adds_spaces = decoder["type"] in (None, "WordPiece")  # between tokens that hold none
    prefix = decoder["prefix"] if decoder["type"] == "WordPiece" else state["model"].get("continuing_subword_prefix")

    def read(name: str) -> Token:
        if "ByteFallback" in steps and FALLBACK_BYTE.fullmatch(name):
            return Token(name, "byte")
        if prefix and name.startswith(prefix):
            return Token(name.removeprefix(prefix), "text")
        if adds_spaces:
            return Token(name, "text")
        text = backend.decoder.decode([NEIGHBOUR, name, NEIGHBOUR]).removeprefix(NEIGHBOUR).removesuffix(NEIGHBOUR)
        if "ByteLevel" in steps and "\ufffd" in text:
            return _from_bytes(bytes(BYTE_OF_CHARACTER[character] for character in name))
        return Token(text, "text")

    return read


def _from_bytes(data: bytes) -> Token:
    try:
        return Token(data.decode("utf-8"), "text")
    except UnicodeDecodeError:
        return Token("".join(BYTE_TOKENS[value] for value in data), "byte")
