"""Go on from a grown checkpoint: its stages 1..k become the first stages of a new run, and share their bits with it.

Two runs that start from one parent hold the same trunk; on one disk they even hold the same files (hard links).
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.companions import check_links, copy_companions
from frozen_glyph.checkpoint.config import GROWN, is_merged
from frozen_glyph.checkpoint.contract import (
    CONFIG_FILE,
    DEFAULT_INDEX,
    FETCHED_FIRST,
    SUBSTRATE_FILE,
    stage_index,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    check_hashes,
    copy_file,
    link_file,
    read_record,
    read_weight_map,
    sha256_file,
    sha256_json,
    write_json,
)
from frozen_glyph.checkpoint.loading import readable
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.checkpoint.reader import find_weights, open_checkpoint
from frozen_glyph.checkpoint.records import ParentRecord, StageRecord
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.recipes.errors import require


def adopt_parent(parent: Source, out: Path, substrate_fingerprint: str | None = None) -> list[StageRecord]:
    """Put stages 1..k of ``parent`` into ``out`` and return their provenance entries.

    Shards are linked, or copied from another disk, after their bytes were compared with the parent's provenance; of a
    Hub repository only the shards of these stages are fetched. Afterwards ``out`` is a checkpoint whose deepest stage
    is k. A checkpoint without stages, written by ``save_pretrained``, becomes stage 1. Calling again changes nothing.

    Each entry's ``parents`` name, from the origin to ``parent``, the runs it came from: name, stage,
    config_sha256, weights_sha256 (of the hashes of the stage's shards: equal for equal bits).

    Args:
        substrate_fingerprint: of the substrate that the run is to use, where it is known.

    Raises:
        CheckpointError: the parent is merged or of another model family; it has no such stage, no provenance, or
            another substrate than ``substrate_fingerprint`` or ``out``; a file is missing or damaged.
    """
    folder = parent.fetch("parent", [*FETCHED_FIRST, "*.jsonl"])
    parent = parent.at(folder)
    config = read_config(folder)
    if config.get("model_type") != GROWN:
        kind = "a merged model, grow its experts" if is_merged(config) else "no model of frozen_glyph"
        raise CheckpointError(f"parent {parent.source!r} is {kind}: model_type {config.get('model_type')!r}")
    weights = find_weights(dataclasses.replace(parent, stage=None), config)
    open_checkpoint("parent", dataclasses.replace(parent, stage=None)).check_companions()
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() == folder.resolve():
        raise CheckpointError(f"parent {parent.source!r} is the run's own folder; choose a new folder")
    check_substrate(parent, config, substrate_fingerprint, out)
    ladder = config.get("ladder") or []
    if config.get("transformers_weights") != stage_index(len(ladder)):
        return [adopt_plain(parent, folder, weights.shards, out)]
    stage = parent.stage or len(ladder)
    if stage > len(ladder):
        raise CheckpointError(f"parent {parent.source!r} has no stage {stage}; its stages are 1..{len(ladder)}")
    stages = {entry["stage"]: entry for entry in read_provenance(folder).get("stages", [])}
    if missing := [number for number in range(1, stage + 1) if number not in stages]:
        raise CheckpointError(
            f"provenance of parent {parent.source!r} knows no stage {missing[0]}; finish its run first"
        )
    entries = [stages[number] for number in range(1, stage + 1)]
    hashes = {name: digest for entry in entries for name, digest in entry["files"].items()}
    check_indices(folder, entries)
    with readable("configuration", folder):
        known = FrozenGlyphConfig.from_dict(config)
        layers, frozen = known.stage_layers(stage)
    parent.fetch("parent", hashes)
    check_hashes(folder, hashes)
    for name in hashes:
        link_file(folder / name, out / name)
    copy_companions(folder, out, "continue", known.max_position_embeddings, stage)
    copy_file(folder / stage_index(stage), out / DEFAULT_INDEX)
    fields = {"num_hidden_layers": layers, "num_frozen_layers": frozen, "ladder": ladder[:stage]}
    write_json(out / CONFIG_FILE, config | fields | {"transformers_weights": stage_index(stage)})
    return [descendant(parent, folder, entry) for entry in entries]


def check_positions(recipe: GrowthRecipe, out: Path) -> None:
    """Raise ``RecipeError`` when windows are longer than the parent, which ``out`` has adopted, can read."""
    longest = read_config(out).get("max_position_embeddings", FrozenGlyphConfig.max_position_embeddings)
    length, allowed = recipe.training.context_length, f"at most {longest}, the max_position_embeddings of the parent"
    require(length <= longest, "training.context_length", length, allowed)


def check_substrate(parent: Source, config: dict[str, Any], expected: str | None, out: Path) -> None:
    """Raise ``CheckpointError`` when the run's substrate is known and is not the parent's."""
    path = out / SUBSTRATE_FILE
    stored = read_record(path, dict[str, Any]).get("fingerprint") if path.exists() else None
    for fingerprint, owner in ((expected, "the recipe"), (stored, repr(str(out)))):
        if fingerprint is not None and fingerprint != config.get("substrate_fingerprint"):
            raise CheckpointError(
                f"parent {parent.source!r} stands on substrate {config.get('substrate_fingerprint')}, {owner} on "
                f"{fingerprint}; leave the substrate out of the recipe to use the parent's"
            )


def check_indices(folder: Path, entries: list[StageRecord]) -> None:
    """Raise ``CheckpointError`` unless the provenance has the hash of every shard that the stages' indices name."""
    for entry in entries:
        path = folder / stage_index(entry["stage"])
        if unknown := sorted(set(read_weight_map(path).values()) - entry["files"].keys()):
            raise CheckpointError(
                f"{str(path)!r} names {unknown[0]!r}, which the provenance does not know; fetch the parent again"
            )


def adopt_plain(parent: Source, folder: Path, shards: Iterable[str], out: Path) -> StageRecord:
    """Write a checkpoint without stages into ``out`` as stage 1."""
    if parent.stage not in (None, 1):
        raise CheckpointError(f"parent {parent.source!r} was not grown in stages, so it has no stage {parent.stage}")
    parent.fetch("parent", shards)
    check_links(folder)
    open_checkpoint("parent", parent).verify({})
    with readable("model", folder):
        model: Any = FrozenGlyphForCausalLM.from_pretrained(folder)
    layers = model.config.num_hidden_layers
    model.config.ladder, model.config.num_frozen_layers = [layers], 0
    copy_companions(folder, out, "continue", model.config.max_position_embeddings)
    entry: StageRecord = {
        "stage": 1,
        "layers": layers,
        "num_hidden_layers": layers,
        "parameters": model.num_parameters(),
        "trainable_parameters": model.num_parameters(),
        "nats_per_character": {},
        "files": write_stage(out, model, 1),
    }
    return descendant(parent, folder, entry)


def descendant(parent: Source, folder: Path, entry: StageRecord) -> StageRecord:
    """The provenance entry of a stage with its origin."""
    origin: ParentRecord = {
        "name": parent.name,
        "stage": entry["stage"],
        "config_sha256": sha256_file(folder / CONFIG_FILE),
        "weights_sha256": sha256_json(entry["files"]),
    }
    return {**entry, "parents": [*entry.get("parents", []), origin]}
