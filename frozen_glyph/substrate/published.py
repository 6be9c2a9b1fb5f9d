"""Layout ``published``: strip and augmentation as in arXiv 2507.04886, blanks and look-alikes included.

A token's characters are drawn in a strip of square cells (32 pixels at font size 32, or 64 at 64), the strip is
squeezed bilinearly to one cell and binarised; then, with the random seeds reset to 42 for every token: rotation by up
to 4 degrees, shift by up to 2 pixels, pixel noise 0.01 and blur 0.5 for Latin, Greek, Cyrillic and Armenian; pixel
noise 0.001 only for all other scripts. Bits are row by row: the published polar order is a permutation, which changes
no distance and no principal component analysis. That analysis at full width is a rotation, which changes no distance
either, so it is left out unless asked for (``pca``): rounded to int8, as exact lookups need, it moves cosines by 0.0013
on average and 0.009 at most (8 million pairs of ``bmp`` tokens), and lookups take 2.5 times as long.

Choices that the description leaves open, most of them seen in the author's public notebooks (GitHub AVBochkov/PGT):
- A character stands in the middle of its cell by the size of its ink. Pillow's default Raqm engine lays it out, which
  makes space, newline, carriage return and the other invisible characters equally blank.
- Ink is a grey value below 128, on white. Byte and special tokens are drawn as their names, like any text.
- A token is Latin, Greek, Cyrillic or Armenian when all its code points lie in U+0000-024F or U+0370-058F.
- One angle and one shift in each direction are drawn from Python's ``random`` (uniform, whole pixels), pixels that the
  noise hits from ``numpy.random``; they turn to ink. Order: rotation to the nearest pixel, shift, noise, blur, ink.
- One font file only: what it lacks is drawn as its picture for a missing character.
The notebooks differ in one point from the description followed here: they augment the strip before squeezing it.

Since the seed is reset, every token gets the same angle, shift and noise, so tokens are moved all at once here.

Shapes: N tokens, side = 32 or 64 pixels.
"""

import io
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from frozen_glyph.substrate.choices import CANVAS
from frozen_glyph.substrate.font import Font, FontError
from frozen_glyph.substrate.glyphs import Token

SEED = 42
MAX_DEGREES, MAX_SHIFT = 4, 2
NOISE, NOISE_OTHER_SCRIPTS = 0.01, 0.001
BLUR_RADIUS = 0.5
AUGMENTED_BLOCKS = ((0x0000, 0x024F), (0x0370, 0x058F))  # Latin; Greek, Cyrillic and Armenian
WHITE, INK_BELOW = 255, 128


def draw_tokens_published(tokens: Sequence[Token], font: Font, side: int = CANVAS) -> np.ndarray:
    """Bitmaps of ``tokens``, bool [N, side, side].

    Raises:
        FontError: ``font`` has no outlines, or Pillow lacks the Raqm engine.
    """
    outlines = open_outlines(font, side)
    bitmaps = np.stack([_squeezed_strip(token.text, outlines, side) for token in tokens])
    noise = np.random.RandomState(SEED).random_sample((side, side))
    augmented = np.array([is_augmented(token.text) for token in tokens])
    bitmaps[~augmented] |= noise < NOISE_OTHER_SCRIPTS
    if augmented.any():
        bitmaps[augmented] = [_blur(bitmap) for bitmap in _move(bitmaps[augmented], side) | (noise < NOISE)]
    return bitmaps


def open_outlines(font: Font, size: int) -> ImageFont.FreeTypeFont:
    """``font`` for Pillow at ``size`` pixels, laid out by Raqm."""
    if font.outlines is None:
        raise FontError(
            f"layout 'published' draws outlines, but font {font.name!r} has none; give an .otf or .ttf file"
        )
    if not features.check("raqm"):
        raise FontError(
            "layout 'published' needs Pillow's Raqm text engine, which is not available here; run "
            "`apt-get install -y libfribidi0` and use Pillow's own wheel (pip install --force-reinstall pillow)"
        )
    return ImageFont.truetype(io.BytesIO(font.outlines), size=size, layout_engine=ImageFont.Layout.RAQM)


def draw_strip(text: str, outlines: ImageFont.FreeTypeFont, side: int) -> Image.Image:
    """The characters of ``text`` side by side, each in the middle of its cell: ink 0 on white 255."""
    strip = Image.new("L", (side * len(text), side), WHITE)
    draw = ImageDraw.Draw(strip)
    for place, character in enumerate(text):
        try:
            left, top, right, bottom = outlines.getbbox(character)
            corner = (place * side + (side - (right - left)) // 2, (side - (bottom - top)) // 2 - top)
            draw.text(corner, character, fill=0, font=outlines)
        except RuntimeError:  # Raqm cannot lay out a newline and its like: the cell stays blank, as published
            continue
    return strip


def is_augmented(text: str) -> bool:
    """Whether all of ``text`` is Latin, Greek, Cyrillic or Armenian."""
    return all(any(first <= ord(character) <= last for first, last in AUGMENTED_BLOCKS) for character in text)


def renderer_versions() -> dict[str, str | None]:
    """What drew the outlines, for the provenance."""
    return {name: features.version(name) for name in ("pil", "freetype2", "raqm")}


def _squeezed_strip(text: str, outlines: ImageFont.FreeTypeFont, side: int) -> np.ndarray:
    strip = draw_strip(text or " ", outlines, side)
    if strip.width != side:
        strip = strip.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(strip) < INK_BELOW


def _move(bitmaps: np.ndarray, side: int) -> np.ndarray:
    """Rotate and shift [N, side, side] as seed 42 says: Pillow moves the pixels' numbers, then all tokens follow."""
    generator = random.Random(SEED)
    angle = generator.uniform(-MAX_DEGREES, MAX_DEGREES)
    shift = generator.randint(-MAX_SHIFT, MAX_SHIFT), generator.randint(-MAX_SHIFT, MAX_SHIFT)
    outside = side * side
    numbers = Image.fromarray(np.arange(outside, dtype=np.int32).reshape(side, side))
    moved = Image.new("I", (side, side), outside)
    moved.paste(numbers.rotate(angle, fillcolor=outside), shift)
    blank = np.zeros((len(bitmaps), 1), dtype=bool)
    pixels = np.concatenate([bitmaps.reshape(len(bitmaps), -1), blank], axis=1)
    return pixels[:, np.asarray(moved).ravel()].reshape(bitmaps.shape)


def _blur(bitmap: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(np.where(bitmap, 0, WHITE).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(BLUR_RADIUS))) < INK_BELOW
