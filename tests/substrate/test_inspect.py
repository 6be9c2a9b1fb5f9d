"""What a substrate says about itself: description, collision groups, neighbours, a picture of a text."""

import json

import numpy as np
import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.inspect import collision_groups, describe, group_name, neighbors, show, show_neighbors


@pytest.fixture(scope="module")
def substrate(tokenizer, font):
    return GlyphSubstrate.build(tokenizer, width=128, font=font)


def test_description_is_json_of_origin_sizes_collisions_and_coverage(substrate, font):
    described = describe(substrate)
    assert json.loads(json.dumps(described)) == described
    assert described["fingerprint"] == substrate.fingerprint and described["font"]["sha256"] == font.sha256
    assert (described["vocab_size"], described["bits"], described["width"]) == (380, 1024, 128)
    assert described["bytes"] == 380 * 128 + 1024 + 1024 * 128 + 4 * 128
    assert (described["whiten"], described["scale"]) == ("full", pytest.approx(128**0.5 / 4))
    assert described["bytes_as_float32_table"] == 380 * 128 * 4
    assert described["collisions"]["remaining"] == 0
    assert "a (U+0061) = а (U+0430)" in described["collisions"]["first_groups"]
    assert described["coverage"]["Han"]["tokens"] > 10 and described["coverage"]["Common"]["without_glyph"] > 0


def test_all_collision_groups_are_found_again(substrate, font):
    groups = collision_groups(substrate, font)
    kept = substrate.provenance["collisions"]
    assert len(groups) == kept["groups"]
    assert [[list(pair) for pair in zip(group.ids, group.texts, strict=True)] for group in groups] == kept[
        "first_groups"
    ]


def test_another_font_is_refused(substrate, tmp_path):
    (tmp_path / "other.hex").write_text("0041:" + "0" * 32)
    from frozen_glyph.substrate import load_font

    with pytest.raises(FrozenGlyphError, match=r"'other\.hex' has sha256.*tiny\.hex"):
        collision_groups(substrate, load_font(tmp_path / "other.hex"))


def test_codes_do_not_collide(tokenizer):
    binary = GlyphSubstrate.build(tokenizer, width=64, layout="binary")
    assert collision_groups(binary) == [] and describe(binary)["font"] is None


def test_colliding_tokens_are_named_with_their_code_points():
    assert group_name([" ", "\n", "\t"]) == "space (U+0020) = newline (U+000A) = tab (U+0009)"
    assert group_name(["a", "а"]) == "a (U+0061) = а (U+0430)"
    assert group_name(["\u200b", " с"]) == "zero width space (U+200B) = ' с'"


def test_neighbors_against_all_pairs(substrate, tokenizer):
    vectors = substrate.reference_vectors(np.arange(380)) / substrate.scale
    token_id = tokenizer.get_vocab()["猫"]
    cosines = vectors @ vectors[token_id]
    cosines[token_id] = -2
    found = neighbors(substrate, "猫", 5)
    assert [other for other, _, _ in found] == np.argsort(-cosines)[:5].tolist()
    np.testing.assert_allclose([cosine for _, _, cosine in found], np.sort(cosines)[::-1][:5], atol=2e-6)
    assert found == neighbors(substrate, token_id, 5)
    assert [text for _, text, _ in found] == tokenizer.convert_ids_to_tokens([other for other, _, _ in found])
    assert len(neighbors(substrate, 0, 1000)) == 379


def test_look_alikes_are_neighbours(substrate, tokenizer):
    assert neighbors(substrate, "а", 1)[0][1] == "a"


@pytest.mark.parametrize(
    ("token", "message"),
    [(380, "id 380 does not exist; give 0 to 379"), (-1, "id -1"), ("猫 3+4", "is [0-9]+ tokens"), ("", "is 0 tokens")],
)
def test_neighbors_of_what_is_no_token(substrate, token, message):
    with pytest.raises(FrozenGlyphError, match=message):
        neighbors(substrate, token)


def test_picture_of_a_text(substrate, font):
    one, three = show(substrate, "猫", font=font), show(substrate, "猫猫3", font=font)
    assert three.width > one.width and three.height == one.height
    with pytest.raises(FrozenGlyphError, match="no tokens"):
        show(substrate, "", font=font)


def test_neighbours_side_by_side(substrate, tokenizer, font):
    """A row for each token: itself, and its nearest under each geometry; whitening changes who they are."""
    plain = GlyphSubstrate.build(tokenizer, width=128, font=font, whiten="none")
    picture = np.asarray(show_neighbors({"drawn": plain, "whitened": substrate}, ["猫", "а"], k=3, font=font))
    one = np.asarray(show(substrate, "猫", scale=2, font=font))
    height, width = (size - picture_gap for size, picture_gap in zip(one.shape[:2], (10, 10), strict=True))
    assert picture.shape[0] == 20 + 10 + 2 * height and picture.shape[1] == 3 * 10 + 7 * width
    np.testing.assert_array_equal(picture[20 : 20 + one.shape[0], : one.shape[1]], one)
    alike = show_neighbors({"drawn": plain, "whitened": plain}, ["猫", "а"], k=3, font=font)
    assert not np.array_equal(np.asarray(alike), picture)


def test_pictures_of_larger_bitmaps_and_codes_fill_the_same_area(substrate, tokenizer, font):
    size = show(substrate, "猫", font=font).size
    large = GlyphSubstrate.build(tokenizer, width=4096, font=font)
    binary = GlyphSubstrate.build(tokenizer, width=64, layout="binary")
    assert show(large, "猫", font=font).size == show(binary, "猫", font=font).size == size
    assert show(large, "猫", scale=1, font=font).width == show(substrate, "猫", scale=2, font=font).width
