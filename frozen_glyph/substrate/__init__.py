"""Build time: text -> tokenizer, tokens -> glyph bitmaps -> packed bits, saved with a fingerprint.

The names below load on first use, so that recipes are read without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frozen_glyph.substrate.artifact import GlyphSubstrate
    from frozen_glyph.substrate.font import load_font
    from frozen_glyph.substrate.vocabulary import build_tokenizer

__all__ = ["GlyphSubstrate", "build_tokenizer", "load_font"]

_HOME = {"GlyphSubstrate": "artifact", "build_tokenizer": "vocabulary", "load_font": "font"}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
