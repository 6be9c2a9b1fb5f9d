"""Open what is to be merged: a grown checkpoint is one expert, a merged one is those it was made of.

Opening reads small files and headers only: every tensor becomes a window into the file that holds it, under the name it
has in a model of its own, whatever it is called there. What is then read of a window has its sha256 in ``digests``,
which are compared with what the expert's folder recorded.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.config import (
    EXPERT_FIELDS,
    GROWN,
    MERGED,
    SUBSTRATE_FIELDS,
    expert_blocks,
    expert_names,
    expert_weights,
    shared_blocks,
)
from frozen_glyph.checkpoint.contract import ADAPTER_CONFIG, CONFIG_FILE
from frozen_glyph.checkpoint.dtypes import NAMES, STORED
from frozen_glyph.checkpoint.files import CheckpointError, hash_contents
from frozen_glyph.checkpoint.reader import Checkpoint, open_checkpoint
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.streaming import Window, hash_window
from frozen_glyph.checkpoint.tensors import (
    ADAPTERS_PREFIX,
    BLOCKS_PREFIX,
    EXPERTS_PREFIX,
    HEAD_BIAS,
    HEAD_WEIGHT,
    SUBSTRATE_PREFIX,
    fingerprint,
    layer_of,
    merged_prefixes,
    model_shapes,
    rename,
)
from frozen_glyph.checkpoint.verify import check_adapter, verify_shards
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.adapters import Adapter, find_base, open_adapter
from frozen_glyph.model.rules_frozen_glyph import rules_with

UNRECORDED = "file:"  # a block of a shard without recorded contents is told from others by where it lies
TUNED = "tune-head"  # the kind of a tuned checkpoint; it records the contents of experts only where it kept their heads


class ExpertsDoNotMatch(FrozenGlyphError):
    """Two experts differ in what they must share."""


@dataclass(frozen=True, eq=False)
class Expert:
    """One stack of blocks with its norm and head.

    ``fields`` are the ``EXPERT_FIELDS``, its ``num_hidden_layers`` counts all blocks. ``blocks`` says for each block
    what tells it from others: equal where blocks are equal. ``weight`` is its share of its checkpoint. ``tuned``: its
    head was trained together with those of other experts, and means nothing without them. ``converted``: from which
    types of numbers to which, one time after the other.
    """

    name: str
    checkpoint: Checkpoint
    fields: dict[str, Any]
    tensors: dict[str, Window]
    blocks: tuple[str, ...]
    weight: float = 1.0
    adapter: Adapter | None = None
    tuned: bool = False
    converted: tuple[dict[str, str], ...] = ()

    @property
    def all_tensors(self) -> dict[str, Window]:
        """Its tensors and those of its adapter."""
        adapter = self.adapter.tensors if self.adapter else {}
        return self.tensors | {ADAPTERS_PREFIX + name: window for name, window in adapter.items()}

    def substrate(self) -> dict[str, Window]:
        return {name: window for name, window in self.tensors.items() if name.startswith(SUBSTRATE_PREFIX)}


def in_dtype(expert: Expert, dtype: str) -> Expert:
    """``expert`` with all its numbers of type ``dtype``, as they will be written; what is of that type stays itself.

    Raises:
        CheckpointError: it has numbers of a type that is not converted.
    """
    stored = STORED[dtype]
    tensors = {name: window.converted(stored) for name, window in expert.tensors.items()}
    adapter = expert.adapter
    if adapter:
        lora = {name: window.converted(stored) for name, window in adapter.tensors.items()}
        adapter = dataclasses.replace(adapter, tensors=lora)
    changed = dataclasses.replace(expert, tensors=tensors, adapter=adapter)
    types = sorted({NAMES[window.stored] for window in changed.all_tensors.values() if window.stored})
    if not types:
        return expert
    layers = {layer_of(name) for name, window in tensors.items() if window.stored}
    blocks = tuple(f"{block} as {stored}" if layer in layers else block for layer, block in enumerate(expert.blocks))
    how = {"from": " and ".join(types), "to": dtype}
    return dataclasses.replace(changed, blocks=blocks, converted=(*expert.converted, how))


def open_experts(source: Source, headers_only: bool = False, named: Collection[Path] = ()) -> list[Expert]:
    """The experts of one source, in order; ``named``: folders that the user gave beside it.

    Of a Hub id, the files that the chosen stage needs are fetched; with ``headers_only`` no shard is.

    Raises:
        CheckpointError: a file is missing, truncated, or does not fit the ``config.json``; there is no such stage.
        ExpertsDoNotMatch: the source holds no frozen glyph bits, or is of another model family.
    """
    source = with_base(source, named)
    checkpoint = open_checkpoint("expert", source, headers_only)
    check_expert_config(checkpoint.label, checkpoint.config)
    if checkpoint.merged:
        if source.adapter:
            raise CheckpointError(f"{str(source)!r}: an adapter stands on a grown model, {source.source!r} is merged")
        return merged_experts(checkpoint)
    return [single_expert(checkpoint)]


def with_base(source: Source, named: Collection[Path] = ()) -> Source:
    """An expert that is given as an adapter's folder alone, with the base that its files or its place name.

    ``named``: folders that the user gave beside it.
    """
    folder = Path(source.source)
    if source.adapter or not (folder / ADAPTER_CONFIG).exists() or (folder / CONFIG_FILE).exists():
        return source
    base = find_base(folder, named)
    return Source(base.source, source.stage or base.stage, source.source, source.revision)


def check_expert_config(label: str, config: Any) -> None:
    """Raise ``ExpertsDoNotMatch`` unless a ``config.json`` is of a model, grown or merged, on frozen glyph bits."""
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in (GROWN, MERGED):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has model_type {kind!r}; only 'frozen_glyph' and 'frozen_glyph_moe' can be merged"
        )
    if config.get("linear_kinds"):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has layers of other kinds (linear_kinds={config['linear_kinds']}); only plain "
            "Linears can be merged"
        )
    if config.get("substrate_dense"):
        raise ExpertsDoNotMatch(f"expert {label!r} is a dense export, which holds no glyph bits; merge its parent")
    if config.get("substrate_trainable") or not config.get("substrate_fingerprint"):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has no frozen substrate with a fingerprint; grow it on a substrate folder"
        )
    fields = ("experts", "rule") if kind == MERGED else EXPERT_FIELDS
    if missing := [name for name in (*fields, *SUBSTRATE_FIELDS) if name not in config]:
        raise ExpertsDoNotMatch(f"the config.json of expert {label!r} has no {missing[0]!r}; write the folder again")


def single_expert(checkpoint: Checkpoint) -> Expert:
    """A grown checkpoint as an expert, maybe with an adapter on it."""
    config, source, tensors = checkpoint.config, checkpoint.source, checkpoint.windows
    layers = config["num_hidden_layers"] if source.stage is None else config["ladder"][source.stage - 1]
    blocks = tuple(block_identity(checkpoint, f"{BLOCKS_PREFIX}{layer}.") for layer in range(layers))
    adapter = open_adapter(source.adapter, tensors) if source.adapter else None
    if adapter:
        checkpoint.parent["adapter"] = adapter.record
    fields = {name: config[name] for name in EXPERT_FIELDS} | {"num_hidden_layers": layers}
    name = adapter.name if adapter else checkpoint.parent["name"].rpartition("/")[2]
    return Expert(name, checkpoint, fields, tensors, blocks, adapter=adapter)


def block_identity(checkpoint: Checkpoint, prefix: str) -> str:
    """What tells a block from others: the recorded contents of its shard, or the very file, and its place there."""
    for shard, header in checkpoint.shards.items():
        if any(name.startswith(prefix) for name in header.tensors):
            contents = header.content_sha256 or f"{UNRECORDED}{(checkpoint.folder / shard).resolve()}"
            return f"{contents} {prefix}"
    raise CheckpointError(f"{checkpoint.label!r} has no tensors of {prefix}; fetch or write the folder again")


def merged_experts(checkpoint: Checkpoint) -> list[Expert]:
    """The experts that a merged checkpoint was made of, each with the tensors of a model of its own."""
    config = checkpoint.config
    count = len(config["experts"])
    alike = config["rule"] in rules_with(weights="none")
    weights = [1 / count] * count if alike else expert_weights(config)
    return [
        merged_expert(checkpoint, index, name, layers, weight)
        for index, (name, layers, weight) in enumerate(
            zip(expert_names(config), expert_blocks(config), weights, strict=True)
        )
    ]


def merged_expert(checkpoint: Checkpoint, index: int, name: str, layers: int, weight: float) -> Expert:
    """One of ``merged_experts``; ``layers`` counts all its blocks."""
    config, records = checkpoint.config, checkpoint.provenance.get("experts") or []
    count, fields = len(config["experts"]), config["experts"][index]
    if layers > len(checkpoint.windows):
        raise CheckpointError(
            f"the config.json of {checkpoint.label!r} names {layers} blocks of expert {name!r}, its shards hold "
            f"{len(checkpoint.windows)} tensors; fetch or write the folder again"
        )
    record = records[index] if len(records) == count else {}
    prefixes = merged_prefixes(index, layers, shared_blocks(config))
    back = {merged: own for own, merged in prefixes.items()}
    tensors, adapters = {}, {}
    for stored, window in checkpoint.windows.items():
        if stored.startswith(EXPERTS_PREFIX) and not stored.startswith(f"{EXPERTS_PREFIX}{index}."):
            continue
        own = rename(stored, back)
        if own.startswith(ADAPTERS_PREFIX):
            adapters[own.removeprefix(ADAPTERS_PREFIX)] = window
        else:
            tensors[own] = own_part(own, window, index, count)
    recorded = record.get("blocks") or []
    if len(recorded) != layers:
        recorded = [None] * layers
    places = (prefixes[f"{BLOCKS_PREFIX}{layer}."] for layer in range(layers))
    lora, tuning = fields.get("lora"), checkpoint.provenance.get("kind") == TUNED
    return Expert(
        name,
        checkpoint,
        {key: fields[key] for key in EXPERT_FIELDS} | {"num_hidden_layers": layers},
        tensors,
        tuple(known or block_identity(checkpoint, place) for known, place in zip(recorded, places, strict=True)),
        weight,
        Adapter(name, lora, adapters, record.get("adapter", {})) if lora else None,
        record.get("tuned", tuning and "content_sha256" not in record),
        tuple(record.get("converted", ())),
    )


def own_part(name: str, window: Window, index: int, count: int) -> Window:
    """An expert's part of a tensor of the merged model: of the heads, which lie side by side, its own."""
    if name in (HEAD_WEIGHT, HEAD_BIAS):
        side_by_side = 1 if name == HEAD_WEIGHT else 0
        if len(window.shape) != 2 or window.shape[side_by_side] % count:
            raise CheckpointError(
                f"{str(window.path)!r}: {name} of shape {list(window.shape)} holds no parts of {count} experts; fetch "
                "or write the folder again"
            )
        return window.columns(index, count) if name == HEAD_WEIGHT else window.row(index)
    return window


def check_shapes(expert: Expert) -> None:
    """Raise ``CheckpointError`` unless an expert's tensors are those of the model that its configuration describes."""
    wanted = model_shapes(expert.checkpoint.config | expert.fields)
    shapes = {name: window.shape for name, window in expert.tensors.items()}
    if expert.adapter:
        wanted |= adapter_shapes(expert.adapter.lora, len(expert.blocks), wanted)
        shapes |= {ADAPTERS_PREFIX + name: window.shape for name, window in expert.adapter.tensors.items()}
    if wrong := sorted(name for name in shapes | wanted if shapes.get(name) != wanted.get(name)):
        raise CheckpointError(
            f"expert {expert.checkpoint.label!r} does not fit its config.json: missing, superfluous or of another "
            f"shape: {', '.join(wrong[:5])}; fetch or write the folder again"
        )


def adapter_shapes(
    lora: Mapping[str, Any], layers: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of an adapter on all of ``layers`` blocks whose tensors have ``shapes``."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for target in lora["targets"]:
            rows, columns = shapes.get(f"{BLOCKS_PREFIX}{layer}.{target}.weight", (0, 0))
            name = f"{ADAPTERS_PREFIX}{layer}.{target.replace('.', '_')}"
            found |= {f"{name}.lora_A": (lora["rank"], columns), f"{name}.lora_B": (rows, lora["rank"])}
    return found


def hash_substrates(experts: Iterable[Expert], digests: dict[Window, str]) -> None:
    """Read the substrate of every expert, and check it against the fingerprint that is to be shared.

    Raises:
        CheckpointError: a substrate is another than its ``config.json`` says.
    """
    for expert in experts:
        substrate, config = expert.substrate(), expert.checkpoint.config
        digests |= {window: hash_window(window) for window in substrate.values() if window not in digests}
        hashes = {name: digests[window] for name, window in substrate.items()}
        found = fingerprint(hashes, config["tokenizer_sha256"], config.get("substrate_scale", 1.0))
        if found != config["substrate_fingerprint"]:
            raise CheckpointError(
                f"the substrate in {expert.checkpoint.label!r} has fingerprint {found}, its config.json names "
                f"{config['substrate_fingerprint']}; fetch or write the folder again"
            )


def verify_experts(experts: Sequence[Expert], digests: dict[Window, str]) -> None:
    """Compare what was read of every expert with what its folder recorded when it was written; complete ``digests``.

    Raises:
        CheckpointError: a file has other contents, or a substrate another fingerprint; the message names it.
    """
    hash_substrates(experts, digests)
    for expert in experts[1:]:  # blocks that all share were read from the first one only, and have the same bytes
        for name, window in expert.tensors.items():
            if window not in digests:
                digests[window] = digests[experts[0].tensors[name]]
                digests[window.original] = digests[experts[0].tensors[name].original]
    for checkpoint in {id(expert.checkpoint): expert.checkpoint for expert in experts}.values():
        checkpoint.verify(digests)
    for expert in experts:
        if expert.adapter and expert.adapter.folder:
            verify_shards(expert.adapter.folder, expert.adapter.shards, digests)
            check_adapter(expert.adapter.folder)


def expert_sha256(expert: Expert, digests: dict[Window, str]) -> str:
    """Hash of an expert's tensors, adapters included, by the names they have in a model of its own."""
    return hash_contents(
        (name, window.dtype, window.shape, digests[window]) for name, window in expert.all_tensors.items()
    )
