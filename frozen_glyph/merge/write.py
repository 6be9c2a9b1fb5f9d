"""Write the merged checkpoint: shards streamed from the experts' files, verified on the way, then what describes it.

frozen-glyph merge runs/ru runs/zh -o runs/merged
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, DEFAULT_INDEX, SUBSTRATE_SHARD, fingerprint
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    TensorFile,
    check_vacant,
    copy_file,
    hash_contents,
    link_file,
    new_folder,
    write_json,
    write_text,
)
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.stages import copy_model_code, write_index
from frozen_glyph.checkpoint.streaming import Joined, Window, content_sha256, hash_window, write_shard
from frozen_glyph.checkpoint.weights import check_contents
from frozen_glyph.merge.card import merge_card
from frozen_glyph.merge.experts import UNRECORDED, Checkpoint, Expert
from frozen_glyph.merge.plan import MergePlan, plan_merge
from frozen_glyph.merge.recipe import ExpertRecipe, MergeRecipe

SHARED_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "substrate.json")
SPARE_BYTES = 64 << 20  # what must stay free on the disk


def merge_experts(
    experts: Sequence[str | Path | ExpertRecipe],
    out: str | Path,
    rule: str = "mean",
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Merge checkpoints into the new folder ``out``, which appears complete or not at all; no model is loaded.

    Experts are folders or Hub ids, ``SOURCE@STAGE`` for a growth stage, ``SOURCE@STAGE+ADAPTER`` for a LoRA adapter on
    it; merged checkpoints count as the experts they were made of. Blocks that all experts share are stored once.
    ``weights`` (default: equal; made to sum 1) are those of the rule ``weighted``, and the prior of ``probability``,
    ``posterior`` and ``evidence``; ``mean`` takes none. ``frozen-glyph reweigh`` changes rule and weights later.

    Raises:
        FrozenGlyphError: unknown rule, unusable weights or names; ``out`` exists, or its disk is too small.
        ExpertsDoNotMatch: the experts do not share substrate, tokenizer, vocabulary or special ids.
        CheckpointError: a file of an expert is missing or damaged.
    """
    recipe = MergeRecipe(
        [expert if isinstance(expert, ExpertRecipe) else str(expert) for expert in experts],
        rule,
        None if weights is None else list(weights),
        None if names is None else list(names),
    )
    check_vacant(Path(out))
    return write_merged(plan_merge(recipe), Path(out))


def write_merged(plan: MergePlan, out: Path) -> Path:
    """Carry out ``plan``; see ``merge_experts``."""
    check_vacant(out)
    check_space(plan, out)
    config = plan.config()
    with new_folder(out) as temporary:
        digests = write_shards(plan.shards, temporary, plan.experts[0].checkpoint)
        hash_substrates(plan.experts, digests)
        share_digests(plan, digests)
        verify_sources(plan.experts, digests)
        weight_map = {name: shard for shard, tensors in plan.shards.items() for name in tensors}
        contents = write_index(temporary / DEFAULT_INDEX, weight_map)
        write_json(temporary / CONFIG_FILE, config)
        record = provenance(plan, digests) | {"contents": contents}
        folders = [expert.checkpoint.folder for expert in plan.experts]
        write_text(temporary / CARD_FILE, merge_card(out.name, config, record["parents"], folders))
        copy_shared_files(plan.experts[0].checkpoint.folder, temporary)
        write_provenance(temporary, "merge", record)
    return out


def check_space(plan: MergePlan, out: Path) -> None:
    """Raise ``CheckpointError`` where the disk cannot hold what ``plan`` writes."""
    place = next(parent for parent in out.absolute().parents if parent.exists())
    free, needed = shutil.disk_usage(place).free, plan.bytes_to_write + SPARE_BYTES
    if free < needed:
        raise CheckpointError(
            f"{str(out)!r} needs {needed:,} bytes, its disk has {free:,} free; make room or choose another"
        )


def write_shards(shards: dict[str, dict[str, Joined]], folder: Path, source: Checkpoint) -> dict[Window, str]:
    """Write every shard, or link the substrate's where ``source`` has the same; the sha256 of what each window read."""
    digests: dict[Window, str] = {}
    substrate = source.substrate_file()
    written = [shard for shard in shards if shard != SUBSTRATE_SHARD or not substrate]
    written.sort(key=lambda shard: -sum(tensor.nbytes for tensor in shards[shard].values()))
    with ThreadPoolExecutor(max_workers=4) as files, ThreadPoolExecutor(os.cpu_count()) as tensors:
        for _, found in files.map(lambda shard: write_shard(folder / shard, shards[shard], tensors), written):
            digests |= found
    if substrate:
        link_file(substrate, folder / SUBSTRATE_SHARD)
    return digests


def hash_substrates(experts: Iterable[Expert], digests: dict[Window, str]) -> None:
    """Read the substrate of every expert, and check it against the fingerprint that is to be shared.

    Raises:
        CheckpointError: a substrate is another than its ``config.json`` says.
    """
    for expert in experts:
        substrate, config = expert.substrate(), expert.checkpoint.config
        digests |= {window: hash_window(window) for window in substrate.values() if window not in digests}
        found = fingerprint({name: digests[window] for name, window in substrate.items()}, config["tokenizer_sha256"])
        if found != config["substrate_fingerprint"]:
            raise CheckpointError(
                f"the substrate in {expert.checkpoint.label!r} has fingerprint {found}, its config.json names "
                f"{config['substrate_fingerprint']}; fetch or write the folder again"
            )


def share_digests(plan: MergePlan, digests: dict[Window, str]) -> None:
    """Blocks that all experts share were read from the first one only; their windows in others have the same bytes."""
    for expert in plan.experts[1:]:
        for name, window in expert.tensors.items():
            if window not in digests:
                digests[window] = digests[plan.experts[0].tensors[name]]


def verify_sources(experts: Iterable[Expert], digests: dict[Window, str]) -> None:
    """Compare what was read of every file with what its folder recorded when it was written.

    Raises:
        CheckpointError: a file has other contents; the message names it.
    """
    for checkpoint in {id(expert.checkpoint): expert.checkpoint for expert in experts}.values():
        verify_shards(checkpoint.folder, checkpoint.shards, digests)
    for expert in experts:
        if expert.adapter and expert.adapter.folder:
            verify_shards(expert.adapter.folder, expert.adapter.shards, digests)


def verify_shards(folder: Path, shards: dict[str, TensorFile], digests: dict[Window, str]) -> None:
    """See ``verify_sources``; what was not read before is read now."""
    for shard, header in shards.items():
        check_contents(folder, shard, header, content_sha256(folder / shard, digests))


def expert_sha256(expert: Expert, digests: dict[Window, str]) -> str:
    """Hash of an expert's tensors, adapters included, by the names they have in a model of its own."""
    tensors = dict(expert.tensors)
    if expert.adapter:
        tensors |= {f"adapters.{name}": window for name, window in expert.adapter.tensors.items()}
    return hash_contents((name, window.dtype, window.shape, digests[window]) for name, window in tensors.items())


def copy_shared_files(source: Path, folder: Path) -> None:
    """Put tokenizer, the substrate's description and the model's code into ``folder``."""
    copy_model_code(folder)
    for name in SHARED_FILES:
        if (source / name).exists():
            copy_file(source / name, folder / name)


def provenance(plan: MergePlan, digests: dict[Window, str]) -> dict[str, Any]:
    """What is recorded of a merge: recipe, one parent for each source, and each expert with its contents' hash."""
    checkpoints = list({id(expert.checkpoint): expert.checkpoint for expert in plan.experts}.values())
    experts = []
    for expert in plan.experts:
        blocks = [None if block.startswith(UNRECORDED) else block for block in expert.blocks]
        experts.append(
            {
                "name": expert.name,
                "parent": checkpoints.index(expert.checkpoint),
                "content_sha256": expert_sha256(expert, digests),
                "blocks": blocks,
                **({"adapter": expert.adapter.record} if expert.adapter else {}),
                **({"tuned": True} if expert.tuned else {}),
            }
        )
    names = [expert.name for expert in plan.experts]
    return {
        "recipe": {"rule": plan.rule, "weights": plan.weights, "experts": names},
        "parents": [checkpoint.parent for checkpoint in checkpoints],
        "experts": experts,
    }
