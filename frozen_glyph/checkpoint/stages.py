"""All growth stages in one folder that share frozen shards: substrate, blocks and head of each stage, an index each.

``config.json`` names the index of the deepest stage, which a plain load gives; ``from_pretrained(folder,
growth_stage=k)`` reads that of stage k. A shard is written once, by the stage that trained it, and never again: where a
later stage trains the same blocks, it writes a new version of their shard, and stages after it use the newest.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.companions import copy_model_code, model_code
from frozen_glyph.checkpoint.contract import (
    CONFIG_FILE,
    DEFAULT_INDEX,
    GENERATION_FILE,
    PROVENANCE_FILE,
    SUBSTRATE_SHARD,
    blocks_shard,
    head_shard,
    stage_index,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    copy_file,
    read_json,
    read_weight_map,
    sha256_file,
    write_index,
    write_json,
    write_tensors,
)
from frozen_glyph.checkpoint.provenance import read_provenance, rewriting
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX, layer_of


def write_configs(folder: Path, model: Any, index: str) -> None:
    """Write ``generation_config.json`` and ``config.json`` atomically, which transformers itself does not.

    ``config.json`` names the index file, so that one rename moves a plain load from one stage to the next, and the
    class, which servers look for.
    """
    said = {"architectures": [type(model).__name__], "transformers_weights": index}
    with tempfile.TemporaryDirectory() as temporary:
        model.config.save_pretrained(temporary)
        model.generation_config.save_pretrained(temporary)
        copy_file(Path(temporary) / GENERATION_FILE, folder / GENERATION_FILE)
        write_json(folder / CONFIG_FILE, read_json(Path(temporary) / CONFIG_FILE) | said)


def assign_shards(
    names: Iterable[str], ladder: list[int], below: dict[str, str], changed_from: int | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the weight maps (tensors that stage ``len(ladder)`` writes, tensors it shares with the stage before).

    ``names`` are the tensors of the model, ``ladder`` its blocks after each stage, ``below`` the weight map of the
    stage before. Shared are the substrate and the blocks below the newest, those from ``changed_from`` on excepted.
    """
    stage = len(ladder)
    newest = max((blocks for blocks in ladder if blocks < ladder[-1]), default=0)
    first = newest if changed_from is None else min(newest, changed_from)
    own: dict[str, str] = {}
    for name in names:
        layer = layer_of(name)
        if layer is not None:
            if layer >= first:
                group = next(number for number, blocks in enumerate(ladder, start=1) if layer < blocks)
                own[name] = blocks_shard(group, stage)
        elif not name.startswith(SUBSTRATE_PREFIX):
            own[name] = head_shard(stage)
        elif stage == 1:
            own[name] = SUBSTRATE_SHARD
    shared = {
        name: shard
        for name, shard in below.items()
        if name.startswith(SUBSTRATE_PREFIX) or ((layer := layer_of(name)) is not None and layer < first)
    }
    return own, shared


def write_stage(folder: Path, model: Any, stage: int, changed_from: int | None = None) -> dict[str, str]:
    """Add ``model`` to ``folder`` as growth stage ``stage`` (from 1) and return the sha256 of each shard it uses.

    ``model.config.ladder`` must hold the block count of every stage up to this one. Written are the newest blocks and
    those from block ``changed_from`` on (0: all, as after a merged LoRA phase), final norm and head, and in stage 1 the
    substrate. The rest is shared with the stage before as it is in ``folder``; what ``model`` holds there, maybe
    quantised, is not looked at.

    Raises:
        CheckpointError: the folder's provenance says that this stage is complete; the stage before is missing or has
            other blocks than the ladder says.
    """
    if (folder / PROVENANCE_FILE).exists() and stage <= len(read_provenance(folder).get("stages", [])):
        raise CheckpointError(
            f"stage {stage} exists already in {str(folder)!r}; write the next one or choose a new folder"
        )
    ladder = model.config.ladder
    if not ladder or len(ladder) != stage or ladder[-1] != model.config.num_hidden_layers:
        raise CheckpointError(
            f"config.ladder={ladder} must have {stage} entries for stage {stage} and end with num_hidden_layers="
            f"{model.config.num_hidden_layers}; grow() sets it"
        )
    below = read_weight_map(folder / stage_index(stage - 1)) if stage > 1 else {}
    found = {layer for name in below if (layer := layer_of(name)) is not None}
    if stage > 1 and found != set(range(ladder[-2])):
        raise CheckpointError(
            f"stage {stage - 1} in {str(folder)!r} has {len(found)} blocks, config.ladder={ladder} says {ladder[-2]}; "
            "write stages in order, each grown from the one before"
        )
    state = model.state_dict()
    own, shared = assign_shards(state, ladder, below, changed_from)
    for shard in sorted(set(own.values())):
        write_tensors(folder / shard, {name: state[name] for name in own if own[name] == shard})
    weight_map = own | shared
    code = [path.name for path in model_code()]
    with rewriting(folder, stage_index(stage), DEFAULT_INDEX, CONFIG_FILE, GENERATION_FILE, *code):
        copy_model_code(folder)
        write_index(folder / stage_index(stage), weight_map)
        write_index(folder / DEFAULT_INDEX, weight_map)
        write_configs(folder, model, stage_index(stage))
    return {shard: sha256_file(folder / shard) for shard in sorted(set(weight_map.values()))}
