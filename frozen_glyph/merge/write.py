"""Write the merged checkpoint: shards streamed from the experts' files, verified on the way, then what describes it.

frozen-glyph merge runs/ru runs/zh -o runs/merged
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from frozen_glyph.checkpoint.companions import copy_companions
from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, DEFAULT_INDEX
from frozen_glyph.checkpoint.files import CheckpointError, write_index, write_json, write_text
from frozen_glyph.checkpoint.folders import new_folder
from frozen_glyph.checkpoint.places import check_vacant
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.records import ExpertRecord
from frozen_glyph.checkpoint.streaming import Window, write_shards
from frozen_glyph.merge.card import merge_card
from frozen_glyph.merge.experts import UNRECORDED, expert_sha256, verify_experts
from frozen_glyph.merge.plan import MergePlan, plan_merge
from frozen_glyph.merge.recipe import ExpertRecipe, MergeRecipe
from frozen_glyph.model.rules_frozen_glyph import DEFAULT_RULE

SPARE_BYTES = 64 << 20  # what must stay free on the disk


def merge_experts(
    experts: Sequence[str | Path | ExpertRecipe],
    out: str | Path,
    rule: str = DEFAULT_RULE,
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    companions: str | None = None,
) -> Path:
    """Merge checkpoints into the new folder ``out``, which appears complete or not at all; no model is loaded.

    Experts are folders or Hub ids, ``SOURCE@STAGE`` for a growth stage, ``SOURCE@STAGE+ADAPTER`` for a LoRA adapter on
    it; merged checkpoints count as the experts they were made of. Blocks that all experts share are stored once.
    ``weights`` (default: equal; made to sum 1) count as the rule says, which may take none. ``frozen-glyph reweigh``
    changes rule and weights later. ``dtype`` converts all numbers, as they stream; without it bits stay what they are.
    Where experts differ in chat template or generation config, those of the one named ``companions`` go along, or the
    first one's; ``plan_merge(recipe).report()`` says where.

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
        dtype=dtype,
        companions=companions,
    )
    check_vacant(Path(out))
    return write_merged(plan_merge(recipe), Path(out))


def write_merged(plan: MergePlan, out: Path) -> Path:
    """Carry out ``plan``; see ``merge_experts``."""
    check_vacant(out)
    check_space(plan, out)
    with new_folder(out) as temporary:
        digests = write_shards(temporary, plan.shards, plan.experts[0].checkpoint.linkable)
        verify_experts(plan.experts, digests)
        weight_map = {name: shard for shard, tensors in plan.shards.items() for name in tensors}
        contents = write_index(temporary / DEFAULT_INDEX, weight_map)
        config = plan.config()
        write_json(temporary / CONFIG_FILE, config)
        record = provenance(plan, digests) | {"contents": contents}
        folders = [expert.checkpoint.folder for expert in plan.experts]
        write_text(temporary / CARD_FILE, merge_card(out.name, config, record["parents"], folders))
        copy_companions(plan.companions.checkpoint.folder, temporary, "merge", config["max_position_embeddings"])
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


def provenance(plan: MergePlan, digests: dict[Window, str]) -> dict[str, Any]:
    """What is recorded of a merge: recipe, one parent for each source, and each expert with its contents' hash."""
    checkpoints = list({id(expert.checkpoint): expert.checkpoint for expert in plan.experts}.values())
    experts: list[ExpertRecord] = []
    for expert in plan.experts:
        record: ExpertRecord = {
            "name": expert.name,
            "parent": checkpoints.index(expert.checkpoint),
            "content_sha256": expert_sha256(expert, digests),
            "blocks": [None if block.startswith(UNRECORDED) else block for block in expert.blocks],
        }
        if expert.adapter:
            record["adapter"] = expert.adapter.record
        if expert.tuned:
            record["tuned"] = True
        if expert.converted:
            record["converted"] = list(expert.converted)
        experts.append(record)
    names = [expert.name for expert in plan.experts]
    asked = {"dtype": plan.dtype, "companions": plan.asked}
    return {
        "recipe": {
            **{"rule": plan.rule, "weights": plan.weights, "experts": names},
            **{key: value for key, value in asked.items() if value is not None},
        },
        "parents": [checkpoint.parent for checkpoint in checkpoints],
        "experts": experts,
    }
