"""Whether experts may dock: same substrate, tokenizer, vocabulary and special ids."""

from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.errors import FrozenGlyphError

MUST_AGREE = (
    "substrate_fingerprint",
    "tokenizer_sha256",
    "vocab_size",
    "hidden_size",
    "substrate_bits",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


class ExpertsDoNotMatch(FrozenGlyphError):
    """Two experts differ in what they must share."""


def read_expert_configs(folders: list[Path]) -> list[dict[str, Any]]:
    """Read the experts' configurations and check that they may be merged.

    Raises:
        ExpertsDoNotMatch: fewer than two experts, one is no single grown model, or two differ; names both sides.
    """
    if len(folders) < 2:
        raise ExpertsDoNotMatch(f"{len(folders)} expert given; merging needs at least two checkpoint folders")
    configs = [read_json(folder / "config.json") for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        if config.get("model_type") != "frozen_glyph":
            raise ExpertsDoNotMatch(
                f"expert {str(folder)!r} has model_type {config.get('model_type')!r}; only 'frozen_glyph' can be merged"
            )
        if config.get("substrate_dense"):
            raise ExpertsDoNotMatch(
                f"expert {str(folder)!r} is a dense export, which holds no glyph bits; merge its parent"
            )
        if config.get("substrate_trainable") or not config.get("substrate_fingerprint"):
            raise ExpertsDoNotMatch(
                f"expert {str(folder)!r} has no frozen substrate with a fingerprint; grow it on a substrate folder"
            )
    first, reference = folders[0], configs[0]
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        for key in MUST_AGREE:
            if config.get(key) != reference.get(key):
                raise ExpertsDoNotMatch(
                    f"experts differ in {key}: {str(first)!r} has {reference.get(key)!r}, {str(folder)!r} has "
                    f"{config.get(key)!r}; experts must be grown on one substrate and tokenizer"
                )
    return configs
