"""LoRA adapters in PEFT folders (arXiv 2106.09685): whose blocks they stand on, and what of them can be merged."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from frozen_glyph.checkpoint.contract import ADAPTER_CONFIG, ADAPTER_FOLDER, ADAPTER_WEIGHTS, CONFIG_FILE
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    inside,
    read_header,
    read_record,
    sha256_file,
    write_json,
)
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.source import Source, told_source
from frozen_glyph.checkpoint.streaming import Joined, Window, write_shard
from frozen_glyph.checkpoint.tensors import BLOCKS_PREFIX, layer_of

RUN_FOLDER = rf"{ADAPTER_FOLDER}(?:-(\d+))?"  # an adapter's folder inside the folder of its base: of which stage
TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.([\w.]+)\.(lora_[AB])\.weight")
# Fields of adapter_config.json that say of what kind an adapter is; with any other value it computes something else.
PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian", "orthogonal")}
ABSENT = (
    "use_dora", "use_rslora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save",
    "rank_pattern", "alpha_pattern", "layer_replication", "target_parameters", "trainable_token_indices",
    "alora_invocation_tokens", "loftq_config", "eva_config", "corda_config", "arrow_config", "kasa_config",
    "velora_config", "monteclora_config", "megatron_config", "lora_ga_config",
)  # fmt: skip


class PeftConfig(TypedDict):
    """What is read of an adapter_config.json."""

    r: int
    lora_alpha: float
    base_model_name_or_path: NotRequired[str | None]


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank matrices on all blocks of a trunk.

    ``lora`` is what the merged configuration says of it: rank, alpha, targets. ``tensors`` are named
    ``{layer}.{target with . as _}.lora_A`` and ``.lora_B``.
    """

    name: str
    lora: dict[str, Any]
    tensors: dict[str, Window]
    record: dict[str, Any]
    folder: Path | None = None
    shards: dict[str, TensorFile] = field(default_factory=dict)


def find_base(folder: Path, named: Collection[Path] = ()) -> Source:
    """The model that an adapter stands on, with its stage; see source.py for where its configuration may lead.

    Raises:
        CheckpointError: neither its configuration nor its place in a run says so, or it names a folder elsewhere.
    """
    if base := read_record(inside(folder, ADAPTER_CONFIG), PeftConfig).get("base_model_name_or_path"):
        return told_source(base, folder / ADAPTER_CONFIG, named)
    match = re.fullmatch(RUN_FOLDER, folder.resolve().name)
    if match and (folder.resolve().parent / CONFIG_FILE).exists():
        return Source(str(folder.resolve().parent), int(match[1]) if match[1] else None)
    raise CheckpointError(f"adapter {str(folder)!r} does not say its base; give it as BASE@STAGE+{folder}")


def open_adapter(source: str, base: dict[str, Window]) -> Adapter:
    """The adapter in a PEFT folder or Hub id, for a base with the tensors ``base``.

    Raises:
        CheckpointError: it is of a kind that cannot be merged, does not fit the base, or a file is missing.
    """
    folder = Source(source).fetch("adapter", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    config = read_record(inside(folder, ADAPTER_CONFIG), PeftConfig)
    unsupported = [f"{name}={config.get(name)!r}" for name in ABSENT if config.get(name)]
    unsupported += [
        f"{name}={config[name]!r}" for name, known in PLAIN.items() if config.get(name, known[0]) not in known
    ]
    if unsupported:
        raise CheckpointError(
            f"adapter {source!r} is of a kind that cannot be merged: {', '.join(unsupported)}; "
            "plain LoRA can (use peft's merge_and_unload, and merge the whole model)"
        )
    header = read_header(inside(folder, ADAPTER_WEIGHTS))
    layers = 1 + max(layer for name in base if (layer := layer_of(name)) is not None)
    tensors, targets = {}, set()
    for name, tensor in header.tensors.items():
        match = TENSOR.fullmatch(name)
        linear = base.get(f"{BLOCKS_PREFIX}{match[1]}.{match[2]}.weight") if match else None
        rank = config["r"]
        if (
            match is None
            or linear is None
            or tensor.shape != ((rank, linear.shape[1]) if match[3] == "lora_A" else (linear.shape[0], rank))
        ):
            raise CheckpointError(
                f"adapter {source!r} does not fit its base of {layers} blocks: it has {name!r} {list(tensor.shape)}"
            )
        targets.add(match[2])
        tensors[f"{match[1]}.{match[2].replace('.', '_')}.{match[3]}"] = Window.whole(folder / ADAPTER_WEIGHTS, tensor)
    wanted = {
        f"{layer}.{target.replace('.', '_')}.{part}"
        for layer in range(layers) for target in targets for part in ("lora_A", "lora_B")
    }  # fmt: skip
    if missing := sorted(wanted - tensors.keys()) or ([] if tensors else [ADAPTER_WEIGHTS]):
        raise CheckpointError(f"adapter {source!r} must stand on every block of its base; it has no {missing[0]}")
    lora = {"rank": config["r"], "alpha": config["lora_alpha"], "targets": sorted(targets)}
    if not math.isfinite(lora["alpha"]):
        raise CheckpointError(f"adapter {source!r} has lora_alpha={lora['alpha']!r}; it must be a number")
    name = folder.resolve().name if Path(source).is_dir() else source.rpartition("/")[2]
    if re.fullmatch(RUN_FOLDER, name) and Path(source).is_dir():  # called by the name of its base
        name = folder.resolve().parent.name
    record = {"name": name, **{file: sha256_file(folder / file) for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}}
    return Adapter(name, lora, tensors, record, folder, {ADAPTER_WEIGHTS: header})


def write_adapter(adapter: Adapter, folder: Path) -> dict[Window, str]:
    """Write ``adapter`` as a folder for ``PeftModel.from_pretrained(base, folder)``; the sha256 of each tensor."""
    targets = {target.replace(".", "_"): target for target in adapter.lora["targets"]}
    tensors = {}
    for name, window in adapter.tensors.items():
        layer, target, part = name.split(".")
        tensors[f"base_model.model.model.layers.{layer}.{targets[target]}.{part}.weight"] = Joined.alone(window)
    _, digests = write_shard(folder / ADAPTER_WEIGHTS, tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": adapter.lora["rank"],
        "lora_alpha": adapter.lora["alpha"],
        "target_modules": adapter.lora["targets"],
        "bias": "none",
        "inference_mode": True,
    }
    write_json(folder / ADAPTER_CONFIG, config)  # last: peft looks for it first
    return digests
