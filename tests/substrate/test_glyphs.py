"""Grid pictures: loss-free cells, shrinking, hexadecimal boxes, inverse video; against a slow obvious reference."""

import math

import numpy as np
import pytest

from frozen_glyph.substrate.glyphs import Token, codepoint_cell, draw_tokens_grid, hex_box


def reference(token, font, side):
    """The layout one pixel at a time."""
    columns = 2 if len(token.text) <= 4 else max(4, math.ceil(math.sqrt(len(token.text))))
    size = side // 2 if columns == 2 else side // 4
    canvas = np.zeros((columns * size, columns * size), dtype=bool)
    for place, character in enumerate(token.text):
        cell = codepoint_cell(font, ord(character))
        narrow = not cell[:, 8:].any()
        top, left = size * (place // columns), size * (place % columns)
        for y, x in np.argwhere(cell):
            if size == 8:
                canvas[top + y // 2, left + (x if narrow else x // 2)] = True
            elif size == 16:
                canvas[top + y, left + x] = True
            else:
                canvas[top + 2 * y : top + 2 * y + 2, left + 2 * x : left + 2 * x + 2] = True
    picture = np.zeros((side, side), dtype=bool)
    for row in range(side):
        for column in range(side):
            scale = columns * size
            top, left = row * scale // side, column * scale // side
            bottom, right = (row + 1) * scale // side, (column + 1) * scale // side
            picture[row, column] = canvas[top:bottom, left:right].any()
    return ~picture if token.kind == "special" else picture


def draw(font, *tokens):
    return draw_tokens_grid(tokens, font)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize(
    "text", ["a", "猫", "cat ", "a猫b", "坐在垫子", "hat on", "The cat sat on", "a" * 16, "猫ab " * 9, "o" * 150]
)
def test_matches_the_reference(font, text, side):
    tokens = [Token(text, "text"), Token(text, "special")]
    for token, picture in zip(tokens, draw_tokens_grid(tokens, font, side), strict=True):
        np.testing.assert_array_equal(picture, reference(token, font, side))


def test_large_pictures_hold_sixteen_code_points_without_loss(font):
    picture = draw_tokens_grid([Token("坐在垫子a", "text")], font, 64)[0]
    for place, character in enumerate("坐在垫子a"):
        glyph = font.glyph(ord(character))
        top, left = 16 * (place // 4), 16 * (place % 4)
        np.testing.assert_array_equal(picture[top : top + 16, left : left + glyph.shape[1]], glyph)


def test_up_to_four_code_points_are_loss_free_in_reading_order(font):
    picture = draw(font, Token("a猫 b", "text"))[0]
    np.testing.assert_array_equal(picture[:16, :8], font.glyph(ord("a")))
    np.testing.assert_array_equal(picture[:16, 16:], font.glyph(ord("猫")))
    np.testing.assert_array_equal(picture[16:, :8], codepoint_cell(font, ord(" ")))
    np.testing.assert_array_equal(picture[16:, 16:24], font.glyph(ord("b")))


def test_no_character_is_drawn_blank(font):
    for character in (" ", "\n", "\0", "\u3000", "\ue000", "\U0001f600", "."):
        assert draw(font, Token(character, "text"))[0].any(), character


def test_missing_and_blank_glyphs_are_numbers_in_a_box(font):
    np.testing.assert_array_equal(codepoint_cell(font, 0x0A), hex_box(0x0A))
    assert codepoint_cell(font, ord(" ")).shape == (16, 8)
    codepoints = (*range(0, 0x10000, 17), *range(0x1F000, 0x1F400))
    assert len({hex_box(codepoint).tobytes() for codepoint in codepoints}) == len(codepoints)
    for codepoint in (0x0378, 0x1F9FF, 0x10FFFF):
        box = hex_box(codepoint)
        assert box[[0, -1]].all() and box[:, [0, -1]].all()
        assert not box[1].any(where=np.arange(16) % 15 != 0)
    assert "".join(".#"[pixel] for pixel in hex_box(0x0378)[2].astype(int)) == "#...###...###..#"


def test_byte_tokens_are_distinct_and_inverse_and_need_no_font(font):
    tokens = [Token(f"<0x{value:02X}>", "byte") for value in range(256)]
    pictures = draw(font, *tokens)
    assert len({picture.tobytes() for picture in pictures}) == 256
    assert pictures[:, 0].all() and pictures.mean() > 0.5
    text, byte = draw(font, Token("<0x41>", "text"), Token("<0x41>", "byte"))
    assert not np.array_equal(text, byte)


@pytest.mark.parametrize("side", [32, 64])
def test_tokens_of_several_bytes_show_each_of_them(font, side):
    texts = ["<0xE2>", "<0xE2><0x96>", "<0x96><0xE2>", "<0xE2><0x96><0x81>", "<0x96>" * 5, "<0x96>" * 6]
    pictures = draw_tokens_grid([Token(text, "byte") for text in texts], font, side)
    assert len({picture.tobytes() for picture in pictures}) == len(texts)
    assert all(picture.mean() > 0.5 for picture in pictures)
    half = side // 2
    np.testing.assert_array_equal(pictures[1][:half, :half], pictures[3][:half, :half])
    np.testing.assert_array_equal(pictures[1][:half, half:], pictures[2][:half, :half])


def test_special_tokens_are_their_text_inverted(font):
    special, text = draw(font, Token("<pad>", "special"), Token("<pad>", "text"))
    np.testing.assert_array_equal(special, ~text)
