"""Build the tensors of a substrate: tokens -> packed bits -> centre and, where the geometry asks for it, a projection.

Shapes: V vocabulary, S substrate bits, D width.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from frozen_glyph.errors import nearest
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE, FrozenGlyphEmbedding
from frozen_glyph.substrate.choices import (
    CANVAS,
    CODES,
    DRAWN,
    LARGE_BITS,
    LAYOUTS,
    WHITENING,
    SubstrateError,
    choose_bits,
    choose_scale,
    choose_whitening,
    choose_width,
    function_of,
)
from frozen_glyph.substrate.codes import named_code, random_rotation
from frozen_glyph.substrate.collisions import find_groups, separate
from frozen_glyph.substrate.font import Font, load_font, load_outline_font
from frozen_glyph.substrate.glyphs import Token
from frozen_glyph.substrate.projection import (
    bit_center,
    bit_covariance,
    check_exact,
    check_squares,
    first_repeat,
    principal_directions,
    sampled,
    smallest_distance,
    to_int8,
    whitened,
)
from frozen_glyph.substrate.published import open_outlines, renderer_versions
from frozen_glyph.substrate.reserved import is_reserved
from frozen_glyph.substrate.scripts import coverage

logger = logging.getLogger(__name__)

PAIRS_LIMIT = 16_384  # largest vocabulary whose pairs are all measured, which takes a few seconds
GROUPS_KEPT = 100  # collision groups listed in the provenance
CHUNK = 8192  # tokens drawn at a time


class SubstrateTensors(NamedTuple):
    """What is stored of a substrate, and how it came about."""

    packed_bits: torch.Tensor  # uint8 [V, S // 8]
    center: torch.Tensor  # uint8 [S]
    projection: torch.Tensor | None  # int8 [S, min(S, D)], or None
    gain: torch.Tensor | None  # int32 [min(S, D)], or None
    facts: dict[str, Any]  # plain JSON data


class Choices(NamedTuple):
    """What a substrate is to be, as far as it does not depend on its tokens."""

    bits: int
    width: int
    font: Font | None
    whiten: str
    scale: float


def choose(
    ids: int,
    width: int | None,
    layout: str,
    font: Font | None,
    bits: int | None,
    pca: bool,
    whiten: str | None,
    scale: float | None,
) -> Choices:
    """What is asked for of ``ids`` tokens or more, with defaults; ``FrozenGlyphError`` names what cannot be."""
    if layout == "trainable":
        raise SubstrateError(
            "layout 'trainable' is an embedding without a substrate, so there is nothing to build: it is set where a "
            "model is made, as substrate.layout in a growth recipe or substrate_trainable in a FrozenGlyphConfig"
        )
    if layout not in LAYOUTS:
        raise SubstrateError(f"layout {layout!r} is unknown; allowed: {sorted(LAYOUTS)}.{nearest(layout, LAYOUTS)}")
    if layout in CODES and font is not None:
        raise SubstrateError(f"layout {layout!r} draws nothing, so font {font.name!r} cannot be used; leave it out")
    bits = choose_bits(layout, width, bits, ids)
    width = choose_width(width, bits)
    if pca and layout == "float":
        raise SubstrateError("layout 'float' has a rotation of its own, so pca cannot be used; leave it out")
    if pca and width > bits:
        raise SubstrateError(f"pca rotates vectors no wider than their {bits} bits, not {width}; leave one of both out")
    whiten = choose_whitening(layout, whiten, bits)
    if layout in DRAWN:
        font = font or (load_outline_font() if layout == "published" else load_font())
        if layout == "published":
            open_outlines(font, CANVAS)  # raises where they cannot be drawn
    return Choices(bits, width, font, whiten, choose_scale(width, whiten, scale))


def build_tensors(
    tokens: Sequence[Token],
    width: int | None,
    layout: str,
    font: Font | None,
    bits: int | None,
    seed: int,
    pca: bool = False,
    whiten: str | None = None,
    scale: float | None = None,
) -> SubstrateTensors:
    """Bits of all ``tokens`` in ``layout`` and what makes them vectors of ``width``; see ``GlyphSubstrate.build``."""
    bits, width, font, whiten, scale = choose(len(tokens), width, layout, font, bits, pca, whiten, scale)
    groups: list[list[int]] = []  # of tokens that looked alike and were told apart
    if font is not None:
        packed = draw_bits(tokens, font, layout, bits)
        if layout == "grid":
            packed, groups = separate(packed, tokens)
        packed_bits = torch.from_numpy(packed)
        center = bit_center(packed_bits)
    else:
        packed = function_of(layout)(len(tokens), bits, seed)
        packed_bits = torch.from_numpy(packed)
        center = torch.full((bits,), CENTER_SCALE // 2, dtype=torch.uint8)
    shared = find_groups(packed) if layout != "grid" else []  # where ``separate`` has seen to it
    if shared and layout != "published":
        raise SubstrateError(
            f"layout {layout!r} with bits={bits} gives tokens {shared[0]} the same bits; ask for more bits"
        )
    projection = gain = None
    if whiten != "none":
        directions, variances = principal_directions(bit_covariance(sampled(packed_bits)))
        projection, gain = whitened(directions[:, :width], variances, WHITENING[whiten])
    elif layout == "float":
        projection = to_int8(random_rotation(bits, seed)[:, :width])
    elif pca or width < bits:
        projection = to_int8(principal_directions(bit_covariance(packed_bits))[0][:, :width])
    check_exact(center, projection)
    embedding = make_embedding(packed_bits, center, projection, min(width, bits), gain)
    check_squares(embedding)
    # Without a projection, the sign of each element shows its bit, so distinct bits are distinct vectors.
    later = {token_id for ids in shared for token_id in ids[1:]}
    distinct = torch.tensor([token_id for token_id in range(len(tokens)) if token_id not in later])
    if projection is not None and (repeat := first_repeat(embedding, distinct)):
        names = " and ".join(f"{token_id} {tokens[token_id].text!r}" for token_id in repeat)
        raise SubstrateError(
            f"width {width} is too small: tokens {names} get the same vector; give a larger width, at most {bits}"
        )
    if shared:
        logger.warning("layout %r leaves %d tokens with the vector of another, as published", layout, len(later))
    facts: dict[str, Any] = {
        "layout": layout,
        "font": font.provenance() if font is not None else None,
        "vocab_size": len(tokens),
        "bits": bits,
        "width": width,
        **({"whiten": whiten} if whiten != "none" else {}),
        **({"scale": scale} if scale != 1 else {}),
        "collisions": {
            "groups": len(groups or shared),
            "tokens_resolved": sum(len(ids) - 1 for ids in groups),
            "remaining": len(later),
            "first_groups": [
                [[token_id, tokens[token_id].text] for token_id in ids] for ids in (groups or shared)[:GROUPS_KEPT]
            ],
        },
        # Of unit vectors; rounded, because machines differ in the last digits of a float sum.
        "smallest_distance": 0.0 if shared else _smallest_distance(embedding),
        "coverage": coverage(tokens, font),
    }
    if layout in ("random", "float"):
        facts["seed"] = seed
    if layout == "published":
        facts["renderer"] = renderer_versions()
    return SubstrateTensors(packed_bits, center, projection, gain, facts)


def draw_bits(tokens: Sequence[Token], font: Font, layout: str, bits: int) -> np.ndarray:
    """Bitmaps of ``tokens`` as drawn, packed row by row, high bit first: uint8 [V, S // 8].

    A reserved token, whose meaning is not known yet, gets a code of its name: pictures of names that differ in a number
    alone lie so close together (cosines of 0.997 and more) that a model could hardly tell them apart.
    """
    side = 2 * CANVAS if bits == LARGE_BITS else CANVAS
    draw = function_of(layout)
    drawn = [
        np.packbits(draw(tokens[start : start + CHUNK], font, side).reshape(-1, bits), axis=1)
        for start in range(0, len(tokens), CHUNK)
    ]
    packed = np.concatenate(drawn)
    for token_id, token in enumerate(tokens):
        if is_reserved(token):
            packed[token_id] = named_code(token.text, bits)
    return packed


def make_embedding(
    packed_bits: torch.Tensor,
    center: torch.Tensor,
    projection: torch.Tensor | None,
    width: int,
    gain: torch.Tensor | None = None,
    scale: float = 1.0,
) -> FrozenGlyphEmbedding:
    """The torch module that a model uses, holding these tensors."""
    embedding = FrozenGlyphEmbedding(packed_bits.shape[0], width, center.shape[0], scale=scale)
    tensors = {"packed_bits": packed_bits, "center": center, "projection": projection, "gain": gain}
    for name, tensor in tensors.items():
        embedding.register_buffer(name, tensor)
    return embedding


def _smallest_distance(embedding: FrozenGlyphEmbedding) -> float | None:
    measured = embedding.num_embeddings <= PAIRS_LIMIT
    return round(smallest_distance(embedding.weight), 5) if measured else None
