"""What a checkpoint folder must say, without importing torch: file names, fields, merge rules.

The model room travels alone and takes seconds to import, so it says these things for itself; a test compares the two.
"""

import importlib.metadata
from typing import Any

# The files of a checkpoint folder.
CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
CARD_FILE, PROVENANCE_FILE = "README.md", "provenance.json"
TOKENIZER_FILE, SUBSTRATE_FILE = "tokenizer.json", "substrate.json"
CODE_FILES = "*_frozen_glyph*.py"  # the model room, for machines that load with trust_remote_code
WEIGHTS, DEFAULT_INDEX = "model.safetensors", "model.safetensors.index.json"  # of the deepest stage
SUBSTRATE_SHARD, TRUNK_SHARD, HEAD_SHARD = "substrate.safetensors", "trunk.safetensors", "head.safetensors"
GROWTH_PICTURE, TUNING_METRICS = "growth.png", "metrics.jsonl"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # names that peft reads
ADAPTER_FOLDER = "lora"  # in an extracted expert's folder; a run has one for each stage
WORK_FOLDER = ".work"  # in the folder of a run: packed tokens and checkpoints of the stage that trains

# What decides a substrate and its meaning: experts dock only where all of it is equal.
SUBSTRATE_FIELDS = (
    "substrate_fingerprint",
    "tokenizer_sha256",
    "vocab_size",
    "hidden_size",
    "substrate_bits",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
# What shapes an expert's blocks.
EXPERT_FIELDS = (
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "rope_parameters",
    "max_position_embeddings",
)
EVIDENCE_WINDOW = 16  # tokens that the rule evidence looks back; measured: eval/results/composition-study.md
# Each rule of a merged model, and what it costs. N experts.
RULES = {
    "mean": "the published rule: logits are the equal mean of the experts' logits. Where an expert never saw a "
    "language, it pulls the mean away from the expert that knows it.",
    "weighted": "logits are the weighted sum of the experts' logits, one weight for all text: what favours one "
    "expert's language costs the languages of the others.",
    "probability": "log of the weighted mean of the experts' probabilities. Every token costs at most minus the log "
    "of an expert's weight more than under that expert: log N nats a token at equal weights.",
    "posterior": "a Bayesian mixture: each expert counts as much as it has predicted the text so far. The loss of a "
    "whole sequence exceeds an expert's by at most minus the log of its weight: log N nats at equal weights.",
    "evidence": "logits weighted by how well each expert predicted the latest tokens. Nothing bounds what it loses to "
    "the best expert; measure it on your text.",
}


def identity(merged: bool) -> dict[str, Any]:
    """The fields of a ``config.json`` that say which classes read it."""
    kind, file = ("MoE", "_moe") if merged else ("", "")
    classes = {"AutoModel": f"FrozenGlyph{kind}Model", "AutoModelForCausalLM": f"FrozenGlyph{kind}ForCausalLM"}
    return {
        "architectures": [classes["AutoModelForCausalLM"]],
        "auto_map": {
            "AutoConfig": f"configuration_frozen_glyph.FrozenGlyph{kind}Config",
            **{auto: f"modeling_frozen_glyph{file}.{name}" for auto, name in classes.items()},
        },
        "model_type": f"frozen_glyph{file}",
        "transformers_version": importlib.metadata.version("transformers"),
    }


def stage_index(stage: int) -> str:
    """File name of the index of a growth stage."""
    return f"stage-{stage}.safetensors.index.json"


def blocks_shard(group: int, stage: int) -> str:
    """File name of the blocks that stage ``group`` added, as stage ``stage`` trained them."""
    return f"blocks-{group}.safetensors" if group == stage else f"blocks-{group}.stage-{stage}.safetensors"


def head_shard(stage: int) -> str:
    """File name of the final norm and head of a growth stage."""
    return f"head-{stage}.safetensors"


def expert_shard(index: int) -> str:
    """File name of an expert's own blocks, final norm and adapters in a merged checkpoint."""
    return f"expert-{index}.safetensors"


def metrics_file(stage: int, phase: str = "blocks") -> str:
    """File name of the losses of a growth stage, phase ``blocks`` or ``lora``."""
    return f"metrics-{stage}{'' if phase == 'blocks' else f'-{phase}'}.jsonl"


def adapter_folder(stage: int) -> str:
    """Name of the folder of the adapters that a growth stage keeps."""
    return f"{ADAPTER_FOLDER}-{stage}"
