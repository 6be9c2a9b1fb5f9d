"""A growth run: one folder that holds every stage, its recipe and provenance, and that can be killed and resumed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from frozen_glyph.checkpoint.card import inherited
from frozen_glyph.checkpoint.contract import CARD_FILE, PROVENANCE_FILE, WORK_FOLDER
from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.checkpoint.locks import one_writer
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.records import GrowthRecord
from frozen_glyph.growth.ground import first_stage_config, open_ground
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.growth.plot import plot_growth
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run_folder import (
    claim,
    clear_leftovers,
    open_run,
    released_on_error,
    run_card,
)
from frozen_glyph.growth.stage import Run, grow_stage, work_folder
from frozen_glyph.growth.work_folder import adopt_work, clear_work, open_work
from frozen_glyph.training.data import open_windows
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe, choose_data
from frozen_glyph.training.sources import documents, source_identities


@one_writer("out", launched=True)
def grow_from_recipe(
    recipe: GrowthRecipe,
    out: str | Path,
    text: Sequence[str | Path] = (),
    valid: Sequence[str | Path] = (),
    substrate: str | Path | None = None,
    progress: bool = False,
) -> GrowthRecord:
    """Carry ``recipe`` out and return the provenance that ``out`` then holds.

    ``out`` becomes one checkpoint folder with all stages. Calling again with the same recipe and texts resumes a run
    that was stopped, and does nothing to one that is complete. ``text`` and ``valid`` are UTF-8 files that take the
    place of those in ``recipe.data``; ``substrate`` is a folder to dock on; by default the recipe's tokenizer is used,
    or a vocabulary is learnt from the text. A recipe or text that is refused leaves ``out`` free, so that it can be
    mended and tried again. Under ``accelerate launch`` or ``torchrun`` every process calls this; the first one writes.

    Raises:
        RunFolderError: ``out`` holds a run of another recipe or other texts, or foreign files.
        FolderInUse: another process writes into ``out``.
        RecipeError, TextFileError, CheckpointError: a recipe, text or stored file is not usable.
        TrainingDiverged: the loss is no longer a number.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():
        run, provenance = open_everything(
            recipe, Path(out), choose_data(recipe.data, recipe.training, text, valid), substrate, progress
        )
    if "tensorboard" in recipe.training.report_to:  # by default its files lie in the work folder and go with it
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.out / "tensorboard"))
    for stage in range(len(provenance["stages"]) + 1, run.first_stage + len(recipe.stages)):
        entry = grow_stage(run, stage)
        provenance["stages"].append(entry)
        if state.is_main_process:
            card = run_card(run.out.resolve().name, recipe, provenance, inherited([run.out]))
            write_text(run.out / CARD_FILE, card)
            plot_growth(run.out, provenance)
            write_provenance(run.out, "growth", provenance)
            clear_work(run.work, work_folder(run, stage).name)
        state.wait_for_everyone()
    return provenance


def open_everything(
    recipe: GrowthRecipe, out: Path, data: DataRecipe, substrate: str | Path | None, progress: bool
) -> tuple[Run, GrowthRecord]:
    """Check the inputs, claim ``out``, and put there what stage 1 needs: parent, substrate, packed tokens."""
    held_out_identities = source_identities(DataRecipe([SourceRecipe(files=data.valid)])) if data.valid else []
    provenance = open_run(out, recipe, source_identities(data), held_out_identities)
    if PartialState().is_main_process:
        clear_leftovers(out)
        if (out / PROVENANCE_FILE).exists():
            adopt_work(open_work(out))
    with released_on_error(out):
        if recipe.parent is not None:
            claim(out, provenance)
            if "parent" not in provenance:
                provenance["stages"] = adopt_parent(recipe.parent.where, out)
                provenance["parent"] = {"stages": len(provenance["stages"])}
                write_provenance(out, "growth", provenance)
        texts = (text for source in data.sources for text in documents(source))
        ground = open_ground(out, recipe, texts, substrate)
        windows, held_out = open_windows(
            data, recipe.training, ground.tokenizer, ground.tokenizer_sha256, out / WORK_FOLDER, progress
        )
        if recipe.parent is None:
            first_stage_config(recipe, ground)  # refuses what does not fit together
            claim(out, provenance)
            ground.save(out)
        first_stage = provenance.get("parent", {"stages": 0})["stages"] + 1
        packed: Any = windows.tokens  # memory-mapped
        valid = [Path(path) for path in data.valid]
        run = Run(recipe, out, ground, Path(packed.filename).name, windows, held_out, valid, first_stage, progress)
    return run, provenance
