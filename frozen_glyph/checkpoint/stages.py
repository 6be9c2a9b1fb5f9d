"""All growth stages in one folder that share frozen shards: substrate, blocks and head of each stage, an index each.

A plain load gives the deepest stage; ``from_pretrained(folder, growth_stage=k)`` reads the index of stage k. Files that
later stages reuse are never written again; the default index is written last.
"""

import tempfile
from pathlib import Path
from typing import Any

import frozen_glyph.model
from frozen_glyph.checkpoint.files import CheckpointError, copy_file, sha256_file, write_json, write_tensors
from frozen_glyph.checkpoint.provenance import PROVENANCE_FILE, read_provenance

SUBSTRATE_SHARD = "substrate.safetensors"
DEFAULT_INDEX = "model.safetensors.index.json"


def stage_index(stage: int) -> str:
    """File name that ``variant="stage-k"`` looks for."""
    return f"model.safetensors.index.stage-{stage}.json"


def copy_model_code(folder: Path) -> None:
    """Put the files of the model room beside the weights, for machines that load with ``trust_remote_code``."""
    for source in sorted(Path(frozen_glyph.model.__path__[0]).glob("*_frozen_glyph*.py")):
        copy_file(source, folder / source.name)


def write_configs(folder: Path, model: Any) -> None:
    """Write ``config.json`` and ``generation_config.json`` atomically, which transformers itself does not."""
    with tempfile.TemporaryDirectory() as temporary:
        model.config.save_pretrained(temporary)
        model.generation_config.save_pretrained(temporary)
        for name in ("generation_config.json", "config.json"):
            copy_file(Path(temporary) / name, folder / name)


def write_index(path: Path, weight_map: dict[str, str], total_size: int) -> None:
    """Write a shard index as transformers reads it."""
    write_json(path, {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))})


def write_stage(folder: Path, model: Any, stage: int) -> dict[str, str]:
    """Add ``model`` to ``folder`` as growth stage ``stage`` (from 1) and return the sha256 of each shard it uses.

    ``model.config.ladder`` must hold the block count of every stage up to this one. Only this stage's own blocks,
    final norm and head are written; lower blocks and the substrate are taken from the shards already there.

    Raises:
        CheckpointError: the folder's provenance says that this stage is complete.
    """
    if (folder / PROVENANCE_FILE).exists() and stage <= len(read_provenance(folder).get("stages", [])):
        raise CheckpointError(
            f"stage {stage} exists already in {str(folder)!r}; write the next one or choose a new folder"
        )
    ladder = model.config.ladder
    first = [0, *ladder[:-1]]
    shards: dict[str, dict[str, Any]] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.embed_tokens."):
            shard = SUBSTRATE_SHARD
        elif name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            owner = max(index for index, begin in enumerate(first) if layer >= begin) + 1
            shard = f"blocks-{owner}.safetensors"
        else:
            shard = f"head-{stage}.safetensors"
        shards.setdefault(shard, {})[name] = tensor
    for shard, tensors in shards.items():
        own = shard in (f"blocks-{stage}.safetensors", f"head-{stage}.safetensors")
        if own or not (folder / shard).exists():
            write_tensors(folder / shard, tensors)
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    total_size = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors.values())
    copy_model_code(folder)
    write_index(folder / stage_index(stage), weight_map, total_size)
    write_configs(folder, model)
    write_index(folder / DEFAULT_INDEX, weight_map, total_size)
    return {shard: sha256_file(folder / shard) for shard in sorted(shards)}
