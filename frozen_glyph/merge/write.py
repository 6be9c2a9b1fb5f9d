"""Write the merged checkpoint: one substrate, each expert's blocks in a shard of its own, one joint head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from frozen_glyph.checkpoint.card import markdown_table, model_card
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    check_hashes,
    copy_file,
    new_folder,
    read_json,
    read_tensors,
    sha256_file,
    write_tensors,
    write_text,
)
from frozen_glyph.checkpoint.provenance import PROVENANCE_FILE, read_provenance, write_provenance
from frozen_glyph.checkpoint.stages import (
    DEFAULT_INDEX,
    SUBSTRATE_PREFIX,
    SUBSTRATE_SHARD,
    copy_model_code,
    write_index,
)
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.merge.compatible import MUST_AGREE, read_expert_configs
from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES, FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.model.embedding_frozen_glyph import substrate_fingerprint
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM

SHARED_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "substrate.json")
RULE_NOTES = {
    "mean": "`mean`: the published rule; logits are the (weighted) mean of the experts' logits. Where an expert never "
    "saw a language, it pulls the mean away from the expert that knows it.",
    "posterior": "`posterior`: a Bayesian mixture; each expert counts as much as it has predicted the text so far. The "
    "loss of a sequence exceeds the best expert's by at most the log of the number of experts (equal prior).",
}


def merge_experts(
    experts: Sequence[str | Path],
    out: str | Path,
    rule: str = "mean",
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Merge checkpoint folders into the new folder ``out``, which appears complete or not at all.

    ``weights`` (default: equal; normalised to sum 1) weigh the logits under ``mean`` and are the prior under
    ``posterior``. Any rule can be chosen again at loading: ``from_pretrained(out, rule="posterior")``.

    Raises:
        FrozenGlyphError: unknown rule, unusable weights, or ``out`` exists.
        ExpertsDoNotMatch: the experts do not share substrate, tokenizer, vocabulary or special ids.
        CheckpointError: a file of an expert is missing or damaged.
    """
    folders, out = [Path(folder) for folder in experts], Path(out)
    if rule not in MERGE_RULES:
        allowed = ", ".join(MERGE_RULES)
        raise FrozenGlyphError(f"rule={rule!r} is not known.{nearest(rule, MERGE_RULES)} Allowed: {allowed}")
    configs = read_expert_configs(folders)
    shares = normalised_weights(weights, len(folders))
    names = list(names) if names is not None else [folder.name for folder in folders]
    if len(names) != len(folders):
        raise FrozenGlyphError(f"names={names} must be {len(folders)} names, one for each expert")
    config = merged_config(configs, rule, shares, names)

    with new_folder(out) as temporary:
        files = write_merged_weights(folders, configs, temporary)
        config.save_pretrained(temporary)
        copy_model_code(temporary)
        for name in SHARED_FILES:
            if (folders[0] / name).exists():
                copy_file(folders[0] / name, temporary / name)
        parents = [
            {"name": name, "config_sha256": sha256_file(folder / "config.json"), "weights_sha256": weights_hash(folder)}
            for name, folder in zip(names, folders, strict=True)
        ]
        write_text(temporary / "README.md", merge_card(out.name, config))
        recipe = {"rule": rule, "weights": shares, "experts": names}
        write_provenance(temporary, "merge", {"recipe": recipe, "parents": parents, "files": files})
    return out


def normalised_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that sum to 1; ``FrozenGlyphError`` unless there is one finite, non-negative weight per expert."""
    if weights is None:
        return [1.0 / count] * count
    total = sum(weights)
    if len(weights) != count or not all(weight >= 0 for weight in weights) or not 0 < total < float("inf"):
        raise FrozenGlyphError(f"weights={list(weights)} must be {count} non-negative numbers with a sum above 0")
    return [weight / total for weight in weights]


def merged_config(
    configs: list[dict[str, Any]], rule: str, weights: list[float], names: list[str]
) -> FrozenGlyphMoEConfig:
    """The configuration of the merged model."""
    first = configs[0]
    shared = (*MUST_AGREE, "substrate_rotated", "num_attention_heads", "dtype")
    return FrozenGlyphMoEConfig(
        **{key: first[key] for key in shared if key in first},
        max_position_embeddings=min(config["max_position_embeddings"] for config in configs),
        experts=[{key: config[key] for key in FrozenGlyphMoEConfig.EXPERT_FIELDS} for config in configs],
        expert_names=names,
        expert_weights=weights,
        rule=rule,
        architectures=["FrozenGlyphMoEForCausalLM"],
    )


def weights_hash(folder: Path) -> str:
    """Hash that identifies a folder's weights: of its provenance, which lists every shard's hash, or of the weights."""
    for name in (PROVENANCE_FILE, DEFAULT_INDEX, "model.safetensors"):
        if (folder / name).exists():
            return sha256_file(folder / name)
    raise CheckpointError(f"{str(folder)!r} holds neither {DEFAULT_INDEX} nor model.safetensors; grow it first")


def read_model_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder, sharded or not; its provenance, where there is one, holds their hashes."""
    if (folder / PROVENANCE_FILE).exists():
        for stage in read_provenance(folder).get("stages", [])[-1:]:
            check_hashes(folder, stage["files"])
    index = folder / DEFAULT_INDEX
    shards = set(read_json(index)["weight_map"].values()) if index.exists() else {"model.safetensors"}
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(shards):
        tensors |= read_tensors(folder / shard)
    return tensors


def check_expert(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Raise ``CheckpointError`` unless ``tensors`` are those that ``config`` describes, on the substrate it names."""
    with torch.device("meta"):
        expected = FrozenGlyphForCausalLM(FrozenGlyphConfig.from_dict(dict(config))).state_dict()
    shapes, wanted = ({name: t.shape for name, t in tensors.items()}, {name: t.shape for name, t in expected.items()})
    if wrong := sorted(name for name in shapes | wanted if shapes.get(name) != wanted.get(name)):
        raise CheckpointError(
            f"expert {str(folder)!r} does not fit its config.json: missing, superfluous or of another shape: "
            f"{', '.join(wrong[:5])}; fetch or write the folder again"
        )
    substrate = {name.removeprefix(SUBSTRATE_PREFIX): t for name, t in tensors.items()}
    found = substrate_fingerprint(
        substrate["packed_bits"], substrate["center"], substrate.get("projection"), config["tokenizer_sha256"]
    )
    if found != config["substrate_fingerprint"]:
        raise CheckpointError(
            f"the substrate in {str(folder)!r} has fingerprint {found}, its config.json names "
            f"{config['substrate_fingerprint']}; fetch or write the folder again"
        )


def write_merged_weights(folders: list[Path], configs: list[dict[str, Any]], out: Path) -> dict[str, str]:
    """Write substrate, experts, joint head and index into ``out``; return each shard's sha256."""
    weight_map: dict[str, str] = {}

    def write(shard: str, tensors: dict[str, torch.Tensor]) -> None:
        write_tensors(out / shard, tensors)
        weight_map.update(dict.fromkeys(tensors, shard))

    heads, biases = [], []
    for index, (folder, config) in enumerate(zip(folders, configs, strict=True)):
        tensors = read_model_tensors(folder)
        check_expert(folder, config, tensors)
        heads.append(tensors.pop("lm_head.weight"))
        biases.append(tensors.pop("lm_head.bias"))
        substrate = {name: tensors.pop(name) for name in list(tensors) if name.startswith(SUBSTRATE_PREFIX)}
        if index == 0:
            write(SUBSTRATE_SHARD, substrate)
        prefix = f"model.experts.{index}."
        write(f"expert-{index}.safetensors", {prefix + name.removeprefix("model."): t for name, t in tensors.items()})
    write("head.safetensors", {"lm_head.weight": torch.cat(heads, dim=1), "lm_head.bias": torch.stack(biases)})
    write_index(out / DEFAULT_INDEX, weight_map)
    return {shard: sha256_file(out / shard) for shard in sorted(set(weight_map.values()))}


def merge_card(name: str, config: FrozenGlyphMoEConfig) -> str:
    """The model card of a merged model."""
    rows = [
        {"expert": expert_name, "blocks": expert["num_hidden_layers"], "weight": f"{weight:.3f}"}
        for expert_name, expert, weight in zip(
            config.expert_names or [], config.experts or [], config.expert_weights or [], strict=True
        )
    ]
    return model_card(
        name,
        f"{len(rows)} independently grown experts on one frozen glyph substrate, merged without training.",
        {
            "Experts": markdown_table(rows),
            "Rule": RULE_NOTES[config.rule] + '\n\nOther rules: `from_pretrained(..., rule="posterior")`.',
            "Limitations": "A small research model. Its text is not reliable; measure it before you use it.",
        },
        ["merged"],
    )
