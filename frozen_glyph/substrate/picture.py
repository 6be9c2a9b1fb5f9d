"""Pictures of tokens for people: glyph bitmaps in a grid of cards, each with its id and its text.

Labels are drawn with the font's own 16-pixel glyphs, so no other font is needed.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.choices import CANVAS
from frozen_glyph.substrate.font import Font, load_font
from frozen_glyph.substrate.glyphs import CELL, codepoint_cell
from frozen_glyph.substrate.vocabulary import list_tokens

Color = tuple[int, int, int]

PAGE: Color = (246, 247, 249)
CARD: Color = (255, 255, 255)
BORDER: Color = (208, 213, 221)
ID_INK: Color = (134, 142, 156)
INK: dict[str, Color] = {"text": (27, 38, 59), "byte": (15, 118, 110), "special": (159, 58, 56)}
GUIDE: Color = (236, 239, 244)  # the lines between the four quarters
PADDING, GAP, LINE = 8, 10, 20
ESCAPES = {" ": "␣", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def draw_tokens(
    substrate: GlyphSubstrate, ids: Sequence[int], scale: int = 4, columns: int = 8, font: Font | None = None
) -> Image.Image:
    """Draw the tokens ``ids`` in rows of ``columns`` cards: bitmap, id and escaped text.

    A bitmap of 32x32 is enlarged ``scale`` times, another one by the whole number that fills about the same area.
    Text tokens are dark, bytes green, specials red; ``font`` (default: GNU Unifont) draws the labels.
    """
    font = font or load_font()
    tokens = list_tokens(substrate.tokenizer)
    columns = max(1, min(columns, len(ids)))
    bitmaps = substrate.bitmaps(ids)
    pixel = max(1, CANVAS * scale // bitmaps.shape[2])
    side = max(CANVAS * scale, bitmaps.shape[2])
    card_width, card_height = side + 2 * PADDING, side + 2 * PADDING + 2 * LINE
    rows = math.ceil(len(ids) / columns)
    page = np.empty((GAP + rows * (card_height + GAP), GAP + columns * (card_width + GAP), 3), dtype=np.uint8)
    page[:] = PAGE
    for place, (token_id, bitmap) in enumerate(zip(ids, bitmaps, strict=True)):
        token = tokens[token_id]
        top, left = (
            GAP + (place // columns) * (card_height + GAP),
            GAP + (place % columns) * (card_width + GAP),
        )
        card = page[top : top + card_height, left : left + card_width]
        card[:] = BORDER
        card[1:-1, 1:-1] = CARD
        _paint_bitmap(card[PADDING : PADDING + side, PADDING : PADDING + side], bitmap, pixel, INK[token.kind])
        text = "".join(ESCAPES.get(character, character) for character in token.text)
        _paint_label(card, str(token_id), side + 2 * PADDING - 2, ID_INK, font)
        _paint_label(card, text, side + 2 * PADDING - 2 + LINE, INK[token.kind], font)
    return Image.fromarray(page)


def draw_columns(
    substrate: GlyphSubstrate,
    columns: Mapping[str, Sequence[Sequence[int]]],
    scale: int = 2,
    font: Font | None = None,
) -> Image.Image:
    """Draw groups of columns side by side, each under its heading: of every group a list of token ids for each row."""
    font = font or load_font()
    groups = []
    for heading, rows in columns.items():
        ids = [token_id for row in rows for token_id in row]
        cards = np.asarray(draw_tokens(substrate, ids, scale, len(rows[0]), font))
        group = np.empty((cards.shape[0] + LINE, cards.shape[1], 3), dtype=np.uint8)
        group[:] = PAGE
        group[LINE:] = cards
        _paint_label(group, heading, PADDING // 2, INK["text"], font)
        groups.append(group)
    return Image.fromarray(np.concatenate(groups, axis=1))


def token_picture_png(
    substrate: GlyphSubstrate, ids: Sequence[int], scale: int = 4, columns: int = 8, font: Font | None = None
) -> bytes:
    """``draw_tokens`` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    draw_tokens(substrate, ids, scale, columns, font).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _paint_bitmap(area: np.ndarray, bitmap: np.ndarray, pixel: int, ink: Color) -> None:
    enlarged = np.kron(bitmap, np.ones((pixel, pixel), dtype=bool))
    height, width = enlarged.shape
    area[height // 2 - 1 : height // 2 + 1, :width] = area[:height, width // 2 - 1 : width // 2 + 1] = GUIDE
    area[:height, :width][enlarged] = ink


def _paint_label(card: np.ndarray, text: str, top: int, ink: Color, font: Font) -> None:
    """Write ``text`` centred in the card at row ``top``, cut with an ellipsis where it is too long."""
    room = card.shape[1] - 2 * PADDING
    cells = [codepoint_cell(font, ord(character)) for character in text]
    if sum(cell.shape[1] for cell in cells) > room:
        ellipsis = codepoint_cell(font, ord("…"))
        while cells and sum(cell.shape[1] for cell in cells) + ellipsis.shape[1] > room:
            cells.pop()
        cells.append(ellipsis)
    if cells:
        line = np.concatenate(cells, axis=1)
        left = (card.shape[1] - line.shape[1]) // 2
        card[top : top + CELL, left : left + line.shape[1]][line] = ink
