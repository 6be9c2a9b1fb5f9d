"""Layout ``grid``: text -> a bitmap of 32x32 or 64x64 pixels.

Up to 4 code points stand loss-free in a 2x2 grid (16x16 pixels each; on 64x64, every pixel doubled), up to 16 in a 4x4
grid (shrunk to 8x8 by OR; on 64x64 loss-free at 16x16), longer texts in a larger grid of such cells squeezed onto the
bitmap; always in reading order from the top left. Bytes (two hexadecimal digits each) and specials are in inverse
video. No code point is ever blank: without a glyph, or with a blank one, it is its hexadecimal number in a box, and the
space is an open box (as in U+2423).

Shapes: N tokens, U different code points, side = 32 or 64 pixels.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from frozen_glyph.substrate.choices import CANVAS
from frozen_glyph.substrate.font import Font

CELL = 16  # of a code point at full size
SMALL_CELL = 8  # of a code point shrunk by half

HEX_DIGITS_3X5 = {
    "0": "### #.# #.# #.# ###", "1": ".#. ##. .#. .#. ###", "2": "### ..# ### #.. ###", "3": "### ..# .## ..# ###",
    "4": "#.# #.# ### ..# ..#", "5": "### #.. ### ..# ###", "6": "### #.. ### #.# ###", "7": "### ..# ..# .#. .#.",
    "8": "### #.# ### #.# ###", "9": "### #.# ### ..# ###", "A": ".#. #.# ### #.# #.#", "B": "##. #.# ##. #.# ##.",
    "C": ".## #.. #.. #.. .##", "D": "##. #.# #.# #.# ##.", "E": "### #.. ##. #.. ###", "F": "### #.. ##. #.. #..",
}  # fmt: skip


class Token(NamedTuple):
    """What a token id stands for: a text, a byte (``text`` is ``<0xNN>``, several in a row), or a special's name."""

    text: str
    kind: Literal["text", "byte", "special"]


def draw_tokens_grid(tokens: Sequence[Token], font: Font, side: int = CANVAS) -> np.ndarray:
    """Bitmaps of ``tokens``, bool [N, side, side]."""
    bitmaps = np.zeros((len(tokens), side, side), dtype=bool)
    cells, row_of = _cell_bank(tokens, font)
    text_rows: dict[int, list[int]] = {}  # number of the token -> its cells
    byte_rows: dict[int, list[int]] = {}
    for number, token in enumerate(tokens):
        values = _byte_values(token)
        if len(values) == 1:
            bitmaps[number] = _enlarge(_byte_picture(values[0]), side // CANVAS)
        elif values:
            byte_rows[number] = [1 + value for value in values]
        else:
            text_rows[number] = [row_of[character] for character in token.text]
    _draw_cells(bitmaps, text_rows, cells, shrink(cells))
    _draw_cells(bitmaps, byte_rows, _byte_bank(CELL), _byte_bank(SMALL_CELL))
    inverse = [number for number, token in enumerate(tokens) if token.kind == "special" or number in byte_rows]
    bitmaps[inverse] = ~bitmaps[inverse]
    return bitmaps


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


def _draw_cells(bitmaps: np.ndarray, rows: dict[int, list[int]], cells: np.ndarray, small_cells: np.ndarray) -> None:
    """Draw on ``bitmaps[number]`` the cells ``rows[number]``, from [U, 16, 16] or [U, 8, 8], of which 0 is blank."""
    side = bitmaps.shape[-1]
    full_size = _enlarge(cells, side // CANVAS)
    half_size = small_cells if side == CANVAS else cells
    by_columns: dict[int, list[int]] = {}  # cells on a side of the token's grid -> token numbers
    for number, cell_rows in rows.items():
        by_columns.setdefault(_grid_columns(len(cell_rows)), []).append(number)
    for columns, numbers in by_columns.items():
        slots = np.zeros((len(numbers), columns * columns), dtype=np.int64)
        for slot, number in zip(slots, numbers, strict=True):
            slot[: len(rows[number])] = rows[number]
        bitmaps[numbers] = _squeeze(_tile(full_size if columns == 2 else half_size, slots, columns), side)


def _grid_columns(length: int) -> int:
    return 2 if length <= 4 else max(4, math.ceil(math.sqrt(length)))


def _enlarge(bitmaps: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel of [..., h, w] becomes ``scale`` x ``scale``."""
    return bitmaps if scale == 1 else bitmaps.repeat(scale, axis=-2).repeat(scale, axis=-1)


def _tile(cells: np.ndarray, slots: np.ndarray, columns: int) -> np.ndarray:
    """Cells [U, c, c] at ``slots`` [N, columns * columns] -> canvases [N, columns * c, columns * c]."""
    size = cells.shape[-1]
    tiles = cells[slots].reshape(len(slots), columns, columns, size, size)
    return tiles.transpose(0, 1, 3, 2, 4).reshape(len(slots), columns * size, columns * size)


def _squeeze(canvases: np.ndarray, side: int) -> np.ndarray:
    """OR the pixels of [N, s, s] canvases onto [N, side, side]; canvases of that size stay as they are."""
    size = canvases.shape[-1]
    if size == side:
        return canvases
    starts = np.arange(side) * size // side
    return np.logical_or.reduceat(np.logical_or.reduceat(canvases, starts, axis=1), starts, axis=2)


def _digit(digit: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in HEX_DIGITS_3X5[digit].split()])


def _byte_values(token: Token) -> bytes:
    """The bytes that a token of kind ``byte`` stands for; none for other kinds."""
    return bytes.fromhex(token.text.replace("<0x", "").replace(">", "")) if token.kind == "byte" else b""


def _byte_picture(value: int) -> np.ndarray:
    """Two large hexadecimal digits in inverse video, drawn without the font, bool [32, 32]."""
    picture = np.ones((CANVAS, CANVAS), dtype=bool)
    for digit, left in zip(f"{value:02X}", (3, 17), strict=True):
        picture[6:26, left : left + 12] = ~_enlarge(_digit(digit), 4)
    return picture


def _byte_bank(size: int) -> np.ndarray:
    """A blank cell, then each byte as two hexadecimal digits: bool [257, size, size]."""
    cells = np.zeros((257, size, size), dtype=bool)
    scale = size // SMALL_CELL
    for value in range(256):
        for place, digit in enumerate(f"{value:02X}"):
            left = scale * 4 * place
            cells[1 + value, scale : scale * 6, left : left + scale * 3] = _enlarge(_digit(digit), scale)
    return cells


def _open_box() -> np.ndarray:
    """A bracket lying on its back below the baseline: the visible space, bool [16, 8]."""
    cell = np.zeros((CELL, SMALL_CELL), dtype=bool)
    cell[11:14, [1, 6]] = cell[13, 1:7] = True
    return cell
