"""Fonts from every kind of file, the pinned download, and errors that name the file and the remedy."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from frozen_glyph.substrate import font as font_module
from frozen_glyph.substrate import load_font
from frozen_glyph.substrate.font import DEBIAN_UPPER, FontError

A = "0041:0000000018242442427E424242420000\n"
HAN = "4E2D:" + "01000100010001003FF8210821082108210821083FF821080100010001000100\n"


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    """A machine without the Debian packages, with an empty cache."""
    monkeypatch.setattr(font_module, "DEBIAN_HEX", tmp_path / "absent.hex")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def serve(monkeypatch, folder, text, pin):
    """Stand in for the mirror with a local file, and pin the hash of the text ``pin``."""
    source = folder / "served.hex.gz"
    source.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(font_module, "DOWNLOAD_URL", source.as_uri())
    monkeypatch.setattr(font_module, "DOWNLOAD_SHA256", hashlib.sha256(pin.encode()).hexdigest())
    return source


def test_hex_and_gzipped_hex_are_the_same_font(tmp_path):
    (tmp_path / "f.hex").write_text(A + HAN)
    (tmp_path / "f.hex.gz").write_bytes(gzip.compress((A + HAN).encode()))
    plain, zipped = load_font(tmp_path / "f.hex"), load_font(str(tmp_path / "f.hex.gz"))
    assert plain.sha256 == zipped.sha256 == hashlib.sha256((A + HAN).encode()).hexdigest()
    assert plain.name == zipped.name == "f.hex"
    letter = plain.glyph(0x41)
    assert letter.shape == (16, 8) and letter.dtype == bool
    assert letter[4].tolist() == [False, False, False, True, True, False, False, False]
    assert zipped.glyph(0x4E2D).shape == (16, 16) and zipped.glyph(0x4E2D)[0].nonzero()[0].tolist() == [7]
    assert plain.glyph(0x42) is None


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a text\n",
        b"0041:1234\n",
        b"",
        b"\x1f\x8bnot gzip at all",
        b"OTTO but no outlines",
        b"\xff\x00\xfe",
    ],
)
def test_a_file_that_is_not_a_font_is_refused_by_name(tmp_path, content):
    path = tmp_path / "strange.hex"
    path.write_bytes(content)
    with pytest.raises(FontError, match=r"strange\.hex"):
        load_font(path)


def test_a_bad_line_is_named(tmp_path):
    (tmp_path / "f.hex").write_text(A + "0042:xyz\n")
    with pytest.raises(FontError, match="line 2 is '0042:xyz'"):
        load_font(tmp_path / "f.hex")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FontError, match=r"nowhere\.hex"):
        load_font(tmp_path / "nowhere.hex")


def test_without_font_and_mirror_both_remedies_are_named(no_debian, monkeypatch, tmp_path):
    monkeypatch.setattr(font_module, "DOWNLOAD_URL", (tmp_path / "no-mirror.hex.gz").as_uri())
    with pytest.raises(FontError, match=r"apt-get install -y fonts-unifont unifont.*\.otf or \.ttf"):
        load_font()


def test_download_is_checked_kept_and_used_again(no_debian, monkeypatch, tmp_path):
    source = serve(monkeypatch, tmp_path, A, pin=A)
    first = load_font()
    source.unlink()
    assert load_font().sha256 == first.sha256
    assert first.glyph(0x41) is not None


def test_download_with_another_hash_is_refused_and_not_kept(no_debian, monkeypatch, tmp_path):
    serve(monkeypatch, tmp_path, A, pin=HAN)
    for _ in range(2):
        with pytest.raises(FontError) as error:
            load_font()
        assert hashlib.sha256(A.encode()).hexdigest() in str(error.value)
        assert hashlib.sha256(HAN.encode()).hexdigest() in str(error.value)
    assert not any(path.is_file() for path in font_module.cache_folder().iterdir())


def test_unifont_has_the_bmp(unifont):
    assert sum(unifont.draw(codepoint) is not None for codepoint in range(0x10000)) > 57_000
    assert unifont.glyph(0xD800) is None and unifont.glyph(0xE000) is None


def test_outline_file_draws_the_same_pixels_as_the_hex_file(unifont):
    outline_file = DEBIAN_UPPER.with_name("unifont.otf")
    if not outline_file.is_file():
        pytest.skip("unifont.otf is not installed (apt-get install -y fonts-unifont)")
    outlines = load_font(outline_file)
    for character in "aZ0Жяß中猫。あ한★€":
        np.testing.assert_array_equal(outlines.glyph(ord(character)), unifont.glyph(ord(character)))
    assert outlines.glyph(0xE000) is None and outlines.glyph(0x0A) is None and outlines.glyph(0xD800) is None
    assert not outlines.glyph(0x20).any()
    assert outlines.glyph(0x0301).any() and outlines.glyph(0x0301).shape == (16, 8)


def test_a_truetype_font_draws_letters():
    path = Path(pytest.importorskip("matplotlib").get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = load_font(path)
    letters = [font.glyph(ord(character)) for character in "iWЖ"]
    assert all(letter.shape[0] == 16 and letter.any() for letter in letters)
    assert letters[0].shape == (16, 8) and letters[1].shape == (16, 16)
    assert font.glyph(ord("猫")) is None and font.outlines == path.read_bytes()


def test_glyphs_are_shared_and_cannot_be_changed(unifont):
    assert unifont.glyph(0x41) is unifont.glyph(0x41)
    with pytest.raises(ValueError, match="read-only"):
        unifont.glyph(0x41)[0, 0] = True


def test_astral_code_points_come_from_the_upper_font(unifont):
    if unifont.upper is None:
        pytest.skip("unifont_upper.otf is not installed (apt-get install -y fonts-unifont)")
    assert unifont.glyph(0x1F600).shape == (16, 16)
    assert not np.array_equal(unifont.glyph(0x1F600), unifont.glyph(0x1F601))
    assert unifont.glyph(0x20000) is None
    assert unifont.provenance()["upper"]["name"] == "unifont_upper.otf"
