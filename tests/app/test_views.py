"""What the page shows, as HTML: pictures that are the substrate's bits, and nothing of a text or file as markup."""

import base64
import io
import re

import numpy as np
from PIL import Image

from frozen_glyph.app.glyphs import neighbours_html, picture, tokens_html
from frozen_glyph.app.views import samples_html, stages_html

HOSTILE = "<script>alert(1)</script>"


def test_pictures_are_the_bits(substrate):
    ids = substrate.tokenizer("The cat", add_special_tokens=False)["input_ids"]
    html = tokens_html(substrate, "The cat")
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(shown) == len(ids)
    for data, bitmap in zip(shown, substrate.bitmaps(ids), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert np.array_equal(pixels[..., 1] > 0, bitmap) and not pixels[..., 0].any()
        assert picture(bitmap).endswith(data)


def test_neighbours_stand_beside_each_token_once(substrate):
    html = neighbours_html(substrate, "a a a", k=3)
    assert html.count("fg-row") == len(set(substrate.tokenizer("a a a", add_special_tokens=False)["input_ids"]))
    assert html.count("<figure") == 4 * html.count("fg-row")


def test_texts_are_no_markup(substrate):
    stage = {"stage": 1, "layers": 1, "trained_parameters": None, "nats_per_character": {HOSTILE: 1.5}}
    pages = [
        tokens_html(substrate, HOSTILE),
        neighbours_html(substrate, "<"),
        stages_html([stage], 1),
        samples_html(HOSTILE, [(HOSTILE, HOSTILE)]),
    ]
    assert not any("<script" in page for page in pages)
    assert "1.5000" in pages[2] and "&lt;script" in pages[2]
