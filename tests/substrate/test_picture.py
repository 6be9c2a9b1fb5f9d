"""Labelled pictures of tokens: size, pixels, PNG bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.picture import CARD, GAP, INK, PADDING, draw_tokens, token_picture_png


@pytest.fixture(scope="module")
def substrate(tokenizer, font):
    return GlyphSubstrate.build(tokenizer, width=64, font=font)


def test_every_pixel_of_a_bitmap_is_enlarged(substrate, font):
    token_id = substrate.tokenizer.get_vocab()["猫"]
    picture = np.asarray(draw_tokens(substrate, [0, token_id], scale=3, font=font))
    left = GAP + (96 + 2 * PADDING + GAP) + PADDING
    area = picture[GAP + PADDING : GAP + PADDING + 96, left : left + 96]
    drawn = (area == INK["text"]).all(axis=-1)
    np.testing.assert_array_equal(drawn, substrate.bitmaps([token_id])[0].repeat(3, axis=0).repeat(3, axis=1))
    assert (picture[GAP + 2, left] == CARD).all()


def test_cards_wrap_and_kinds_have_their_colours(substrate, font):
    one_row = draw_tokens(substrate, range(4), columns=4, font=font)
    two_rows = draw_tokens(substrate, range(8), columns=4, font=font)
    assert two_rows.width == one_row.width and two_rows.height - GAP == 2 * (one_row.height - GAP)
    colours = {tuple(colour) for colour in np.asarray(draw_tokens(substrate, [0, 3, 300], font=font)).reshape(-1, 3)}
    assert set(INK.values()) <= colours


def test_labels_too_long_for_a_card_stay_inside(substrate, font):
    narrow = draw_tokens(substrate, [3, 4], scale=1, font=font)
    assert narrow.width == 2 * (32 + 2 * PADDING) + 3 * GAP


def test_png_repeats_exactly(substrate, font):
    data = token_picture_png(substrate, [0, 5, 300], font=font)
    assert data == token_picture_png(substrate, [0, 5, 300], font=font)
    assert Image.open(io.BytesIO(data)).size == draw_tokens(substrate, [0, 5, 300], font=font).size
