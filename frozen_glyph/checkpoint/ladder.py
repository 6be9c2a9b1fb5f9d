"""What a checkpoint holds, stage by stage, from its small files and the headers of its shards: no tensor is read.

Command: ``frozen-glyph inspect FOLDER``
"""

import math
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.config import blocks_of, expert_blocks, shared_blocks
from frozen_glyph.checkpoint.contract import (
    CONFIG_FILE,
    DEFAULT_INDEX,
    PROVENANCE_FILE,
    WEIGHTS,
    stage_index,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    StoredTensor,
    TensorFile,
    check_hashes,
    read_header,
    read_json,
)
from frozen_glyph.checkpoint.streaming import content_sha256
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX
from frozen_glyph.model.rules_frozen_glyph import RULES


class Source:
    """Small files and shard headers of a checkpoint folder, or of a Hub repository without fetching its shards.

    The Hub's library, which is slow to import, is imported when it is needed.
    """

    def __init__(self, name: str | Path, revision: str | None = None) -> None:
        self.revision = revision
        self.name, self.folder = str(name), Path(name) if Path(name).is_dir() else None
        if self.folder is None and (Path(name).is_absolute() or self.name.count("/") > 1):
            raise CheckpointError(f"{self.name!r} is no folder, and no Hub id either; give the folder of a checkpoint")

    def json(self, name: str) -> Any:
        """Content of a JSON file; None when there is no such file."""
        if self.folder is not None:
            return read_json(self.folder / name) if (self.folder / name).exists() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return read_json(Path(hf_hub_download(self.name, name, revision=self.revision)))
        except EntryNotFoundError:
            return None

    def header(self, shard: str) -> TensorFile:
        """Header of a shard; ``CheckpointError`` when it is missing or damaged."""
        if self.folder is not None:
            return read_header(self.folder / shard)
        from huggingface_hub import parse_safetensors_file_metadata
        from huggingface_hub.errors import EntryNotFoundError

        try:
            found = parse_safetensors_file_metadata(self.name, shard, revision=self.revision)
        except EntryNotFoundError:
            raise CheckpointError(f"{shard!r} is missing in {self.name!r}") from None
        tensors = {}
        for name, tensor in found.tensors.items():
            start, end = tensor.data_offsets
            tensors[name] = StoredTensor(tensor.dtype, tuple(tensor.shape), start, end - start)
        return TensorFile(tensors, found.metadata.get("content_sha256"))


def parameters(header: TensorFile) -> int:
    """Number of parameters of a shard, as ``num_parameters`` counts them: a frozen substrate has none."""
    buffers = SUBSTRATE_PREFIX + "packed_bits", SUBSTRATE_PREFIX + "center", SUBSTRATE_PREFIX + "projection"
    return sum(math.prod(tensor.shape) for name, tensor in header.tensors.items() if name not in buffers)


def describe_checkpoint(source: str | Path, verify: bool = False) -> dict[str, Any]:
    """Describe a grown, merged or plain checkpoint: a folder, or a Hub id, whose shards are not downloaded.

    Returns a dictionary of plain values. ``stages``: for each its blocks, parameters (all, trained), losses, shards,
    bytes (all, own: not shared with the stage before). ``experts`` of a merged checkpoint. ``problems``: file -> what
    is wrong with it. ``bytes`` of all shards together. Of provenance: recipe, seed, versions, parents.

    Args:
        verify: also compare every shard with its hash in the provenance, which reads all of a folder.

    Raises:
        CheckpointError: there is no such checkpoint, its ``config.json`` or provenance is damaged, or ``verify`` is
            asked of a Hub id.
    """
    files = Source(source)
    config = files.json(CONFIG_FILE)
    if config is None:
        raise CheckpointError(f"{files.name!r} has no config.json; give a checkpoint, or finish the run's first stage")
    if not isinstance(config, dict) or not str(config.get("model_type")).startswith("frozen_glyph"):
        raise CheckpointError(f"{files.name!r} holds no checkpoint of frozen_glyph: its config.json says otherwise")
    provenance = files.json(PROVENANCE_FILE) or {}
    problems: dict[str, str] = {}
    headers: dict[str, TensorFile] = {}

    def shards_of(index_name: str | None) -> list[str]:
        """The readable shards that an index names, their headers read; what cannot be read becomes a problem."""
        index = None
        try:
            index = files.json(index_name) if index_name else None
            shards = sorted(set(index["weight_map"].values())) if index else [WEIGHTS]
            if index_name and index is None:
                problems[index_name], shards = "missing", []
        except (CheckpointError, KeyError, TypeError, AttributeError) as error:
            problems[str(index_name)], shards = str(error), []
        expected = (index or {}).get("metadata", {}).get("content_sha256", {})
        for shard in shards:
            if shard not in headers and shard not in problems:
                try:
                    headers[shard] = files.header(shard)
                except CheckpointError as error:
                    problems[shard] = str(error)
            if shard in headers and headers[shard].content_sha256 != expected.get(shard, headers[shard].content_sha256):
                problems[shard] = f"is of another checkpoint than {index_name} or was changed"
        return [shard for shard in shards if shard in headers]

    default = config.get("transformers_weights") or (DEFAULT_INDEX if files.json(DEFAULT_INDEX) else None)
    ladder = config.get("ladder") or []
    staged = default == stage_index(len(ladder))
    stages, before = [], set[str]()
    entries = {entry["stage"]: entry for entry in provenance.get("stages", [])}
    for number in range(1, len(ladder) + 1) if staged else []:
        shards, entry = shards_of(stage_index(number)), entries.get(number, {})
        stages.append(
            {
                "stage": number,
                "layers": ladder[number - 1],
                "parameters": sum(parameters(headers[shard]) for shard in shards),
                "trained_parameters": entry.get("trainable_parameters"),
                "train_loss": entry.get("train_loss"),
                "nats_per_character": entry.get("nats_per_character", {}),
                "bytes": sum(headers[shard].nbytes for shard in shards),
                "own_bytes": sum(headers[shard].nbytes for shard in shards if shard not in before),
                "shards": shards,
                **({"parents": entry["parents"]} if "parents" in entry else {}),
            }
        )
        before |= set(shards)
    loaded = shards_of(default)
    problems |= unfinished_reweigh(config, provenance)
    if verify:
        problems |= changed_files(files, provenance, set(problems))
    return {
        "name": files.folder.resolve().name if files.folder is not None else files.name,
        "kind": provenance.get("kind", "plain"),
        "model_type": config["model_type"],
        "layers": blocks_of(config),
        "parameters": sum(parameters(headers[shard]) for shard in loaded),
        "loaded_bytes": sum(headers[shard].nbytes for shard in loaded),
        "bytes": sum(header.nbytes for header in headers.values()),
        "substrate_fingerprint": config.get("substrate_fingerprint"),
        "stages": stages,
        "experts": describe_experts(config, provenance),
        "rule": config.get("rule"),
        "costs": RULES[config["rule"]].costs if config.get("rule") in RULES else None,
        "recipe": provenance.get("recipe"),
        "seed": provenance.get("seed"),
        "versions": provenance.get("versions"),
        "parents": provenance.get("parents", []),
        "verified": verify,
        "problems": dict(sorted(problems.items())),
    }


def describe_experts(config: dict[str, Any], provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, blocks (all, shared), weight, adapter and origin of each expert of a merged checkpoint."""
    experts, parents = config.get("experts") or [], provenance.get("parents", [])
    records = provenance.get("experts") or []
    if len(records) != len(experts):
        records = [{}] * len(experts)
    found, weights, names = [], config.get("expert_weights") or [], config.get("expert_names") or []
    for name, expert, layers, weight, record in zip(
        names, experts, expert_blocks(config), weights, records, strict=True
    ):
        found.append(
            {
                "name": name,
                "layers": layers,
                "shared_layers": shared_blocks(config),
                "weight": weight,
                "adapter": expert.get("lora"),
                "content_sha256": record.get("content_sha256"),
                "origin": parents[record["parent"]] if "parent" in record else None,
            }
        )
    return found


def unfinished_reweigh(config: dict[str, Any], provenance: dict[str, Any]) -> dict[str, str]:
    """The problem of a merged checkpoint whose rule was being changed when the process was killed."""
    recipe = provenance.get("recipe") or {}
    if provenance.get("kind") != "merge" or (recipe.get("rule"), recipe.get("weights")) == (
        config.get("rule"), config.get("expert_weights"),
    ):  # fmt: skip
        return {}
    return {
        PROVENANCE_FILE: f"says rule {recipe.get('rule')!r}, weights {recipe.get('weights')}; in force is config.json; "
        "reweigh again"
    }


def changed_files(files: Source, provenance: dict[str, Any], known: set[str]) -> dict[str, str]:
    """Files with other bytes than the provenance says, and what is wrong with each."""
    if files.folder is None:
        raise CheckpointError(f"{files.name!r} is on the Hub; download it to verify its bytes")
    hashes = dict(provenance.get("files", {}))
    for entry in provenance.get("stages", []):
        hashes |= entry["files"]
    problems = {}
    for name, content in provenance.get("contents", {}).items():
        if name not in known and content_sha256(files.folder / name) != content:
            problems[name] = "is damaged: other contents than were written; fetch it again"
    for name, digest in hashes.items():
        try:
            check_hashes(files.folder, {name: digest})
        except CheckpointError as error:
            problems[name] = str(error)
    return {name: problem for name, problem in problems.items() if name not in known}
