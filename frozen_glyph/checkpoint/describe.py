"""What a checkpoint holds, stage by stage, from its small files and the headers of its shards: no tensor is read.

Command: ``frozen-glyph inspect FOLDER``
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from frozen_glyph.checkpoint.config import (
    expert_blocks,
    expert_names,
    expert_weights,
    is_merged,
    is_ours,
    shared_blocks,
    stored_blocks,
    task_of,
    vectors_of,
)
from frozen_glyph.checkpoint.contract import CONFIG_FILE, PROVENANCE_FILE, control_folder, stage_index
from frozen_glyph.checkpoint.files import CheckpointError, read_json
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.reader import find_weights, first_file, read_weights
from frozen_glyph.checkpoint.records import ExpertFacts, ParentRecord
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stored import check_config, check_provenance
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX
from frozen_glyph.checkpoint.verify import changed_files, unrecorded_files
from frozen_glyph.model.rules_frozen_glyph import RULES


class StageFacts(TypedDict):
    """A growth stage; ``own_bytes`` are not shared with the stage before, losses are of held-out text by name, those of
    ``control`` of what lies beside the run and has read as much; ``flops`` are of its own training and
    ``memory_bytes`` of one device at its peak, as the dry run foretold."""

    stage: int
    layers: int
    parameters: int
    trained_parameters: int | None
    train_loss: float | None
    nats_per_character: dict[str, float]
    control: dict[str, float]
    flops: int | None
    memory_bytes: int | None
    bytes: int
    own_bytes: int
    shards: list[str]
    parents: NotRequired[list[ParentRecord]]


class CheckpointFacts(TypedDict):
    """What ``describe_checkpoint`` returns; ``task``: of what is no language model; ``problems``: file -> what is wrong
    with it."""

    name: str
    kind: str
    task: str | None
    model_type: str
    layers: int | None
    parameters: int
    loaded_bytes: int
    bytes: int
    substrate_fingerprint: str | None
    vectors: str
    stages: list[StageFacts]
    experts: list[ExpertFacts]
    rule: str | None
    costs: str | None
    recipe: dict[str, Any] | None
    seed: int | None
    versions: dict[str, str] | None
    parents: list[ParentRecord]
    verified: bool
    unrecorded: list[str]
    problems: dict[str, str]


class Inventory:
    """Shards of a checkpoint: ``headers`` of those that can be read, ``problems`` of files that cannot."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.headers: dict[str, TensorFile] = {}
        self.problems: dict[str, str] = {}

    def read(self, file: str) -> list[str]:
        """The readable shards that ``file`` means: those an index names, or the file itself."""
        try:
            weights = read_weights(self.source, file)
        except CheckpointError as error:
            self.problems[file] = str(error) if self.source.holds(file) else "missing"
            return []
        for shard in weights.shards:
            if shard not in self.headers and shard not in self.problems:
                try:
                    self.headers[shard] = self.source.header(shard)
                except CheckpointError as error:
                    self.problems[shard] = str(error)
        readable = {shard: self.headers[shard] for shard in weights.shards if shard in self.headers}
        for shard in weights.foreign(readable):
            self.problems[shard] = f"is of another checkpoint than {file} or was changed"
        return list(readable)

    def parameters(self, shards: list[str]) -> int:
        """Number of parameters, as ``num_parameters`` counts them: a frozen substrate has none."""
        buffers = {SUBSTRATE_PREFIX + name for name in ("packed_bits", "center", "projection", "gain")}
        return sum(
            math.prod(tensor.shape)
            for shard in shards
            for name, tensor in self.headers[shard].tensors.items()
            if name not in buffers
        )

    def nbytes(self, shards: Iterable[str]) -> int:
        return sum(self.headers[shard].nbytes for shard in shards)


def describe_checkpoint(source: str | Path | Source, verify: bool = False) -> CheckpointFacts:
    """Describe a grown, merged or plain checkpoint: a folder, or a Hub id, whose shards are not downloaded.

    ``NAME@STAGE`` is described as it was after that growth stage.

    Args:
        verify: also compare every file with its recorded hash, which reads all of a folder; ``unrecorded`` are those
            that have none.

    Raises:
        CheckpointError: there is no such checkpoint, its ``config.json`` or provenance is damaged, or ``verify`` is
            asked of a Hub id.
    """
    source = Source.parse(source)
    config = source.json(CONFIG_FILE)
    if config is None:
        raise CheckpointError(
            f"{source.source!r} has no config.json; give a checkpoint, or finish the run's first stage"
        )
    if not isinstance(config, dict) or not is_ours(config):
        raise CheckpointError(f"{source.source!r} holds no checkpoint of frozen_glyph: its config.json says otherwise")
    check_config(config, Path(source.source) / CONFIG_FILE)
    provenance = source.json(PROVENANCE_FILE)
    provenance = {} if provenance is None else check_provenance(provenance, Path(source.source) / PROVENANCE_FILE)
    default, inventory = first_file(source, config), Inventory(source)
    stages = describe_stages(inventory, (config.get("ladder") or [])[: source.stage], default, provenance)
    loaded = inventory.read(default)
    try:
        find_weights(source, config)
    except CheckpointError as error:
        inventory.problems[default] = str(error)
    problems = inventory.problems | unfinished_reweigh(config, provenance)
    unrecorded: list[str] = []
    if verify:
        if source.folder is None:
            raise CheckpointError(f"{source.source!r} is on the Hub; download it to verify its bytes")
        problems |= changed_files(source.folder, provenance, inventory.headers, set(problems))
        unrecorded = unrecorded_files(source.folder, provenance, inventory.headers)
    return {
        "name": source.name if source.stage is None else f"{source.name}@{source.stage}",
        "kind": provenance.get("kind", "plain"),
        "task": task_of(config),
        "model_type": config["model_type"],
        "layers": stored_blocks(config) if source.stage is None else config["ladder"][source.stage - 1],
        "parameters": inventory.parameters(loaded),
        "loaded_bytes": inventory.nbytes(loaded),
        "bytes": inventory.nbytes(inventory.headers),
        "substrate_fingerprint": config.get("substrate_fingerprint"),
        "vectors": vectors_of(config),
        "stages": stages,
        "experts": describe_experts(config, provenance) if is_merged(config) else [],
        "rule": config.get("rule"),
        "costs": RULES[config["rule"]].costs if config.get("rule") in RULES else None,
        "recipe": provenance.get("recipe"),
        "seed": provenance.get("seed"),
        "versions": provenance.get("versions"),
        "parents": provenance.get("parents", []),
        "verified": verify,
        "unrecorded": unrecorded,
        "problems": dict(sorted(problems.items())),
    }


def describe_stages(
    inventory: Inventory, ladder: list[int], default: str, provenance: dict[str, Any]
) -> list[StageFacts]:
    """Each stage, its shards read; none where a plain load, by the index ``default``, gives no stage."""
    if default != stage_index(len(ladder)):
        return []
    stages: list[StageFacts] = []
    before: set[str] = set()
    entries = {entry["stage"]: entry for entry in provenance.get("stages", [])}
    control = control_losses(inventory.source.folder)
    for number, layers in enumerate(ladder, start=1):
        shards, entry = inventory.read(stage_index(number)), entries.get(number, {})
        facts: StageFacts = {
            "stage": number,
            "layers": layers,
            "parameters": inventory.parameters(shards),
            "trained_parameters": entry.get("trainable_parameters"),
            "train_loss": entry.get("train_loss"),
            "nats_per_character": entry.get("nats_per_character", {}),
            "control": control.get(number, {}),
            "flops": entry.get("flops"),
            "memory_bytes": entry.get("memory_bytes"),
            "bytes": inventory.nbytes(shards),
            "own_bytes": inventory.nbytes(set(shards) - before),
            "shards": shards,
        }
        if "parents" in entry:
            facts["parents"] = entry["parents"]
        stages.append(facts)
        before |= set(shards)
    return stages


def control_losses(folder: Path | None) -> dict[int, dict[str, float]]:
    """Held-out losses of the control beside a run, by stage; nothing where there is none, or a damaged one."""
    if folder is None:
        return {}
    path = control_folder(folder) / PROVENANCE_FILE
    try:
        stages = check_provenance(read_json(path), path).get("stages", [])
    except (CheckpointError, OSError):
        return {}
    return {entry["stage"]: entry.get("nats_per_character", {}) for entry in stages}


def describe_experts(config: dict[str, Any], provenance: dict[str, Any]) -> list[ExpertFacts]:
    """Name, blocks (all, shared), weight, adapter and origin of each expert of a merged checkpoint."""
    experts, parents = config["experts"], provenance.get("parents", [])
    records = provenance.get("experts") or []
    if len(records) != len(experts):
        records = [{}] * len(experts)
    found: list[ExpertFacts] = []
    for name, expert, layers, weight, record in zip(
        expert_names(config), experts, expert_blocks(config), expert_weights(config), records, strict=True
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
