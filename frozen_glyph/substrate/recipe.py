"""A substrate recipe: a YAML file that says which vocabulary to learn, or which tokenizer to load, and how to draw it.

frozen-glyph substrate build --config substrates/bvv241-2-3 --text en.txt -o runs/bvv241-2-3
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le
from pydantic import AliasChoices, BeforeValidator, Field

from frozen_glyph.recipes.errors import require
from frozen_glyph.recipes.fields import Flag, Integer, OneOf, Seed, Text, parse, recipe
from frozen_glyph.recipes.files import beside, put, read_recipe
from frozen_glyph.recipes.shipped import find_recipe
from frozen_glyph.substrate.choices import LAYOUTS, MOST_IDS

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
