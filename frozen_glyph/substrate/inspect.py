"""Look into a substrate: what it holds, which tokens collided, which are near each other, what they look like."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.build import draw_bits
from frozen_glyph.substrate.choices import DRAWN, SubstrateError
from frozen_glyph.substrate.collisions import find_groups
from frozen_glyph.substrate.font import Font, load_font, load_outline_font
from frozen_glyph.substrate.picture import draw_columns, draw_tokens
from frozen_glyph.substrate.vocabulary import list_tokens

CONTROL_NAMES = {"\0": "null", "\t": "tab", "\n": "newline", "\r": "carriage return", " ": "space"}
CHUNK = 8192  # tokens compared at a time


class CollisionGroup(NamedTuple):
    """Tokens that look the same as drawn."""

    name: str
    ids: list[int]
    texts: list[str]


def describe(substrate: GlyphSubstrate) -> dict[str, Any]:
    """Sizes, identity, layout, font, collisions, coverage by script and smallest distance, as plain JSON data."""
    made = substrate.provenance
    tensors = substrate.as_embedding().state_dict().values()
    collisions = made.get("collisions", {})
    return {
        "fingerprint": substrate.fingerprint,
        "tokenizer_sha256": made["tokenizer_sha256"],
        "layout": made.get("layout"),
        "whiten": made.get("whiten", "none"),
        "scale": substrate.scale,
        "font": made.get("font"),
        "vocab_size": substrate.vocab_size,
        "bits": substrate.bits,
        "width": substrate.width,
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "bytes_as_float32_table": 4 * substrate.vocab_size * substrate.width,
        "collisions": {
            **collisions,
            "first_groups": [
                group_name([str(token[-1]) for token in group if token]) for group in collisions.get("first_groups", [])
            ],
        },
        "smallest_distance": made.get("smallest_distance"),
        "coverage": made.get("coverage"),
    }


def collision_groups(substrate: GlyphSubstrate, font: Font | None = None) -> list[CollisionGroup]:
    """All groups of tokens that ``font`` draws alike in the substrate's layout, before any is separated.

    Args:
        font: the one that the substrate was built with; None means GNU Unifont.

    Raises:
        SubstrateError: the font is another one.
    """
    made = substrate.provenance
    if made.get("layout") not in DRAWN:
        return []
    font = font or (load_outline_font() if made["layout"] == "published" else load_font())
    if font.provenance() != made.get("font"):
        raise SubstrateError(
            f"font {font.name!r} has sha256 {font.sha256}, but the substrate was drawn with {made.get('font')}; give "
            "the latter's file"
        )
    tokens = list_tokens(substrate.tokenizer, as_built=True)
    groups = find_groups(draw_bits(tokens, font, made["layout"], substrate.bits))
    texts = [[tokens[token_id].text for token_id in ids] for ids in groups]
    return [CollisionGroup(group_name(group), ids, group) for ids, group in zip(groups, texts, strict=True)]


def group_name(texts: list[str]) -> str:
    """The tokens of a group in words: ``a (U+0061) = а (U+0430)``, ``space (U+0020) = newline (U+000A)``."""
    return " = ".join(_token_name(text) for text in texts)


def neighbors(substrate: GlyphSubstrate, token: int | str, k: int = 10) -> list[tuple[int, str, float]]:
    """The ``k`` tokens nearest to ``token``, nearest first, as (id, text, cosine).

    Args:
        token: an id, the text of a token, or a text that the tokenizer makes one token of.
    """
    token_id = _token_id(substrate, token)
    embedding = substrate.as_embedding()
    embedding.scale = 1.0  # products of unit vectors are cosines
    query = embedding.compute(torch.tensor([token_id]))[0]
    chunks = torch.arange(substrate.vocab_size).split(CHUNK)
    cosines = torch.cat([embedding.compute(chunk) @ query for chunk in chunks])
    cosines[token_id] = -torch.inf
    order = np.argsort(-cosines.numpy(), kind="stable")[: min(k, substrate.vocab_size - 1)]
    texts = [token.text for token in list_tokens(substrate.tokenizer)]
    return [(int(other), texts[other], round(float(cosines[other]), 6)) for other in order]


def show(
    substrate: GlyphSubstrate, text: str, scale: int = 4, columns: int = 8, font: Font | None = None
) -> Image.Image:
    """The tokens of ``text`` as a labelled picture; ``font`` (default: GNU Unifont) draws the labels."""
    ids = substrate.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise SubstrateError("text has no tokens, so there is nothing to show; give a text that is not empty")
    return draw_tokens(substrate, ids, scale, columns, font)


def show_neighbors(
    substrates: Mapping[str, GlyphSubstrate], tokens: Sequence[str], k: int = 4, font: Font | None = None
) -> Image.Image:
    """Some tokens, a row each, beside their ``k`` nearest in each of ``substrates``, which differ in geometry alone."""
    first = next(iter(substrates.values()))
    columns = {"token": [[_token_id(first, token)] for token in tokens]}
    for heading, substrate in substrates.items():
        columns[heading] = [[other for other, _, _ in neighbors(substrate, token, k)] for token in tokens]
    return draw_columns(first, columns, font=font)


def _token_id(substrate: GlyphSubstrate, token: int | str) -> int:
    if isinstance(token, int):
        if not 0 <= token < substrate.vocab_size:
            raise SubstrateError(f"token id {token} does not exist; give 0 to {substrate.vocab_size - 1}, or a text")
        return token
    texts = [known.text for known in list_tokens(substrate.tokenizer)]
    if token in texts:
        return texts.index(token)
    ids = substrate.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        parts = [texts[token_id] for token_id in ids]
        raise SubstrateError(f"text {token!r} is {len(ids)} tokens ({parts}); give one of them, or an id")
    return ids[0]


def _token_name(text: str) -> str:
    if len(text) != 1:
        return repr(text)
    name = CONTROL_NAMES.get(text) or (text if text.isprintable() else unicodedata.name(text, "unnamed").lower())
    return f"{name} (U+{ord(text):04X})"
