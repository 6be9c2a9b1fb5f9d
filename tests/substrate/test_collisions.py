"""Look-alikes are separated for good, and always in the same way."""

import numpy as np
import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.collisions import separate
from frozen_glyph.substrate.glyphs import Token, draw_layout


def distinct(bitmaps):
    return len({bitmap.tobytes() for bitmap in bitmaps})


def test_groups_are_found_and_only_later_members_change(font):
    tokens = [Token(text, "text") for text in ("a", "b", "а", "oа", "оa", "c")]
    drawn = draw_layout(tokens, font, "grid")
    before = drawn.copy()
    bitmaps, groups = separate(drawn, tokens)
    assert groups == [[0, 2], [3, 4]]
    assert distinct(drawn) == 4 and distinct(bitmaps) == 6
    np.testing.assert_array_equal(drawn, before)
    np.testing.assert_array_equal(bitmaps[[0, 1, 3, 5]], drawn[[0, 1, 3, 5]])
    changed = (bitmaps ^ drawn)[[2, 4]].sum(axis=(1, 2))
    assert (changed >= 40).all() and (changed <= 48).all()


def test_pattern_follows_from_the_token_alone():
    bitmaps = np.zeros((3, 32, 32), dtype=bool)
    first, _ = separate(bitmaps, [Token("a", "text"), Token("b", "text"), Token("c", "text")])
    second, _ = separate(bitmaps, [Token("x", "text"), Token("c", "text"), Token("b", "text")])
    np.testing.assert_array_equal(first[1], second[2])
    np.testing.assert_array_equal(first[2], second[1])
    other_kind, _ = separate(bitmaps, [Token("a", "text"), Token("b", "byte"), Token("c", "text")])
    assert not np.array_equal(other_kind[1], first[1])
    assert np.packbits(first[1]).tobytes().hex().startswith("0100c8800000000020000010")


def test_a_taken_pattern_is_tried_again():
    blank = np.zeros((2, 32, 32), dtype=bool)
    tokens = [Token("a", "text"), Token("b", "text"), Token("c", "text")]
    taken = separate(blank, tokens[:2])[0][1]
    bitmaps, groups = separate(np.stack([blank[0], blank[1], taken]), tokens)
    assert groups == [[0, 1]] and distinct(bitmaps) == 3
    np.testing.assert_array_equal(bitmaps[2], taken)
    assert not np.array_equal(bitmaps[1], taken)


def test_thousands_of_equal_bitmaps():
    tokens = [Token(str(number), "text") for number in range(3000)]
    bitmaps, groups = separate(np.zeros((3000, 32, 32), dtype=bool), tokens)
    assert distinct(bitmaps) == 3000 and groups == [list(range(3000))]


def test_endless_repetition_of_one_token_is_refused():
    with pytest.raises(FrozenGlyphError, match="same token text"):
        separate(np.zeros((200, 32, 32), dtype=bool), [Token("a", "text")] * 200)
