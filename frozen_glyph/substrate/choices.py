"""What may be asked of a substrate: the table of layouts, and how many ids, bits and which lengths; without torch."""

import math
import pkgutil
from collections.abc import Callable
from typing import Any

from frozen_glyph.errors import FrozenGlyphError

# Layouts and the functions that make their bits, which load when they are needed. Drawn: (tokens, font, side of the
# canvas) -> bool [tokens, side, side]; codes: (ids, bits, seed) -> uint8 [ids, bits // 8].
DRAWN = {"grid": "glyphs:draw_tokens_grid", "published": "published:draw_tokens_published"}
CODES = {"binary": "codes:binary_code", "random": "codes:random_code", "float": "codes:float_code"}
LAYOUTS = (*DRAWN, *CODES)
CANVAS = 32  # pixels on a side of a token's bitmap, or twice as many
SMALL_BITS, LARGE_BITS = CANVAS**2, (2 * CANVAS) ** 2  # of a drawn token: 32x32 or 64x64
WHITENING = {"none": 0.0, "partial": 0.5, "full": 1.0}  # of a component's standard deviation: what divides it
VOCABULARIES = {"compact": 4096, "bmp": 0x10000, "wide": 0x20000}  # ids of each
MOST_IDS = 2**24  # memory follows the ids that are asked for, whatever the text yields


class SubstrateError(FrozenGlyphError):
    """A substrate cannot be built as asked, or a substrate folder is missing or damaged."""


def function_of(layout: str) -> Callable[..., Any]:
    """The function that makes the bits of ``layout``."""
    return pkgutil.resolve_name(f"{__package__}.{(DRAWN | CODES)[layout]}")


def binary_bits(vocab_size: int) -> int:
    """Bits that number ``vocab_size`` ids, in whole bytes: 16 for 65,536."""
    return max(8, -(-(vocab_size - 1).bit_length() // 8) * 8)


def choose_bits(layout: str, width: int | None, bits: int | None, vocab_size: int) -> int:
    """Bits of a token: as asked for where ``layout`` allows it, else what suits ``width`` best.

    Drawn tokens have 1024, which multiples of 1024 repeat; 4096 for multiples of 4096, and for widths above 1024 that
    repetition cannot fill.
    """
    if layout in DRAWN:
        if bits not in (None, SMALL_BITS, LARGE_BITS):
            raise SubstrateError(f"bits={bits} is not allowed for layout {layout!r}; give {SMALL_BITS} or {LARGE_BITS}")
        fills = width is None or width <= SMALL_BITS or (width % SMALL_BITS == 0 and width % LARGE_BITS > 0)
        return bits or (SMALL_BITS if fills else LARGE_BITS)
    least = binary_bits(vocab_size)
    chosen = bits if bits is not None else least if layout == "binary" else SMALL_BITS
    if chosen < least or chosen % 8:
        raise SubstrateError(
            f"bits={chosen} is not allowed: {vocab_size} tokens need a multiple of 8 bits from {least} on"
        )
    return chosen


def choose_width(width: int | None, bits: int) -> int:
    """``width``, or ``bits`` when it is None; ``SubstrateError`` unless projecting or repeating the bits gives it."""
    if width is None:
        return bits
    if width < 8 or width % (8 if width <= bits else bits):
        raise SubstrateError(
            f"width {width} is not allowed for {bits} bits a token; give a multiple of 8 from 8 to {bits} (projected), "
            f"or a multiple of {bits} (repeated), or another number of bits"
        )
    return width


def choose_whitening(layout: str, whiten: str | None, bits: int) -> str:
    """How far the principal components of ``layout`` are whitened: as asked for, else fully those of ``grid``.

    Pictures of 64x64 are left as they are: nothing was measured on them.
    """
    if whiten is None:
        return "full" if layout == "grid" and bits == SMALL_BITS else "none"
    if whiten not in WHITENING:
        raise SubstrateError(f"whiten={whiten!r} is not known; allowed: {', '.join(WHITENING)}")
    if whiten != "none" and layout in CODES:
        raise SubstrateError(f"layout {layout!r} is a code, which has nothing to whiten; leave whiten={whiten!r} out")
    return whiten


def choose_scale(width: int, whiten: str, scale: float | None) -> float:
    """Length of the vectors: as asked for, else 1, and so long for whitened ones that a number is 1/4 on average."""
    if scale is None:
        return 1.0 if whiten == "none" else math.sqrt(width) / 4
    if not 0 < scale < math.inf:
        raise SubstrateError(f"scale={scale} is not allowed; give a positive length of a vector")
    return float(scale)
