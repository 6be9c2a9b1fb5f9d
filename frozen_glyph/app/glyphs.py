"""Tokens as pictures with their nearest neighbours, as HTML; what comes from texts and tokenizers is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.inspect import neighbors
from frozen_glyph.substrate.picture import ESCAPES
from frozen_glyph.substrate.vocabulary import list_tokens
from frozen_glyph.text.loss import AS_TEXT

SHOWN_TOKENS, SHOWN_ROWS = 48, 8


def tokens_html(substrate: GlyphSubstrate, text: str) -> str:
    """The tokens of ``text`` in order, each as a card: picture, text and id; at most ``SHOWN_TOKENS``."""
    ids = substrate.tokenizer(text, **AS_TEXT)["input_ids"]
    if not ids:
        return note("Type a text: its tokens stand here as the model sees them.")
    more = note(f"and {len(ids) - SHOWN_TOKENS} more tokens") if len(ids) > SHOWN_TOKENS else ""
    return f'<div class="fg-cards">{"".join(cards(substrate, ids[:SHOWN_TOKENS]))}</div>{more}'


def neighbours_html(substrate: GlyphSubstrate, text: str, k: int = 10) -> str:
    """A row for each different token of ``text``, at most ``SHOWN_ROWS``: the ``k`` nearest, with their cosines."""
    ids = list(dict.fromkeys(substrate.tokenizer(text, **AS_TEXT)["input_ids"]))[:SHOWN_ROWS]
    rows = []
    for token in ids:
        near = neighbors(substrate, token, k)
        pictures = cards(substrate, [other for other, _, _ in near], [f"{cosine:.2f}" for *_, cosine in near])
        (own,) = cards(substrate, [token])
        rows.append(f'<div class="fg-row">{own}<div class="fg-near">{"".join(pictures)}</div></div>')
    return "".join(rows)


def cards(substrate: GlyphSubstrate, ids: Sequence[int], below: Sequence[str] = ()) -> list[str]:
    """A card for each of ``ids``, with its id or what ``below`` says under the text."""
    tokens = list_tokens(substrate.tokenizer)
    made = []
    for place, (token, bitmap) in enumerate(zip(ids, substrate.bitmaps(ids), strict=True)):
        text = "".join(ESCAPES.get(letter, letter) for letter in tokens[token].text)
        under = below[place] if below else str(token)
        made.append(
            f'<figure class="fg-card fg-{tokens[token].kind}" title="id {token}"><img alt="" src="{picture(bitmap)}">'
            f"<figcaption><b>{escape(text)}</b><span>{escape(under)}</span></figcaption></figure>"
        )
    return made


def picture(bitmap: np.ndarray) -> str:
    """A bitmap, bool [H, W], as the address of a PNG that holds its ink alone, on nothing."""
    pixels = np.zeros((*bitmap.shape, 2), dtype=np.uint8)
    pixels[..., 1] = bitmap * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA").save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def note(text: str) -> str:
    """A remark in place of, or under, what is shown."""
    return f'<p class="fg-note">{escape(text)}</p>'
