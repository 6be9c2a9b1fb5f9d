"""Draw tokens: text -> a bitmap of 32x32 pixels.

Layout ``grid``: up to 4 code points stand loss-free at 16x16 in a 2x2 grid, up to 16 in a 4x4 grid of 8x8 cells
(each glyph shrunk by OR), longer texts in a larger grid squeezed onto the 32x32 pixels; always in reading order from
the top left. Byte and special tokens are drawn in inverse video. No code point is ever blank: without a glyph, or with
a blank one, it is its hexadecimal number in a box, and the space is an open box (as in U+2423).

Shapes: N tokens, U different code points.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.substrate.font import Font

CANVAS = 32  # pixels on a side of a token's bitmap
CELL = 16  # of a code point at full size
SMALL_CELL = 8  # of a code point shrunk by half

HEX_DIGITS_3X5 = {
    "0": "### #.# #.# #.# ###", "1": ".#. ##. .#. .#. ###", "2": "### ..# ### #.. ###", "3": "### ..# .## ..# ###",
    "4": "#.# #.# ### ..# ..#", "5": "### #.. ### ..# ###", "6": "### #.. ### #.# ###", "7": "### ..# ..# .#. .#.",
    "8": "### #.# ### #.# ###", "9": "### #.# ### ..# ###", "A": ".#. #.# ### #.# #.#", "B": "##. #.# ##. #.# ##.",
    "C": ".## #.. #.. #.. .##", "D": "##. #.# #.# #.# ##.", "E": "### #.. ##. #.. ###", "F": "### #.. ##. #.. #..",
}  # fmt: skip


class Token(NamedTuple):
    """What a token id stands for: a text, one byte (``text`` is ``<0xNN>``), or a special (``text`` is its name)."""

    text: str
    kind: Literal["text", "byte", "special"]


def draw_tokens_grid(tokens: Sequence[Token], font: Font) -> np.ndarray:
    """Bitmaps of ``tokens`` in layout ``grid``, bool [N, 32, 32]."""
    bitmaps = np.zeros((len(tokens), CANVAS, CANVAS), dtype=bool)
    cells, cell_ids = _cell_bank(tokens, font)
    by_side: dict[int, list[int]] = {}  # code points on a side of the token's grid -> token numbers
    for number, token in enumerate(tokens):
        if token.kind == "byte":
            bitmaps[number] = _byte_picture(int(token.text[3:5], 16))
        elif token.text:
            by_side.setdefault(_grid_side(len(token.text)), []).append(number)
    for side, numbers in by_side.items():
        slots = np.zeros((len(numbers), side * side), dtype=np.int64)  # cell 0 is blank
        for slot, number in zip(slots, numbers, strict=True):
            text = tokens[number].text
            slot[: len(text)] = [cell_ids[character] for character in text]
        bitmaps[numbers] = _squeeze(_tile(cells if side == 2 else shrink(cells), slots, side))
    special = [number for number, token in enumerate(tokens) if token.kind == "special"]
    bitmaps[special] = ~bitmaps[special]
    return bitmaps


LAYOUTS: dict[str, Callable[[Sequence[Token], Font], np.ndarray]] = {"grid": draw_tokens_grid}


def draw_layout(tokens: Sequence[Token], font: Font, layout: str) -> np.ndarray:
    """Bitmaps of ``tokens``, bool [N, 32, 32], in one of ``LAYOUTS``."""
    if layout not in LAYOUTS:
        raise FrozenGlyphError(f"layout {layout!r} is unknown; allowed: {sorted(LAYOUTS)}.{nearest(layout, LAYOUTS)}")
    return LAYOUTS[layout](tokens, font)


def codepoint_cell(font: Font, codepoint: int) -> np.ndarray:
    """The never blank picture of ``codepoint``, bool [16, 8] or [16, 16]."""
    if codepoint == ord(" "):
        return _open_box()
    glyph = font.glyph(codepoint)
    return glyph if glyph is not None and glyph.any() else hex_box(codepoint)


def hex_box(codepoint: int) -> np.ndarray:
    """The number of ``codepoint`` in a box, two rows of two digits (three above U+FFFF), bool [16, 16]."""
    cell = np.zeros((CELL, CELL), dtype=bool)
    cell[[0, -1], :] = True
    cell[:, [0, -1]] = True
    digits = f"{codepoint:04X}" if codepoint <= 0xFFFF else f"{codepoint:06X}"
    per_row = len(digits) // 2
    pitch, left = (6, 4) if per_row == 2 else (4, 3)
    for place, digit in enumerate(digits):
        top, start = 2 + 7 * (place // per_row), left + pitch * (place % per_row)
        cell[top : top + 5, start : start + 3] = _digit(digit)
    return cell


def shrink(cells: np.ndarray) -> np.ndarray:
    """Bool [U, 16, 16] -> [U, 8, 8]: OR of 2x2 pixels, or of pairs of rows where the right half is blank."""
    rows = cells[:, 0::2] | cells[:, 1::2]
    wide = cells[:, :, SMALL_CELL:].any(axis=(1, 2), keepdims=True)
    return np.where(wide, rows[:, :, 0::2] | rows[:, :, 1::2], rows[:, :, :SMALL_CELL])


def _cell_bank(tokens: Sequence[Token], font: Font) -> tuple[np.ndarray, dict[str, int]]:
    """Each code point once: bool [1 + U, 16, 16], of which the first is blank, and the row of each character."""
    characters = sorted(set().union(*(token.text for token in tokens if token.kind != "byte")))
    cells = np.zeros((1 + len(characters), CELL, CELL), dtype=bool)
    for row, character in enumerate(characters, start=1):
        picture = codepoint_cell(font, ord(character))
        cells[row, :, : picture.shape[1]] = picture
    return cells, {character: row for row, character in enumerate(characters, start=1)}


def _grid_side(length: int) -> int:
    return 2 if length <= 4 else max(4, math.ceil(math.sqrt(length)))


def _tile(cells: np.ndarray, slots: np.ndarray, side: int) -> np.ndarray:
    """Cells [U, c, c] at ``slots`` [N, side * side] -> canvases [N, side * c, side * c]."""
    size = cells.shape[-1]
    tiles = cells[slots].reshape(len(slots), side, side, size, size)
    return tiles.transpose(0, 1, 3, 2, 4).reshape(len(slots), side * size, side * size)


def _squeeze(canvases: np.ndarray) -> np.ndarray:
    """OR the pixels of [N, s, s] canvases onto [N, 32, 32]; canvases of that size stay as they are."""
    size = canvases.shape[-1]
    if size == CANVAS:
        return canvases
    starts = np.arange(CANVAS) * size // CANVAS
    return np.logical_or.reduceat(np.logical_or.reduceat(canvases, starts, axis=1), starts, axis=2)


def _digit(digit: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in HEX_DIGITS_3X5[digit].split()])


def _byte_picture(value: int) -> np.ndarray:
    """Two large hexadecimal digits in inverse video, drawn without the font, bool [32, 32]."""
    picture = np.ones((CANVAS, CANVAS), dtype=bool)
    for digit, left in zip(f"{value:02X}", (3, 17), strict=True):
        picture[6:26, left : left + 12] = ~np.kron(_digit(digit), np.ones((4, 4), dtype=bool))
    return picture


def _open_box() -> np.ndarray:
    """A bracket lying on its back below the baseline: the visible space, bool [16, 8]."""
    cell = np.zeros((CELL, SMALL_CELL), dtype=bool)
    cell[11:14, [1, 6]] = cell[13, 1:7] = True
    return cell
