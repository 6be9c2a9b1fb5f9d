"""Look-alikes are separated for good, and always in the same way."""

import numpy as np
import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.build import draw_bits
from frozen_glyph.substrate.collisions import find_groups, separate
from frozen_glyph.substrate.glyphs import Token


def distinct(rows):
    return len({row.tobytes() for row in rows})


def blank(number):
    return np.zeros((number, 128), dtype=np.uint8)


def test_groups_are_found_and_only_later_members_change(font):
    tokens = [Token(text, "text") for text in ("a", "b", "а", "oа", "оa", "c")]
    drawn = draw_bits(tokens, font, "grid", 1024)
    before = drawn.copy()
    rows, groups = separate(drawn, tokens)
    assert groups == find_groups(drawn) == [[0, 2], [3, 4]] and find_groups(rows) == []
    assert distinct(drawn) == 4 and distinct(rows) == 6
    np.testing.assert_array_equal(drawn, before)
    np.testing.assert_array_equal(rows[[0, 1, 3, 5]], drawn[[0, 1, 3, 5]])
    changed = np.unpackbits(rows ^ drawn, axis=1)[[2, 4]].sum(axis=1)
    assert (changed >= 40).all() and (changed <= 48).all()


def test_pattern_follows_from_the_token_alone():
    first, _ = separate(blank(3), [Token("a", "text"), Token("b", "text"), Token("c", "text")])
    second, _ = separate(blank(3), [Token("x", "text"), Token("c", "text"), Token("b", "text")])
    np.testing.assert_array_equal(first[1], second[2])
    np.testing.assert_array_equal(first[2], second[1])
    other_kind, _ = separate(blank(3), [Token("a", "text"), Token("b", "byte"), Token("c", "text")])
    assert not np.array_equal(other_kind[1], first[1])
    assert first[1].tobytes().hex().startswith("0100c8800000000020000010")


def test_a_taken_pattern_is_tried_again():
    tokens = [Token("a", "text"), Token("b", "text"), Token("c", "text")]
    taken = separate(blank(2), tokens[:2])[0][1]
    rows, groups = separate(np.stack([*blank(2), taken]), tokens)
    assert groups == [[0, 1]] and distinct(rows) == 3
    np.testing.assert_array_equal(rows[2], taken)
    assert not np.array_equal(rows[1], taken)


def test_thousands_of_equal_bitmaps():
    tokens = [Token(str(number), "text") for number in range(3000)]
    rows, groups = separate(blank(3000), tokens)
    assert distinct(rows) == 3000 and groups == [list(range(3000))]


def test_endless_repetition_of_one_token_is_refused():
    with pytest.raises(FrozenGlyphError, match="same token text"):
        separate(blank(200), [Token("a", "text")] * 200)
