"""A substrate recipe: a YAML file that says which vocabulary to learn, or which tokenizer to load, and how to draw it.

frozen-glyph substrate build --config hub_configs/substrates/bvv241-2-3.yaml --text en.txt -o runs/bvv241-2-3
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from frozen_glyph.recipe_fields import parse, read_recipe
from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.build import SubstrateError
from frozen_glyph.substrate.font import load_font
from frozen_glyph.substrate.ngrams import stream_text
from frozen_glyph.substrate.vocabulary import build_tokenizer


@dataclasses.dataclass(frozen=True)
class SubstrateRecipe:
    """Everything that determines a substrate besides its text; see ``build_tokenizer`` and ``GlyphSubstrate.build``.

    ``tokenizer``, a folder or Hub id, takes the place of ``vocab`` and ``max_ngram``.
    """

    vocab: str | int = "compact"
    max_ngram: int | None = None
    tokenizer: str | None = None
    layout: str = "grid"
    width: int = 256
    bits: int | None = None
    pca: bool = False
    seed: int = 0
    font: str | None = None


def load_substrate_recipe(path: str | Path) -> dict[str, Any]:
    """The fields that a recipe file sets.

    Raises:
        RecipeError: the file is missing or no YAML mapping, a key is unknown, or a value has the wrong type.
    """
    fields = read_recipe(Path(path), "substrate recipe")
    parse(SubstrateRecipe, fields, "")
    return fields


def build_from_recipe(recipe: SubstrateRecipe, text: Sequence[str | Path] = ()) -> GlyphSubstrate:
    """Learn or load the tokenizer and give its tokens their vectors.

    Raises:
        SubstrateError: neither ``text`` nor ``recipe.tokenizer`` is given, or both are.
        FrozenGlyphError: a text, a font or a field is not usable; the message names it.
    """
    font = load_font(recipe.font) if recipe.font is not None else None
    tokenizer = tokenizer_of(recipe, text)
    return GlyphSubstrate.build(tokenizer, recipe.width, recipe.layout, font, recipe.bits, recipe.seed, recipe.pca)


def tokenizer_of(recipe: SubstrateRecipe, text: Sequence[str | Path]) -> PreTrainedTokenizerBase:
    """The tokenizer that ``recipe`` names, or one learnt from ``text``."""
    if (recipe.tokenizer is None) == (not text):
        raise SubstrateError("give either --text, to learn a vocabulary from, or --tokenizer")
    if recipe.tokenizer is not None:
        return AutoTokenizer.from_pretrained(recipe.tokenizer)
    vocab = int(recipe.vocab) if str(recipe.vocab).isdigit() else recipe.vocab
    return build_tokenizer(stream_text(text), vocab, recipe.max_ngram)
