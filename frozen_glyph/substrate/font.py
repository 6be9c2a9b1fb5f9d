"""Bitmap glyphs, 16 pixels high: GNU Unifont by default, or any .hex, .hex.gz, .otf or .ttf file.

Unifont's .hex format is one line per code point, ``0041:0000...``: 32 hexadecimal digits for a glyph 8 pixels wide,
64 for one 16 pixels wide (https://unifoundry.com/unifont/).
"""

import functools
import gzip
import hashlib
import io
import os
import re
import unicodedata
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frozen_glyph.checkpoint.files import write_atomically
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.formats import FormatError, read_bytes

GLYPH_HEIGHT = 16
FONT_BYTES = 1 << 28  # of a file, and of what it unpacks to
BASELINE = 14  # rows above the baseline in Unifont
DEBIAN_HEX = Path("/usr/share/unifont/unifont.hex")
DEBIAN_OUTLINES = Path("/usr/share/fonts/opentype/unifont/unifont.otf")
DEBIAN_UPPER = DEBIAN_OUTLINES.with_name("unifont_upper.otf")
DOWNLOAD_URL = "https://ftp.gnu.org/gnu/unifont/unifont-15.0.01/unifont-15.0.01.hex.gz"
DOWNLOAD_SHA256 = "fe93c0df9a69e71df0fcf9e71af3adab3c85a393b1a3cae1eb32f69880fc1841"  # of the decompressed text
OUTLINE_MAGICS = (b"OTTO", b"\0\1\0\0", b"true", b"ttcf")
HEX_LINE = re.compile(r"([0-9A-Fa-f]{4,6}):([0-9A-Fa-f]{64}|[0-9A-Fa-f]{32})")


class FontError(FrozenGlyphError):
    """A font file is missing, is not a font, or is not the font it should be."""


@dataclass(frozen=True)
class Font:
    """A font: ``draw`` returns a code point's bitmap or None; ``upper`` is asked for what this font does not have.

    The bitmaps are kept and shared, hence read-only.
    """

    name: str
    sha256: str  # of the decompressed .hex text, or of the .otf/.ttf file
    draw: Callable[[int], np.ndarray | None]
    upper: "Font | None" = None
    outlines: bytes | None = None  # an .otf or .ttf file's content, for layouts that draw at another size

    def glyph(self, codepoint: int) -> np.ndarray | None:
        """Bool [16, 8] or [16, 16], or None when the font has no glyph for ``codepoint``."""
        bitmap = self.draw(codepoint)
        return self.upper.glyph(codepoint) if bitmap is None and self.upper is not None else bitmap

    def provenance(self) -> dict:
        """Name and hash of this font, and of the one behind it, as plain JSON data."""
        upper = self.upper.provenance() if self.upper is not None else None
        return {"name": self.name, "sha256": self.sha256, "upper": upper}


def load_font(source: str | Path | None = None) -> Font:
    """Load ``source`` (.hex, .hex.gz, .otf or .ttf), or GNU Unifont when it is None.

    Unifont comes from the Debian package ``unifont`` (planes above 0 from ``fonts-unifont`` when that is installed),
    else from the user's cache, else it is downloaded once from the GNU mirror and checked against a pinned hash.

    Raises:
        FontError: the file is missing or is not a font, or Unifont can be neither found nor downloaded.
    """
    if source is not None:
        return _read_font(Path(source))
    if DEBIAN_HEX.is_file():
        font = _read_font(DEBIAN_HEX)
        if DEBIAN_UPPER.is_file():
            font = Font(font.name, font.sha256, font.draw, upper=_read_font(DEBIAN_UPPER))
        return font
    cached = cache_folder() / DOWNLOAD_URL.rsplit("/", 1)[1]
    if not cached.is_file():
        _download(cached)
    return _check_pin(_read_font(cached), cached)


def load_outline_font() -> Font:
    """GNU Unifont as outlines, from the Debian package ``fonts-unifont``."""
    if not DEBIAN_OUTLINES.is_file():
        raise FontError(
            f"GNU Unifont's outlines ({DEBIAN_OUTLINES}) are not installed; run `apt-get install -y fonts-unifont`, or "
            "give an .otf or .ttf file"
        )
    return _read_font(DEBIAN_OUTLINES)


def cache_folder() -> Path:
    """Where a downloaded font is kept: ``$XDG_CACHE_HOME/frozen_glyph``, by default ``~/.cache/frozen_glyph``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frozen_glyph"


def _read_font(path: Path) -> Font:
    if not path.is_file():
        raise FontError(f"font file {str(path)!r} does not exist; give the path of a .hex, .hex.gz, .otf or .ttf file")
    try:
        data = read_bytes(path, FONT_BYTES)
    except FormatError as error:
        raise FontError(f"font file {str(path)!r} is too large for a font: {error}") from None
    if data.startswith(OUTLINE_MAGICS):
        return Font(path.name, hashlib.sha256(data).hexdigest(), _outline_drawer(data, path), outlines=data)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(FONT_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise FontError(f"font file {str(path)!r} is a damaged gzip file ({error}); fetch it again") from None
        if len(data) > FONT_BYTES:
            raise FontError(f"font file {str(path)!r} unpacks to more than {FONT_BYTES:,} bytes, the limit of a font")
    return Font(path.name.removesuffix(".gz"), hashlib.sha256(data).hexdigest(), _hex_drawer(data, path))


def _hex_drawer(data: bytes, path: Path) -> Callable[[int], np.ndarray | None]:
    digits: dict[int, str] = {}
    for number, line in enumerate(data.decode("ascii", errors="replace").splitlines(), start=1):
        match = HEX_LINE.fullmatch(line.rstrip())
        if match:
            digits[int(match[1], 16)] = match[2]
        elif line.strip() and not line.startswith("#"):
            raise FontError(
                f"font file {str(path)!r} is not a font: line {number} is {line[:40]!r}, but a .hex font has lines "
                "like '0041:' and 32 or 64 hexadecimal digits; give a .hex, .hex.gz, .otf or .ttf file"
            )
    if not digits:
        raise FontError(f"font file {str(path)!r} holds no glyph; give a .hex, .hex.gz, .otf or .ttf file")

    @functools.cache
    def draw(codepoint: int) -> np.ndarray | None:
        if codepoint not in digits:
            return None
        rows = np.frombuffer(bytes.fromhex(digits[codepoint]), dtype=np.uint8).reshape(GLYPH_HEIGHT, -1)
        return _read_only(np.unpackbits(rows, axis=1).view(bool))

    return draw


def _outline_drawer(data: bytes, path: Path) -> Callable[[int], np.ndarray | None]:
    from PIL import Image, ImageDraw, ImageFont

    try:
        outlines = ImageFont.truetype(io.BytesIO(data), size=GLYPH_HEIGHT, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise FontError(f"font file {str(path)!r} is not a font Pillow can read ({error}); give another file") from None

    def picture(codepoint: int) -> np.ndarray:
        image = Image.new("1", (48, 48))
        ImageDraw.Draw(image).text((GLYPH_HEIGHT, GLYPH_HEIGHT + BASELINE), chr(codepoint), 1, outlines, anchor="ls")
        return np.asarray(image)

    # Pillow does not say whether a font has a code point, but draws its "missing" picture for this noncharacter.
    missing = picture(0x10FFFF)

    @functools.cache
    def draw(codepoint: int) -> np.ndarray | None:
        if unicodedata.category(chr(codepoint)) in ("Cc", "Cs"):
            return None
        drawn = picture(codepoint)
        if np.array_equal(drawn, missing):
            return None
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        if rows.size == 0:
            return _read_only(np.zeros((GLYPH_HEIGHT, 8), dtype=bool))
        narrow = columns[-1] - columns[0] < 8 and outlines.getlength(chr(codepoint)) <= 8
        width = 8 if narrow else 16
        top = _window_start(rows[0], rows[-1], GLYPH_HEIGHT)
        left = _window_start(columns[0], columns[-1], width)
        return _read_only(drawn[top : top + GLYPH_HEIGHT, left : left + width].copy())

    return draw


def _read_only(bitmap: np.ndarray) -> np.ndarray:
    bitmap.flags.writeable = False
    return bitmap


def _window_start(first: int, last: int, size: int) -> int:
    """Start of a window of ``size`` pixels: at the pen position (16), moved only as far as the ink needs."""
    start = min(GLYPH_HEIGHT, int(first))
    return max(start, int(last) - size + 1) if start == GLYPH_HEIGHT else start


def _download(target: Path) -> None:
    try:
        with urllib.request.urlopen(DOWNLOAD_URL, timeout=60) as response:
            data = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise FontError(
            f"GNU Unifont is neither installed ({DEBIAN_HEX}) nor cached ({target}), and {DOWNLOAD_URL} cannot be "
            f"fetched ({error}); run `apt-get install -y fonts-unifont unifont`, or give a .hex, .hex.gz, .otf or .ttf "
            "font file"
        ) from None

    def write_checked(temporary: Path) -> None:
        temporary.write_bytes(data)
        _check_pin(_read_font(temporary), DOWNLOAD_URL)

    write_atomically(target, write_checked)


def _check_pin(font: Font, source: str | Path) -> Font:
    if font.sha256 != DOWNLOAD_SHA256:
        raise FontError(
            f"font {str(source)!r} has sha256 {font.sha256}, but {DOWNLOAD_SHA256} is expected; delete the file if it "
            "is yours, and run `apt-get install -y fonts-unifont unifont` or give a font file"
        )
    return font
