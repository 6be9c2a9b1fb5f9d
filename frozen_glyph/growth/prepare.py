"""The text of a run, encoded before the run starts, by as many tasks as there are: DATA_AT_SCALE.md shows engines."""

from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import WORK_FOLDER
from frozen_glyph.growth.ground import open_ground
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.training.parts import encode_parts
from frozen_glyph.training.recipe import choose_data
from frozen_glyph.training.sources import documents as documents_of


def encode_text(
    recipe: GrowthRecipe,
    out: str | Path,
    substrate: str | Path | None = None,
    documents: Any = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Encode task ``rank`` of ``world_size``'s share of the training text of ``recipe``, for a run in ``out``.

    A task takes every ``world_size``-th file of the sources (or file of a dataset of the Hub). Any number of tasks, in
    any order, on any machines that share ``out``, gives the same; a task that runs again does what is missing. When
    all have ended, ``grow`` joins the ids to the packed file that it would have written alone, byte for byte.

    ``substrate`` is what ``grow --substrate`` gets, or the parent's folder. Without it each task makes the substrate
    as ``grow`` would: say so only where that learns no vocabulary from the text. ``documents``, which pipelines hand
    from step to step, is not looked at: what filters leave is written to files first, and these are the sources.

    Raises:
        RecipeError, SourceError, TextFileError, CheckpointError: the recipe, a source or the substrate is not usable.
    """
    data = choose_data(recipe.data, recipe.training, (), ())
    texts = (text for source in data.sources for text in documents_of(source, data.normalize))
    ground = open_ground(Path(out), recipe, texts, substrate)
    encode_parts(data, ground.tokenizer, ground.tokenizer_sha256, Path(out) / WORK_FOLDER, rank, world_size)
