"""What readers rely on in the ``config.json`` and ``provenance.json`` of a folder, whoever wrote it, and its check.

What an earlier version did not write may be missing; what is there has the type that it should.
"""

import math
from pathlib import Path
from typing import Any, Required, TypedDict

from frozen_glyph.checkpoint.config import expert_blocks, is_merged, is_ours, task_of
from frozen_glyph.checkpoint.contract import CONFIG_FILE
from frozen_glyph.checkpoint.files import CheckpointError, inside, read_json
from frozen_glyph.formats import FormatError, check_type

TokenIds = int | list[int] | None


class StoredLora(TypedDict):
    """Low-rank terms of an expert."""

    rank: int
    alpha: float
    targets: list[str]


class StoredExpert(TypedDict, total=False):
    """An expert of a merged model."""

    num_hidden_layers: Required[int]
    intermediate_size: Required[int]
    num_attention_heads: Required[int]
    hidden_act: Required[str]
    layer_norm_eps: Required[float]
    rope_parameters: Required[dict[str, Any] | None]
    max_position_embeddings: Required[int]
    lora: StoredLora | None


class StoredConfig(TypedDict, total=False):
    """A ``config.json`` of a grown or merged model."""

    model_type: Required[str]
    architectures: list[str] | None
    ladder: list[int] | None
    transformers_weights: str | None
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    embedding_size: int | None
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    rope_parameters: dict[str, Any] | None
    max_position_embeddings: int
    pad_token_id: TokenIds
    bos_token_id: TokenIds
    eos_token_id: TokenIds
    substrate_bits: int
    substrate_rotated: bool
    substrate_whitened: bool
    substrate_scale: float
    substrate_dense: bool
    substrate_trainable: bool
    substrate_fingerprint: str | None
    tokenizer_sha256: str | None
    linear_kinds: list[list[str]] | None
    dtype: str | None
    experts: list[StoredExpert]
    expert_names: list[str] | None
    expert_weights: list[float] | None
    rule: str
    evidence_window: int
    switching_rates: list[float]
    prompt_sample: int | None
    active_experts: int | None
    active_threshold: float
    num_shared_layers: int


class StoredParent(TypedDict, total=False):
    """A checkpoint that another was made of."""

    name: Required[str]
    config_sha256: str
    weights_sha256: str
    revision: str | None
    stage: int
    adapter: dict[str, str]
    parents: list[Any]
    files: dict[str, str]


class StoredStage(TypedDict, total=False):
    """A growth stage."""

    stage: Required[int]
    files: Required[dict[str, str]]
    layers: int
    num_hidden_layers: int
    parameters: int
    trainable_parameters: int
    train_loss: float | None
    nats_per_character: dict[str, float]
    uniform_nats_per_character: dict[str, float]
    parents: list[StoredParent]


class StoredExpertRecord(TypedDict, total=False):
    """An expert of a merged checkpoint."""

    name: Required[str]
    parent: int
    content_sha256: str | None
    blocks: list[str | None]
    adapter: dict[str, str]
    tuned: bool
    converted: list[dict[str, str]]


class StoredProvenance(TypedDict, total=False):
    """A ``provenance.json``."""

    format: int
    kind: Required[str]
    recipe: dict[str, Any]
    recipe_sha256: str
    seed: int
    versions: dict[str, str]
    parent: dict[str, int]
    parents: list[StoredParent]
    stages: list[StoredStage]
    experts: list[StoredExpertRecord]
    contents: dict[str, str | None]
    companions: dict[str, str]
    files: dict[str, str]
    data: list[dict[str, Any]]
    valid: list[dict[str, Any]]
    nats_per_character: dict[str, Any]


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder with a language model.

    Raises:
        CheckpointError: it is of a model for another task; or see ``check_config``.
    """
    config = check_config(read_json(inside(folder, CONFIG_FILE)), folder / CONFIG_FILE)
    task = task_of(config) if is_ours(config) else None
    if task is not None:
        raise CheckpointError(
            f"{str(folder)!r} holds a model for {task} ({CONFIG_FILE}: architectures), which has no head for the next "
            "token; name a language model, such as the one that it was made from"
        )
    return config


def check_config(config: Any, path: Path) -> dict[str, Any]:
    """``config``, read from ``path``, as what a reader may rely on; of another model only that it has fields.

    Raises:
        CheckpointError: it holds no fields, or one has a value that a reader cannot use.
    """
    try:
        check_type(config, dict[str, Any])
        if is_ours(config):
            check_type(config, StoredConfig)
            check_counts(config)
    except FormatError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None
    return config


def check_counts(config: dict[str, Any]) -> None:
    """Raise ``FormatError`` where a count is negative, or lists are of different lengths that are of one length."""
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "substrate_bits"):
        if config.get(name, 1) < 1:
            raise FormatError(f"{name} is {config[name]}; it must be at least 1")
    for name in ("num_hidden_layers", "num_shared_layers"):
        if config.get(name, 0) < 0:
            raise FormatError(f"{name} is {config[name]}; it must not be negative")
    if (ladder := config.get("ladder") or []) and (min(ladder) < 0 or ladder != sorted(ladder)):
        raise FormatError(f"ladder is {ladder}; it must hold blocks after each stage, never fewer than before")
    if "experts" in config and not is_merged(config):
        raise FormatError(f"experts are of a merged model, model_type is {config['model_type']!r}")
    if is_merged(config):
        if not config.get("experts"):
            raise FormatError("experts is empty")
        if min(expert_blocks(config)) < config.get("num_shared_layers", 0):
            raise FormatError("an expert has a negative num_hidden_layers")
        for name in ("expert_names", "expert_weights"):
            if config.get(name) is not None and len(config[name]) != len(config["experts"]):
                raise FormatError(f"{name} has {len(config[name])} entries for {len(config['experts'])} experts")
        if not all(map(math.isfinite, config.get("expert_weights") or [])):
            raise FormatError(f"expert_weights is {config['expert_weights']}; they must be finite")


def check_provenance(provenance: Any, path: Path) -> dict[str, Any]:
    """``provenance``, read from ``path``, as what a reader may rely on.

    Raises:
        CheckpointError: it is of another kind or format, or a value is not of its type.
    """
    if not isinstance(provenance, dict) or "kind" not in provenance:
        raise CheckpointError(f"{str(path)!r} is no provenance of frozen_glyph; choose another folder")
    if provenance.get("format") != 1:
        raise CheckpointError(
            f"{str(path)!r} has format {provenance.get('format')!r}, this version reads 1; install a newer frozen_glyph"
        )
    try:
        check_type(provenance, StoredProvenance)
        parents = len(provenance.get("parents", []))
        for record in provenance.get("experts", []):
            if not 0 <= record.get("parent", 0) < max(parents, 1):
                raise FormatError(f"expert {record.get('name')!r} has parent {record['parent']} of {parents}")
    except FormatError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None
    return provenance
