"""A small made-up .hex font, a small trilingual text, and the tokenizer built from it: no installed font is needed."""

import hashlib

import pytest

from frozen_glyph.substrate import build_tokenizer, load_font
from frozen_glyph.substrate.font import DEBIAN_HEX

TEXTS = [
    "The cat sat on the mat. The other cat sat there too: 3+4=7, 2+5=7.\n\nThe hat is on the cat's head.\n" * 20,
    "Кот сидел на окне. Другой кот тоже сидел там.\nКот сидел и смотрел на кота.\n" * 20,
    "猫坐在垫子上。另一只猫也坐在那里。\n问题：猫在哪里？答案：垫子上。\n" * 20,
]
WIDE = "猫坐在垫子上另一只也那里问题哪答案。：？"
LOOK_ALIKES = {"а": "a", "о": "o", "е": "e", "с": "c", "Т": "T", "К": "K"}


def hex_line(character):
    """A glyph that follows from the character, the same for look-alikes; blank for the space."""
    digits = 64 if character in WIDE else 32
    name = LOOK_ALIKES.get(character, character)
    glyph = "0" * digits if name == " " else hashlib.sha256(name.encode()).hexdigest()[:digits].upper()
    return f"{ord(character):04X}:{glyph}\n"


@pytest.fixture(scope="session")
def font_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "tiny.hex"
    characters = sorted(set("".join(TEXTS) + "<>bdeops") - {"\n", "."})  # the newline and the stop have no glyph
    path.write_text("".join(hex_line(character) for character in characters), encoding="ascii")
    return path


@pytest.fixture(scope="session")
def font(font_file):
    return load_font(font_file)


@pytest.fixture(scope="session")
def texts():
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer(TEXTS, vocab_size=380)


@pytest.fixture(scope="session")
def unifont():
    if not DEBIAN_HEX.is_file():
        pytest.skip("GNU Unifont is not installed (apt-get install -y fonts-unifont unifont)")
    return load_font()
