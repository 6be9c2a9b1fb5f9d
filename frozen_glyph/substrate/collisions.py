"""Make bitmaps injective: tokens that look alike (a/а, A/Α/А) get a deterministic pattern seeded by what they are."""

import hashlib
from collections.abc import Sequence

import numpy as np

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.glyphs import Token

PATTERN_PIXELS = 48
MAX_ATTEMPTS = 64


def separate(bitmaps: np.ndarray, tokens: Sequence[Token]) -> tuple[np.ndarray, list[list[int]]]:
    """Give every token a bitmap of its own.

    In each group of tokens with the same bitmap the lowest id keeps it; the others get about 48 pixels inverted, at
    places that follow from the token's text and kind alone.

    Args:
        bitmaps: bool [V, 32, 32]; not changed.
        tokens: the V tokens.

    Returns:
        The distinct bitmaps [V, 32, 32], and the groups of ids that looked alike before.
    """
    shape = bitmaps.shape
    packed = np.packbits(bitmaps.reshape(shape[0], -1), axis=1)
    ids_of: dict[bytes, list[int]] = {}
    for token_id, row in enumerate(packed):
        ids_of.setdefault(row.tobytes(), []).append(token_id)
    groups = [ids for ids in ids_of.values() if len(ids) > 1]
    taken = set(ids_of)
    for token_id in sorted(token_id for ids in groups for token_id in ids[1:]):
        packed[token_id] = _free_variant(packed[token_id], tokens[token_id], taken)
        taken.add(packed[token_id].tobytes())
    pixels = shape[1] * shape[2]
    return np.unpackbits(packed, axis=1, count=pixels).reshape(shape).astype(bool), groups


def _free_variant(row: np.ndarray, token: Token, taken: set[bytes]) -> np.ndarray:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        variant = row ^ _pattern(token, attempt, row.size * 8)
        if variant.tobytes() not in taken:
            return variant
    raise FrozenGlyphError(
        f"token {token.text!r} ({token.kind}) looks like another token after {MAX_ATTEMPTS} patterns; "
        "the vocabulary must not hold the same token text many times"
    )


def _pattern(token: Token, attempt: int, pixels: int) -> np.ndarray:
    """Packed bits with at most 48 ones at pseudo-random places, the same on every machine."""
    seed = f"{token.kind}\0{token.text}\0{attempt}".encode()
    numbers = np.frombuffer(hashlib.shake_256(seed).digest(2 * PATTERN_PIXELS), dtype="<u2")
    pattern = np.zeros(pixels, dtype=bool)
    pattern[numbers % pixels] = True
    return np.packbits(pattern)
