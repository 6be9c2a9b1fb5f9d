"""A substrate recipe -> the tokenizer that it names or learns, and the vectors of its tokens."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.build import choose
from frozen_glyph.substrate.choices import SubstrateError
from frozen_glyph.substrate.font import Font, load_font
from frozen_glyph.substrate.ngrams import stream_text
from frozen_glyph.substrate.recipe import SubstrateRecipe
from frozen_glyph.substrate.vocabulary import BYTE_TOKENS, SPECIAL_TOKENS, build_tokenizer

DEFAULT_WIDTH = 256
LEAST_IDS = len(SPECIAL_TOKENS) + len(BYTE_TOKENS)  # of a vocabulary that is learnt


def build_from_recipe(recipe: SubstrateRecipe, text: Sequence[str | Path] = ()) -> GlyphSubstrate:
    """Learn or load the tokenizer and give its tokens their vectors.

    Raises:
        SubstrateError: neither ``text`` nor ``recipe.tokenizer`` is given, or both are.
        FrozenGlyphError: a text, a font or a field is not usable; the message names it.
    """
    if (recipe.tokenizer is None) == (not text):
        raise SubstrateError("give either --text, to learn a vocabulary from, or --tokenizer")
    return substrate_of(recipe, stream_text(text), DEFAULT_WIDTH, 0)


def substrate_of(recipe: SubstrateRecipe, text: Iterable[str], width: int, seed: int) -> GlyphSubstrate:
    """The vectors of the tokenizer that ``recipe`` names, or of one learnt from ``text``.

    What cannot be built is refused before a vocabulary is learnt. ``width`` and ``seed``: see ``draw_tokens``.
    """
    if recipe.tokenizer is None:
        width_asked = width if recipe.width is None else recipe.width
        asked = (recipe.layout, font_of(recipe), recipe.bits, recipe.pca, recipe.whiten, recipe.scale)
        choose(LEAST_IDS, width_asked, *asked)
    return draw_tokens(recipe, tokenizer_of(recipe, text), width, seed)


def font_of(recipe: SubstrateRecipe) -> Font | None:
    """The font that ``recipe`` names, if it does."""
    return load_font(recipe.font) if recipe.font is not None else None


def tokenizer_of(recipe: SubstrateRecipe, text: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that ``recipe`` names, or one learnt from ``text``."""
    if recipe.tokenizer is not None:
        return load_tokenizer(recipe.tokenizer)
    return build_tokenizer(text, recipe.vocab_size, recipe.max_ngram, reserved=recipe.reserved)


def draw_tokens(recipe: SubstrateRecipe, tokenizer: PreTrainedTokenizerBase, width: int, seed: int) -> GlyphSubstrate:
    """The vectors of a tokenizer's tokens; ``width`` and ``seed`` are for a recipe that names none."""
    width = width if recipe.width is None else recipe.width
    seed = seed if recipe.seed is None else recipe.seed
    return GlyphSubstrate.build(
        tokenizer, width, recipe.layout, font_of(recipe), recipe.bits, seed, recipe.pca, recipe.whiten, recipe.scale
    )
