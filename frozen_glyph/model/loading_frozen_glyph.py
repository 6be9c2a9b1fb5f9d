"""Files of a checkpoint, in a folder or from the Hub: which are missing or damaged, which go along when it is saved."""

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "substrate.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def stage_index(growth_stage: int) -> str:
    """File name of the index of a growth stage."""
    return f"stage-{growth_stage}.safetensors.index.json"


def find_file(source: Any, name: str, arguments: dict[str, Any]) -> Path | None:
    """Path of a file in a folder, or of its copy in the cache if it was fetched from the Hub; None if it is not there.

    ``arguments`` are those of ``from_pretrained``.
    """
    hub = {key: arguments[key] for key in ("cache_dir", "revision", "subfolder") if arguments.get(key) is not None}
    path = cached_file(
        source,
        name,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
    return None if path is None else Path(path)


def carry_companions(source: Any, folder: Path) -> None:
    """Copy the tokenizer's files and the substrate's description from ``source``, as far as they are at hand."""
    for name in COMPANIONS:
        path = find_file(source, name, {}) if source else None
        if path is not None and not (folder / name).exists():
            shutil.copyfile(path, folder / name)


def write_simple_card(folder: Path) -> None:
    """Write a model card that says only what the model is, unless there is one."""
    if not (folder / "README.md").exists():
        data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["frozen-glyph"])
        text = "A causal language model over a frozen glyph embedding, written by `save_pretrained`."
        ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {folder.resolve().name}\n\n{text}\n").save(folder / "README.md")


def examine_shards(
    source: Any, index_name: str | None, arguments: dict[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Read the headers of a checkpoint's weight files.

    ``index_name`` is what the configuration says, ``arguments`` are those of ``from_pretrained``.

    Returns:
        owners: the file that holds each tensor, or should hold it.
        complaints: file -> what is wrong with it.
    """
    owners: dict[str, str] = {}
    complaints: dict[str, str] = {}
    shards, expected = {WEIGHTS}, {}
    if index_name is not None or not find_file(source, WEIGHTS, arguments):
        index_name = index_name or INDEX
        path = find_file(source, index_name, arguments)
        if path is None:
            return {}, {index_name: "is missing"}
        try:
            index = json.loads(path.read_bytes())
        except ValueError as error:
            return {}, {index_name: f"cannot be read ({error})"}
        owners = dict(index["weight_map"])
        shards, expected = set(owners.values()), index["metadata"].get("content_sha256", {})
    for shard in sorted(shards):
        path = find_file(source, shard, arguments)
        if path is None:
            complaints[shard] = "is missing"
            continue
        try:
            with safe_open(path, framework="pt") as file:
                names, metadata = file.keys(), file.metadata() or {}
        except SafetensorError as error:
            complaints[shard] = f"cannot be read ({error})"
            continue
        owners |= dict.fromkeys(names, shard)
        if shard in expected and metadata.get("content_sha256") != expected[shard]:
            complaints[shard] = "is of another checkpoint or was changed"
    return owners, complaints


__all__ = [
    "HUB_ARGUMENTS",
    "INDEX",
    "carry_companions",
    "examine_shards",
    "find_file",
    "stage_index",
    "write_simple_card",
]
