"""Build time: text -> tokenizer, tokens -> glyph bitmaps -> packed bits, saved with a fingerprint."""

from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.font import load_font
from frozen_glyph.substrate.vocabulary import build_tokenizer

__all__ = ["GlyphSubstrate", "build_tokenizer", "load_font"]
