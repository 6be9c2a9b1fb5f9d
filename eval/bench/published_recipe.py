"""The published substrate recipe done plainly, one token at a time: the benchmark's and the tests' reference.

Steps and numbers are those of arXiv 2507.04886 as ``frozen_glyph.substrate.published`` states them. This version also
does what that one leaves out: polar order of the bits, a text file of bit lists, a dense principal component analysis
and a float32 table.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont


def token_image(text: str, font: ImageFont.FreeTypeFont, side: int) -> Image.Image:
    """One token's picture, 0 for ink and 255 for white."""
    strip = Image.new("L", (side * len(text), side), 255)
    for place, character in enumerate(text):
        try:
            box = font.getbbox(character)
            x = place * side + (side - (box[2] - box[0])) // 2
            y = (side - (box[3] - box[1])) // 2 - box[1]
            ImageDraw.Draw(strip).text((x, y), character, fill=0, font=font)
        except RuntimeError:
            pass  # the layout engine refuses newlines: a blank cell
    cell = strip.resize((side, side), Image.Resampling.BILINEAR) if len(text) > 1 else strip
    cell = cell.point(lambda grey: 0 if grey < 128 else 255)

    random.seed(42)
    np.random.seed(42)
    western = all(ord(character) < 0x250 or 0x370 <= ord(character) < 0x590 for character in text)
    angle = random.uniform(-4, 4)
    dx, dy = random.randint(-2, 2), random.randint(-2, 2)
    if western:
        turned = cell.rotate(angle, fillcolor=255)
        cell = Image.new("L", (side, side), 255)
        cell.paste(turned, (dx, dy))
    pixels = np.array(cell)
    pixels[np.random.rand(side, side) < (0.01 if western else 0.001)] = 0
    cell = Image.fromarray(pixels)
    if western:
        cell = cell.filter(ImageFilter.GaussianBlur(0.5))
    return cell.point(lambda grey: 0 if grey < 128 else 255)


def polar_order(side: int) -> list[tuple[int, int]]:
    """Places (x, y) of the pixels from the middle outwards and around."""
    places = []
    for y in range(side):
        for x in range(side):
            dx, dy = x - side / 2, y - side / 2
            places.append((math.hypot(dx, dy), math.atan2(dy, dx), x, y))
    return [(x, y) for _, _, x, y in sorted(places)]


def write_bit_lists(texts: Sequence[str], font: ImageFont.FreeTypeFont, side: int, path: Path) -> None:
    """Two lines a token: its number and its bits in polar order, 1 for ink."""
    order = polar_order(side)
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            pixels = token_image(text, font, side).load()
            file.write(f"{number}\n{[int(pixels[place] == 0) for place in order]}\n")


def read_bit_lists(path: Path) -> np.ndarray:
    """What ``write_bit_lists`` wrote, uint8 [V, S]."""
    rows = []
    with path.open(encoding="utf-8") as file:
        while file.readline():
            rows.append([int(bit) for bit in file.readline().strip("[]\n").split(",")])
    return np.array(rows, dtype=np.uint8)


def principal_components(bits: np.ndarray) -> np.ndarray:
    """All principal components of the rows, normalised, float32 [V, S], by a dense singular value decomposition."""
    centred = bits.astype(np.float32)
    centred -= centred.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    components = left * values
    return components / np.maximum(np.linalg.norm(components, axis=1, keepdims=True), 1e-12)
