"""The published layout equals the recipe done one token at a time, and reproduces the published collisions."""

import logging

import numpy as np
import pytest
from PIL import features

from eval.bench import published_recipe as recipe
from frozen_glyph.substrate import GlyphSubstrate, load_font
from frozen_glyph.substrate.build import draw_bits
from frozen_glyph.substrate.collisions import find_groups
from frozen_glyph.substrate.font import DEBIAN_OUTLINES, FontError, load_outline_font
from frozen_glyph.substrate.glyphs import Token
from frozen_glyph.substrate.published import draw_strip, draw_tokens_published, is_augmented, open_outlines

UNIFONT_15_OTF = "db1960227adcb14640063e7384fdcd2867aaf819d9ca4866bca289d4db9a9f67"
TEXTS = [
    "a", "а", "Ω", "Ж", "Ա", "1", " ", "\n", "\t", "\u00a0", "猫", "가", "ا", "अ", "\u0301", "\u0378", "\U0001f600",
    "th", " the", "кот", "猫が", "a猫", "ab\ncd", "<special_token_57367>", "e\u0301", "fi" * 20,
]  # fmt: skip


@pytest.fixture(scope="module")
def outline_font():
    if not DEBIAN_OUTLINES.is_file():
        pytest.skip("unifont.otf is not installed (apt-get install -y fonts-unifont)")
    if not features.check("raqm"):
        pytest.skip("Pillow's Raqm engine is not available (apt-get install -y libfribidi0)")
    return load_outline_font()


@pytest.mark.parametrize("side", [32, 64])
def test_equals_the_recipe_token_by_token(outline_font, side):
    drawn = draw_tokens_published([Token(text, "text") for text in TEXTS], outline_font, side)
    outlines = open_outlines(outline_font, side)
    for text, bitmap in zip(TEXTS, drawn, strict=True):
        expected = np.asarray(recipe.token_image(text, outlines, side)) == 0
        np.testing.assert_array_equal(bitmap, expected, err_msg=repr(text))


def test_recipe_reads_what_it_writes_and_normalises(outline_font, tmp_path):
    outlines = open_outlines(outline_font, 32)
    recipe.write_bit_lists(TEXTS, outlines, 32, tmp_path / "bits.txt")
    bits = recipe.read_bit_lists(tmp_path / "bits.txt")
    drawn = draw_tokens_published([Token(text, "text") for text in TEXTS], outline_font)
    np.testing.assert_array_equal(bits.sum(axis=1), drawn.sum(axis=(1, 2)))
    vectors = recipe.principal_components(bits)
    centred = bits - bits.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors @ vectors.T, centred @ centred.T, atol=1e-4)


def test_only_western_scripts_are_moved():
    assert all(is_augmented(text) for text in ("a", "é", "ß ", "Ω", "кот", "Ա", "3+4"))
    assert not any(is_augmented(text) for text in ("猫", "ا", "a猫", "—", "ẞ", "\u0301"))


def test_published_collisions(outline_font):
    """Space and newline are one blank, look-alikes one picture; noise alone tells scripts apart."""
    tokens = [Token(text, "text") for text in " \n\r\u00a0\u2003\u3000\u200baаcсABАВxх"]
    groups = find_groups(draw_bits(tokens, outline_font, "published", 1024))
    named = [{tokens[token_id].text for token_id in ids} for ids in groups]
    assert {" ", "\n", "\r", "\u00a0"} in named and {"\u2003", "\u3000", "\u200b"} in named
    assert {"a", "а"} in named and {"A", "А"} in named and {"B", "В"} in named


def test_substrate_keeps_the_collisions_and_says_so(outline_font, tokenizer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        substrate = GlyphSubstrate.build(tokenizer, width=256, layout="published")
    collisions = substrate.provenance["collisions"]
    assert collisions["remaining"] > 0 and collisions["tokens_resolved"] == 0
    assert f"{collisions['remaining']} tokens" in caplog.text
    assert {"pil", "freetype2", "raqm"} == substrate.provenance["renderer"].keys()
    assert len(np.unique(substrate.packed_bits, axis=0)) == len(tokenizer) - collisions["remaining"]
    ids = tokenizer.convert_tokens_to_ids([" ", "\n"])
    vectors = substrate.as_embedding().weight[ids]
    assert (vectors[0] == vectors[1]).all()
    substrate.save_pretrained(tmp_path)
    assert GlyphSubstrate.from_pretrained(tmp_path).fingerprint == substrate.fingerprint


def test_a_bitmap_font_is_refused(font):
    with pytest.raises(FontError, match=r"'tiny\.hex' has none; give an \.otf"):
        draw_tokens_published([Token("a", "text")], font)


def test_missing_outlines_name_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr("frozen_glyph.substrate.font.DEBIAN_OUTLINES", tmp_path / "absent.otf")
    with pytest.raises(FontError, match="apt-get install -y fonts-unifont"):
        load_outline_font()


def test_without_raqm_the_remedy_is_named(monkeypatch, outline_font):
    monkeypatch.setattr("frozen_glyph.substrate.published.features.check", lambda feature: False)
    with pytest.raises(FontError, match="libfribidi0"):
        draw_tokens_published([Token("a", "text")], outline_font)


@pytest.mark.slow
def test_counts_of_the_whole_plane(outline_font):
    """Measured on Unifont 15.0.01: 57,086 glyphs are 56,209 pictures as drawn, and 56,297 with the noise."""
    if outline_font.sha256 != UNIFONT_15_OTF:
        pytest.skip("the counts are of Unifont 15.0.01")
    hex_font = load_font()
    characters = [chr(codepoint) for codepoint in range(0x10000) if hex_font.draw(codepoint) is not None]
    outlines = open_outlines(outline_font, 32)
    plain = {(np.asarray(draw_strip(character, outlines, 32)) < 128).tobytes() for character in characters}
    noisy = draw_bits([Token(character, "text") for character in characters], outline_font, "published", 1024)
    assert (len(characters), len(plain), len(np.unique(noisy, axis=0))) == (57_086, 56_209, 56_297)
