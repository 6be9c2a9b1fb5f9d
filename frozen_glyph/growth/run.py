"""A growth run: one folder that holds every stage, its recipe and provenance, and that can be killed and resumed."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from frozen_glyph.checkpoint.card import inherited
from frozen_glyph.checkpoint.config import vectors_of
from frozen_glyph.checkpoint.contract import (
    CARD_FILE,
    CONFIG_FILE,
    GROWTH_PAGE,
    GROWTH_PICTURE,
    METRICS,
    PROVENANCE_FILE,
    WORK_FOLDER,
    metrics_file,
)
from frozen_glyph.checkpoint.files import read_json, write_text
from frozen_glyph.checkpoint.places import one_writer
from frozen_glyph.checkpoint.provenance import vouch_for, write_provenance
from frozen_glyph.checkpoint.records import GrowthRecord
from frozen_glyph.growth.ground import check_first_stage, first_stage_config, open_ground
from frozen_glyph.growth.live import LivePage
from frozen_glyph.growth.lora import check_peft
from frozen_glyph.growth.page import write_page
from frozen_glyph.growth.parent import adopt_parent, check_positions
from frozen_glyph.growth.plot import plot_growth
from frozen_glyph.growth.quantize import check_kind
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run_folder import amend, claim, clear_leftovers, open_run, released_on_error, run_card
from frozen_glyph.growth.stage import Run, grow_stage, unfinished_phase, work_folder
from frozen_glyph.growth.work_folder import adopt_work, clear_work, open_work
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.callbacks import tensorboard_in
from frozen_glyph.training.data import open_windows
from frozen_glyph.training.launch import first_process_first, told_by_first
from frozen_glyph.training.recipe import DataRecipe, choose_data
from frozen_glyph.training.sources import (
    Identities,
    corpus_record,
    documents,
    held_out_documents,
    identify,
    mixture_warning,
)
from frozen_glyph.training.train import check_machine
from frozen_glyph.training.trainer import TrainingDiverged


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

    On the way the recipe may change in what does not change the result (see ``mend.py``): micro_batch_size,
    activation_checkpointing, save_steps and report_to of ``training``, the name, health, license and language, and
    stages after the last. A stage that diverged may begin again with a lower learning rate. Provenance records it.

    Raises:
        RunFolderError: ``out`` holds a run of another recipe or other texts, or foreign files.
        FolderInUse: another process writes into ``out``.
        RecipeError, TextFileError, CheckpointError: a recipe, text or stored file is not usable.
        TrainingDiverged: the loss is no longer a number.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    data = choose_data(recipe.data, recipe.training, text, valid)
    check_stages(recipe)
    identities = told_by_first(lambda: identify(data))
    with first_process_first():
        run, provenance = open_everything(recipe, Path(out), data, identities, substrate, progress)
    for stage in range(len(provenance["stages"]) + 1, run.first_stage + len(recipe.stages)):
        if state.is_main_process:  # nothing vouches for what is renewed while the stage trains
            losses = (metrics_file(stage, kind) for kind in METRICS)
            vouch_for(run.out, (GROWTH_PICTURE, GROWTH_PAGE, *losses), {})
        try:
            with tensorboard_in(run.out / "tensorboard"):
                entry = grow_stage(run, stage, LivePage(run.out, provenance))
        except TrainingDiverged as error:
            if state.is_main_process:
                provenance["diverged"] = {"stage": stage, "phase": unfinished_phase(run, stage), "message": str(error)}
                write_provenance(run.out, "growth", provenance)
            raise
        provenance["stages"].append(entry)
        provenance.pop("diverged", None)
        if state.is_main_process:
            vectors = vectors_of(read_json(run.out / CONFIG_FILE))
            card = run_card(run.out.resolve().name, recipe, provenance, inherited([run.out]), vectors)
            write_text(run.out / CARD_FILE, card)
            plot_growth(run.out, provenance)
            write_page(run.out, provenance, live=stage < run.last_stage)
            write_provenance(run.out, "growth", provenance)
            clear_work(run.work, work_folder(run, stage).name)
        state.wait_for_everyone()
    return provenance


def check_stages(recipe: GrowthRecipe) -> None:
    """Raise before the first stage what a later one would: a package or device that the recipe needs is missing."""
    check_machine(recipe.training)
    sharded = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    if sharded and any(stage.optimizer == "carried" for stage in recipe.stages):
        raise RecipeError(
            "recipe field stages.optimizer='carried': FSDP and DeepSpeed divide the optimiser state among processes; "
            "say new, or launch with DistributedDataParallel"
        )
    rotates = next((stage.rotate for stage in recipe.stages if stage.rotate is not None), None)
    if rotates is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"recipe field stages.rotate={rotates}: processes that share a step wait for gradients of all blocks; "
            "leave it out, or launch one process"
        )
    if recipe.lora is not None or any(stage.lora_below is not None for stage in recipe.stages):
        check_peft()
    kind = recipe.training.quantize_frozen
    if kind != "none" and (recipe.parent is not None or len(recipe.stages) > 1):
        check_kind(kind, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def open_everything(
    recipe: GrowthRecipe,
    out: Path,
    data: DataRecipe,
    identities: Identities,
    substrate: str | Path | None,
    progress: bool,
) -> tuple[Run, GrowthRecord]:
    """Check the inputs, claim ``out``, and put there what stage 1 needs: parent, substrate, packed tokens."""
    provenance, changes = open_run(out, recipe, *identities.records())
    valid = held_out_documents(data)
    main = PartialState().is_main_process
    if main:
        clear_leftovers(out)
        if (out / PROVENANCE_FILE).exists():
            adopt_work(open_work(out))
    with released_on_error(out):
        if recipe.parent is not None:
            claim(out, provenance)
            if "parent" not in provenance:
                provenance["stages"] = adopt_parent(recipe.parent.where, out)
                check_positions(recipe, out)
                provenance["parent"] = {"stages": len(provenance["stages"])}
                write_provenance(out, "growth", provenance)
        texts = (text for source in data.sources for text in documents(source, data.normalize))
        ground = open_ground(out, recipe, texts, substrate)
        if recipe.parent is None:
            check_first_stage(recipe, ground)
        sha256 = ground.tokenizer_sha256
        windows, held_out = open_windows(
            data, recipe.training, ground.tokenizer, sha256, out / WORK_FOLDER, progress, identities
        )
        packed: Any = windows.tokens  # memory-mapped
        tokens = Path(packed.filename)
        if "corpus" not in provenance and (corpus := corpus_record(data, tokens)) is not None:
            provenance["corpus"] = corpus
            if main and (warning := mixture_warning(corpus, data.tokens)) is not None:
                warnings.warn(warning, stacklevel=3)
        if recipe.parent is None:
            claim(out, provenance)
            ground.save(out, first_stage_config(recipe, ground).max_position_embeddings)
        first_stage = provenance.get("parent", {"stages": 0})["stages"] + 1
        if changes and len(provenance["stages"]) < first_stage - 1 + len(recipe.stages):
            amend(out, provenance, recipe, changes)
        run = Run(recipe, out, ground, tokens.name, windows, held_out, valid, first_stage, progress)
    return run, provenance
