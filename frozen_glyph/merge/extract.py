"""Take an expert out of a merged checkpoint again, bit for bit, as an ordinary checkpoint.

frozen-glyph extract runs/merged ru -o runs/ru-again
"""

from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.card import inherited, model_card
from frozen_glyph.checkpoint.companions import copy_companions
from frozen_glyph.checkpoint.config import SUBSTRATE_FIELDS, SUBSTRATE_GEOMETRY, identity, shared_blocks
from frozen_glyph.checkpoint.contract import (
    ADAPTER_FOLDER,
    CARD_FILE,
    CONFIG_FILE,
    DEFAULT_INDEX,
    HEAD_SHARD,
    SUBSTRATE_SHARD,
    blocks_shard,
)
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file, write_index, write_json, write_text
from frozen_glyph.checkpoint.folders import new_folder
from frozen_glyph.checkpoint.places import check_vacant
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.streaming import Joined, Window, write_shards
from frozen_glyph.checkpoint.tensors import BLOCKS_PREFIX, SUBSTRATE_PREFIX, layer_of
from frozen_glyph.checkpoint.verify import verify_shards
from frozen_glyph.errors import nearest
from frozen_glyph.merge.adapters import write_adapter
from frozen_glyph.merge.experts import Expert, check_shapes, expert_sha256, hash_substrates, open_experts


def extract_expert(merged: str | Path, name: str, out: str | Path) -> Path:
    """Write the expert ``name`` of the folder or Hub id ``merged`` into the new folder ``out``, whole or not at all.

    Its tensors have the bits that were merged, converted ones where that merge had a ``dtype``: their hash is compared
    with the one recorded then. Blocks that all experts share are in a shard of their own, so that merging extracted
    experts finds them again. An expert with an adapter becomes its base and a PEFT folder ``lora`` in it; merge
    ``out/lora`` to use it as an expert again.

    Raises:
        CheckpointError: ``merged`` is no merged checkpoint, has no such expert, is damaged, or its head was tuned for
            all experts together; ``out`` exists.
    """
    out = Path(out)
    check_vacant(out)
    expert = find_expert(str(merged), name)
    shards = assign_tensors(expert)
    with new_folder(out) as temporary:
        digests = write_shards(temporary, shards, expert.checkpoint.linkable)
        if expert.adapter:
            digests |= write_adapter(expert.adapter, temporary / ADAPTER_FOLDER)
        hash_substrates([expert], digests)
        content = check_extracted(expert, digests)
        contents = write_index(temporary / DEFAULT_INDEX, {name: shard for shard in shards for name in shards[shard]})
        config = expert_config(expert)
        write_json(temporary / CONFIG_FILE, config)
        write_text(temporary / CARD_FILE, expert_card(out.name, expert))
        copy_companions(expert.checkpoint.folder, temporary, "extract", config["max_position_embeddings"])
        adapter = {
            path.relative_to(temporary).as_posix(): sha256_file(path) for path in temporary.glob(f"{ADAPTER_FOLDER}/*")
        }
        facts: dict[str, Any] = {
            "expert": expert.name,
            "parents": [expert.checkpoint.parent],
            "content_sha256": content,
        }
        if expert.converted:
            facts["converted"] = list(expert.converted)
        write_provenance(temporary, "extract", facts | {"contents": contents, "files": adapter})
    return out


def find_expert(merged: str, name: str) -> Expert:
    """The expert ``name`` of ``merged``; see ``extract_expert`` for the errors."""
    experts = {expert.name: expert for expert in open_experts(Source.parse(merged))}
    first = next(iter(experts.values()))
    if not first.checkpoint.merged:
        raise CheckpointError(f"{merged!r} is a grown model, not a merged one; use it as it is")
    if name not in experts:
        raise CheckpointError(
            f"{merged!r} has no expert {name!r}.{nearest(name, experts)} Its experts: {', '.join(experts)}"
        )
    if experts[name].tuned:
        raise CheckpointError(
            f"the head of {merged!r} was tuned for all experts together, so none has a head of its own; extract from "
            "what it was tuned from, which its provenance.json names"
        )
    check_shapes(experts[name])
    return experts[name]


def assign_tensors(expert: Expert) -> dict[str, dict[str, Joined]]:
    """The tensors of each shard: substrate, shared blocks, own blocks, norm with head."""
    shared = shared_blocks(expert.checkpoint.config)
    found: dict[str, dict[str, Joined]] = {}
    for name, window in expert.tensors.items():
        shard = SUBSTRATE_SHARD if name.startswith(SUBSTRATE_PREFIX) else HEAD_SHARD
        if name.startswith(BLOCKS_PREFIX):
            group = 1 + (0 < shared <= (layer_of(name) or 0))
            shard = blocks_shard(group, group)
        found.setdefault(shard, {})[name] = Joined.alone(window)
    return found


def check_extracted(expert: Expert, digests: dict[Window, str]) -> str:
    """Hash of the expert's contents; ``CheckpointError`` where it is not the recorded one, or a shard was changed."""
    content, checkpoint = expert_sha256(expert, digests), expert.checkpoint
    checkpoint.check_companions()
    recorded = {entry["name"]: entry.get("content_sha256") for entry in checkpoint.provenance.get("experts", [])}
    if not recorded.get(expert.name):
        read = {window.path.name for window in expert.tensors.values()}
        verify_shards(checkpoint.folder, {shard: checkpoint.shards[shard] for shard in read}, digests)
    elif content != recorded[expert.name]:
        raise CheckpointError(
            f"expert {expert.name!r} of {checkpoint.label!r} is damaged: sha256 of its contents {content[:16]}…, "
            f"merged as {recorded[expert.name][:16]}…; `frozen-glyph inspect --verify` names the file; fetch it again"
        )
    return content


def expert_config(expert: Expert) -> dict[str, Any]:
    """The ``config.json`` of the expert alone."""
    merged = expert.checkpoint.config
    kept = [name for name in (*SUBSTRATE_FIELDS, *SUBSTRATE_GEOMETRY, "dtype") if name in merged]
    return {**identity(merged=False), **{name: merged[name] for name in kept}, **expert.fields}


def expert_card(name: str, expert: Expert) -> str:
    """The card of an extracted expert."""
    converted = "".join(f", converted from {how['from']} to {how['to']} as it was merged" for how in expert.converted)
    adapter = {"Adapter": f"The expert is this base with the LoRA adapter in `{ADAPTER_FOLDER}` (peft)."}
    return model_card(
        name,
        f"The expert `{expert.name}` of the merged model `{expert.checkpoint.parent['name']}`, with the bits it had"
        f"{converted}.",
        {
            **(adapter if expert.adapter else {}),
            "Limitations": "A small research model. Its text is not reliable; measure it before you use it.",
        },
        ["grown"],
        base_model=[expert.checkpoint.parent["name"]],
        **inherited([expert.checkpoint.folder]),
    )
