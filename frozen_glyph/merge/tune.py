"""Train the joint head of a merged model on a mixture, everything else frozen (the second way of arXiv 2507.07129).

frozen-glyph tune-head runs/merged --text mixture.txt --valid ru.valid.txt --valid zh.valid.txt -o runs/tuned
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed

from frozen_glyph.checkpoint.companions import check_links, copy_companions
from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, DEFAULT_INDEX, PROVENANCE_FILE, TUNING_METRICS
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    link_file,
    read_json,
    write_index,
    write_json,
    write_tensors,
    write_text,
)
from frozen_glyph.checkpoint.folders import new_folder, remove_temporaries
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.manifest import Manifest
from frozen_glyph.checkpoint.places import check_vacant, is_first_process, one_writer
from frozen_glyph.checkpoint.provenance import read_provenance, write_provenance
from frozen_glyph.checkpoint.reader import Checkpoint, open_checkpoint
from frozen_glyph.checkpoint.records import TrainedPhase
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.tensors import HEAD_BIAS, HEAD_WEIGHT
from frozen_glyph.merge.experts import TUNED, check_expert_config
from frozen_glyph.merge.tune_card import tuned_card
from frozen_glyph.merge.tune_losses import score_tuning
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.merge.tuned_head import prepare_head, tuned_tensors, tuned_weights
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import rules_with
from frozen_glyph.recipes.changes import Change, differences
from frozen_glyph.training.callbacks import StageProgress, tensorboard_in
from frozen_glyph.training.data import open_windows
from frozen_glyph.training.launch import first_process_first
from frozen_glyph.training.recipe import FREE_FIELDS, DataRecipe, choose_data
from frozen_glyph.training.sources import Identities, corpus_record, held_out_documents, identify, mixture_warning
from frozen_glyph.training.train import Phase, check_machine, train_phase
from frozen_glyph.training.trainer import TrainingDiverged, remove_checkpoints

HEAD = {HEAD_WEIGHT, HEAD_BIAS}
RUN_FILE = "run.json"  # in the work folder: whose checkpoints these are
CHECKPOINTS = "head"  # there too
RATE = "training.learning_rate"


@dataclass(frozen=True)
class Tuning:
    """One call: ``run`` is its identity, ``work`` holds its checkpoints until ``out`` is written."""

    recipe: TuneRecipe
    parent: Checkpoint
    data: DataRecipe
    texts: Identities
    run: dict[str, Any]
    out: Path
    work: Path


@one_writer("out", launched=True)
def tune_head(
    merged: str | Path,
    out: str | Path,
    recipe: TuneRecipe | None = None,
    text: Sequence[str | Path] = (),
    valid: Sequence[str | Path] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Tune what ``recipe`` says of the merged checkpoint ``merged`` (a folder or Hub id); return the new provenance.

    ``out`` appears complete or not at all: an ordinary merged checkpoint that shares all shards but the head's with
    ``merged`` (hard links). Until then checkpoints lie beside it in ``.NAME.tune``, and the same call resumes a run
    that was stopped, to the same bits; one that is complete is left as it is. ``text`` and ``valid`` take the place of
    the files in ``recipe.data``. Each held-out text is scored under every expert alone, merged and tuned. Under
    ``accelerate launch`` or ``torchrun`` every process calls this; the first one writes.

    Raises:
        RecipeError, TextFileError: the recipe or a text is not usable.
        CheckpointError: ``merged`` is damaged or no merged checkpoint of rule ``mean`` or ``weighted``; ``out`` is not
            free, or the checkpoints beside it belong to another run.
        FolderInUse: another process writes ``out``.
        TrainingDiverged: the loss is no longer a number; nothing was written.
    """
    recipe = recipe or TuneRecipe()
    data = choose_data(recipe.data, recipe.training, text, valid)
    state = PartialState(cpu=not torch.cuda.is_available())
    with first_process_first():
        tuning = open_tuning(merged, Path(out).resolve(), recipe, data)
        if (tuning.out / PROVENANCE_FILE).exists():
            clear_work(tuning)
            return read_provenance(tuning.out)
        held_out_texts = held_out_documents(data)
        tokenizer = load_tokenizer(tuning.parent.folder, local_files_only=True)
        sha256 = tuning.parent.config["tokenizer_sha256"]
        windows, held_out = open_windows(data, recipe.training, tokenizer, sha256, tuning.work, progress, tuning.texts)
        packed: Any = windows.tokens  # memory-mapped
        if (corpus := corpus_record(data, Path(packed.filename))) is not None:
            tuning.run["corpus"] = corpus
            if state.is_main_process and (warning := mixture_warning(corpus, data.tokens)) is not None:
                warnings.warn(warning, stacklevel=2)
        claim(tuning)
    set_seed(recipe.seed)
    model = FrozenGlyphMoEForCausalLM.from_pretrained(tuning.parent.folder, dtype=torch.float32)
    prepare_head(model, recipe)
    steps = recipe.training.steps_of(recipe.steps, recipe.tokens)
    phase = Phase(steps, recipe.training.learning_rate, recipe.seed)
    folder, logs = Manifest(tuning.work).make(CHECKPOINTS), tuning.out.with_name(f"{tuning.out.name}-tensorboard")
    with closing(StageProgress(f"tune {recipe.what}", progress)) as bar, tensorboard_in(logs):
        try:
            found = train_phase(model, windows, phase, recipe.training, folder, [bar], held_out)
        except TrainingDiverged as error:
            if state.is_main_process:
                write_run(tuning, {"diverged": {"message": str(error)}})
            raise
    if state.is_main_process:
        write_tuned(tuning, model, found, held_out_texts)
        clear_work(tuning)
    state.wait_for_everyone()
    return read_provenance(tuning.out)


def open_tuning(merged: str | Path, out: Path, recipe: TuneRecipe, data: DataRecipe) -> Tuning:
    """Check everything that can be checked before the text is read."""
    parent = open_checkpoint("merged checkpoint", Source.parse(merged))
    check_links(parent.folder)
    check_expert_config(parent.label, parent.config)
    check_tunable(parent, recipe)
    check_machine(recipe.training)
    texts = identify(data)
    text, held_out = texts.records()
    run = {
        "recipe": recipe.to_dict(),
        "recipe_sha256": recipe.sha256,
        "parents": [parent.parent],
        "data": text,
        "valid": held_out,
    }
    stored = read_provenance(out) if (out / PROVENANCE_FILE).exists() else {}
    refused = changed_fields(stored, run)[1]
    if stored and not refused:
        open_checkpoint("merged checkpoint", Source(str(out))).verify({})
    elif stored.get("kind") == TUNED:
        raise CheckpointError(
            f"{str(out)!r} exists and is not empty: it holds a tuning with another recipe, text or parent "
            f"({'; '.join(map(str, refused))}); choose a new folder"
        )
    else:
        check_vacant(out)
        parent.verify({})
    return Tuning(recipe, parent, data, texts, run, out, out.with_name(f".{out.name}.tune"))


def check_tunable(parent: Checkpoint, recipe: TuneRecipe) -> None:
    """Raise ``CheckpointError`` unless ``parent`` is a merged checkpoint with one head that makes the logits."""
    if not parent.merged:
        raise CheckpointError(f"{parent.label!r} is no merged checkpoint; merge experts first: frozen-glyph merge")
    rule, longest = parent.config["rule"], parent.config["max_position_embeddings"]
    if rule not in (one_head := rules_with(one_head=True)):
        raise CheckpointError(
            f"{parent.label!r} has rule {rule!r}, which combines the logits of each expert's own head; only under "
            f"{' and '.join(one_head)} one joint head makes them. Merge again with --rule mean, or "
            "frozen-glyph reweigh --rule mean"
        )
    for shard, header in parent.shards.items():
        if header.tensors.keys() & HEAD and header.tensors.keys() != HEAD:
            raise CheckpointError(
                f"{str(parent.folder / shard)!r} holds the head together with other tensors; merge the experts again, "
                "which gives the head a shard of its own"
            )
    if recipe.training.context_length > longest:
        raise CheckpointError(
            f"recipe field training.context_length={recipe.training.context_length} exceeds max_position_embeddings="
            f"{longest} of {parent.label!r}; shorten it"
        )


def claim(tuning: Tuning) -> None:
    """Make the work folder this run's; ``CheckpointError`` when it is another's.

    A recipe may differ in what does not change the result, and have a lower learning rate after a divergence, from
    which on the run begins again.
    """
    path = tuning.work / RUN_FILE
    if path.exists():
        stored: dict[str, Any] = read_json(path)
        allowed, refused = changed_fields(stored, tuning.run)
        if refused:
            raise CheckpointError(
                f"{str(tuning.work)!r} holds checkpoints of a tuning with another recipe, text or parent "
                f"({'; '.join(map(str, refused))}); call that one again to finish it, remove the folder, or choose "
                "another place to write"
            )
        more = {}
        if any(change.field == RATE for change in allowed):
            more["why"] = stored.pop("diverged")["message"]
            remove_checkpoints(tuning.work / CHECKPOINTS)
        if changes := [*stored.get("changes", []), *(change.record(**more) for change in allowed)]:
            tuning.run["changes"] = changes
    write_run(tuning)


def write_run(tuning: Tuning, more: Mapping[str, Any] | None = None) -> None:
    """Say in the work folder whose checkpoints it holds."""
    write_json(tuning.work / RUN_FILE, tuning.run | dict(more or {}))
    Manifest(tuning.work).record(RUN_FILE)


def clear_work(tuning: Tuning) -> None:
    """Delete what this tuning kept beside ``out``; files of others stay."""
    work = Manifest(tuning.work)
    if (
        is_first_process()
        and work.holds(RUN_FILE)
        and not changed_fields(read_json(tuning.work / RUN_FILE), tuning.run)[1]
    ):
        remove_checkpoints(tuning.work / CHECKPOINTS)
        remove_temporaries(tuning.work, lambda name: True)
        work.remove()


def changed_fields(stored: Mapping[str, Any], run: dict[str, Any]) -> tuple[list[Change], list[Change]]:
    """(what differs and may, what differs and may not) between what was begun and this call.

    Of a run that an earlier version began only the hash of the recipe is known.
    """
    names = ["parents", "data", "valid", "recipe" if "recipe" in stored else "recipe_sha256"]
    changes = [change for name in names for change in differences(stored.get(name), run[name], name)]
    changes = [change._replace(field=change.field.removeprefix("recipe.")) for change in changes]

    def may(change: Change) -> bool:
        lower = change.field == RATE and "diverged" in stored and change.now < change.before
        return lower or change.field in [f"training.{name}" for name in FREE_FIELDS]

    return [change for change in changes if may(change)], [change for change in changes if not may(change)]


def write_tuned(tuning: Tuning, model: Any, found: TrainedPhase, texts: dict[str, list[str]]) -> None:
    """Write the tuned checkpoint and score it on ``texts`` as it lies there."""
    parent, recipe, config = tuning.parent, tuning.recipe, dict(tuning.parent.config)
    head = {} if recipe.what == "scales" else tuned_tensors(model)
    if recipe.what == "scales":
        config |= {"rule": "weighted", "expert_weights": tuned_weights(model)}
    experts = [
        {key: value for key, value in record.items() if not head or key != "content_sha256"} | {"parent": 0}
        for record in parent.provenance.get("experts") or []
    ]
    with new_folder(tuning.out) as folder:
        weight_map = {name: shard for shard, header in parent.shards.items() for name in header.tensors}
        for shard in parent.shards:
            if head and weight_map[HEAD_WEIGHT] == shard:
                dtype = getattr(torch, config.get("dtype") or "float32")
                write_tensors(folder / shard, {name: tensor.to(dtype) for name, tensor in head.items()})
            else:
                link_file(parent.folder / shard, folder / shard)
        contents = write_index(folder / DEFAULT_INDEX, weight_map)
        write_json(folder / CONFIG_FILE, config)
        copy_companions(parent.folder, folder, "tune", config["max_position_embeddings"])
        write_text(folder / TUNING_METRICS, "".join(json.dumps(entry) + "\n" for entry in found.pop("history")))
        alone = parent.provenance.get("kind") != TUNED  # the parts of a tuned head are no experts' own
        losses = score_tuning(parent.folder, folder, texts, alone)
        provenance = {
            **tuning.run,
            "seed": recipe.seed,
            **found,
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "expert_weights": model.config.logit_weights if head else config["expert_weights"],
            "nats_per_character": losses,
            "experts": experts,
            "contents": contents,
        }
        write_text(folder / CARD_FILE, tuned_card(tuning.out.name, config, provenance))
        write_provenance(folder, TUNED, provenance)
