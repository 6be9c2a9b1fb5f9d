"""Make bitmaps injective: tokens that look alike (a/а, A/Α/А) get a deterministic pattern seeded by what they are.

Shapes: V vocabulary, S substrate bits.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.glyphs import Token

PATTERN_PIXELS = 48
MAX_ATTEMPTS = 64


def find_groups(packed_bits: np.ndarray) -> list[list[int]]:
    """Ids of tokens with the same bits, uint8 [V, S // 8], group by group; ids alone in theirs are left out."""
    ids_of: dict[bytes, list[int]] = {}
    for token_id, row in enumerate(packed_bits):
        ids_of.setdefault(row.tobytes(), []).append(token_id)
    return [ids for ids in ids_of.values() if len(ids) > 1]


def separate(packed_bits: np.ndarray, tokens: Sequence[Token]) -> tuple[np.ndarray, list[list[int]]]:
    """Give every token bits of its own.

    In each group of tokens with the same bitmap the lowest id keeps it; the others get about 48 pixels inverted, at
    places that follow from the token's text and kind alone.

    Args:
        packed_bits: uint8 [V, S // 8]; not changed.
        tokens: the V tokens.

    Returns:
        The distinct bits [V, S // 8], and the groups of ids that looked alike before.
    """
    groups = find_groups(packed_bits)
    if not groups:
        return packed_bits, groups
    distinct = packed_bits.copy()
    taken = {row.tobytes() for row in packed_bits}
    for token_id in sorted(token_id for ids in groups for token_id in ids[1:]):
        distinct[token_id] = _free_variant(distinct[token_id], tokens[token_id], taken)
        taken.add(distinct[token_id].tobytes())
    return distinct, groups


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
