"""A substrate recipe: a YAML file that says which vocabulary to learn, or which tokenizer to load, and how to draw it.

frozen-glyph substrate build --config substrates/bvv241-2-3 --text en.txt -o runs/bvv241-2-3
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le
from pydantic import AliasChoices, BeforeValidator, Field
from transformers import PreTrainedTokenizerBase

from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.recipes.errors import require
from frozen_glyph.recipes.fields import Flag, Integer, OneOf, Seed, Text, parse, recipe
from frozen_glyph.recipes.files import beside, put, read_recipe
from frozen_glyph.recipes.shipped import find_recipe
from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.build import LAYOUTS, SubstrateError
from frozen_glyph.substrate.font import load_font
from frozen_glyph.substrate.ngrams import stream_text
from frozen_glyph.substrate.vocabulary import MOST_IDS, build_tokenizer

DEFAULT_WIDTH = 256
# Recorded where they are given: older records have none.
LATER_FIELDS = ("max_ngram", "reserved", "width", "pca", "whiten", "scale", "seed", "font")


def as_size(value: Any) -> Any:
    """A number of ids may be written as text, as a command line does."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


@recipe("substrate")
class SubstrateRecipe:
    """Token ids and their frozen vectors; see ``build_tokenizer`` and ``GlyphSubstrate.build``."""

    tokenizer: Text | None = None
    """Folder (beside the recipe) or Hub id of a tokenizer; default: a vocabulary is learnt from the text."""
    vocab_size: Annotated[
        Integer | Literal["compact", "bmp", "wide"],
        BeforeValidator(as_size),
        Field(validation_alias=AliasChoices("vocab_size", "vocab")),
    ] = 4096
    """Ids to learn: a number, compact (4,096), bmp (65,536) or wide (131,072)."""
    layout: Annotated[str, OneOf((*LAYOUTS, "trainable"))] = "grid"
    """What a vector is made of: pictures (grid: no two alike; published: as published), codes (binary, random, float),
    or, in growth only, trainable: no substrate but an ordinary table that stage 1 trains, the baseline."""
    bits: Annotated[Integer, Le(2**20)] | None = None
    """Bits of a token; default: what suits layout and width."""
    max_ngram: Integer | None = None
    """Most code points of an n-gram that is learnt; default: 4 of a compact vocabulary, 16 of the others."""
    reserved: Integer | None = None
    """Ids for chat marks and names to come; default: 64 of a compact vocabulary of more than 1,024 ids, else none."""
    width: Annotated[Integer, Le(2**20)] | None = None
    """Length of a vector; default: 256, in growth ``model.hidden_size``."""
    pca: Flag = False
    """Rotate to principal components at full width too."""
    whiten: Literal["none", "partial", "full"] | None = None
    """How far principal components are divided by their deviation; default: full of grid at 1024 bits, else none."""
    scale: Annotated[float, Gt(0), Le(2**10)] | None = None
    """Length of a vector; default: sqrt(width) / 4 where whitened, else 1."""
    seed: Seed | None = None
    """Of the layouts random and float; default: 0, in growth the recipe's ``seed``."""
    font: Text | None = None
    """File (beside the recipe) .hex, .hex.gz, .otf or .ttf; default: GNU Unifont."""

    def __post_init__(self) -> None:
        size = self.vocab_size
        require(isinstance(size, str) or size <= MOST_IDS, "vocab_size", size, f"at most {MOST_IDS}")
        if self.layout == "trainable":
            for name in ("pca", "whiten", "scale", "seed", "font"):
                value = getattr(self, name)
                require(value in (None, False, "none"), name, value, "left out where substrate.layout is trainable")

    def beside(self, folder: Path) -> "SubstrateRecipe":
        """The recipe with tokenizer and font absolute where they lie in ``folder``."""
        paths = {name: getattr(self, name) for name in ("tokenizer", "font")}
        changes: dict[str, Any] = {name: beside(folder, path) for name, path in paths.items() if path is not None}
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same wherever the files lie: of a path only the name is kept."""
        content = dataclasses.asdict(self)
        for name in ("tokenizer", "font"):
            content[name] = content[name] and Path(content[name]).name
        unset = [name for name in LATER_FIELDS if content[name] is None or content[name] is False]
        return {name: value for name, value in content.items() if name not in unset}


def read_substrate_recipe(path: str | Path, folder: Path = Path()) -> dict[str, Any]:
    """What a recipe file in ``folder`` says, or a shipped one by its name, as plain data; tokenizer and font are
    absolute where they lie beside it.

    Raises:
        RecipeError: the file is missing or no YAML mapping, a key is unknown, or a value has the wrong type.
    """
    path = find_recipe(path, "substrate", folder)
    content = read_recipe(path)
    resolved = parse(SubstrateRecipe, content).beside(path.parent)
    return content | {name: getattr(resolved, name) for name in ("tokenizer", "font") if name in content}


def load_substrate_recipe(path: str | Path | None, **fields: Any) -> SubstrateRecipe:
    """The recipe in a file, if one is named; ``fields`` that are not None go first.

    Raises:
        RecipeError: see ``read_substrate_recipe``.
    """
    content = read_substrate_recipe(path) if path is not None else {}
    for name, value in fields.items():
        if value is not None:
            put(content, name, value)
    return parse(SubstrateRecipe, content)


def build_from_recipe(recipe: SubstrateRecipe, text: Sequence[str | Path] = ()) -> GlyphSubstrate:
    """Learn or load the tokenizer and give its tokens their vectors.

    Raises:
        SubstrateError: neither ``text`` nor ``recipe.tokenizer`` is given, or both are.
        FrozenGlyphError: a text, a font or a field is not usable; the message names it.
    """
    if (recipe.tokenizer is None) == (not text):
        raise SubstrateError("give either --text, to learn a vocabulary from, or --tokenizer")
    return draw_tokens(recipe, tokenizer_of(recipe, stream_text(text)), DEFAULT_WIDTH, 0)


def tokenizer_of(recipe: SubstrateRecipe, text: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that ``recipe`` names, or one learnt from ``text``."""
    if recipe.tokenizer is not None:
        return load_tokenizer(recipe.tokenizer)
    return build_tokenizer(text, recipe.vocab_size, recipe.max_ngram, reserved=recipe.reserved)


def draw_tokens(recipe: SubstrateRecipe, tokenizer: PreTrainedTokenizerBase, width: int, seed: int) -> GlyphSubstrate:
    """The vectors of a tokenizer's tokens; ``width`` and ``seed`` are for a recipe that names none."""
    font = load_font(recipe.font) if recipe.font is not None else None
    width = width if recipe.width is None else recipe.width
    seed = seed if recipe.seed is None else recipe.seed
    return GlyphSubstrate.build(
        tokenizer, width, recipe.layout, font, recipe.bits, seed, recipe.pca, recipe.whiten, recipe.scale
    )
