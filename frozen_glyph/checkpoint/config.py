"""What ``config.json`` says of a grown or merged model, without importing torch.

The model room, which travels alone, says these things for itself; tests compare the two.
"""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

GROWN, MERGED = "frozen_glyph", "frozen_glyph_moe"  # values of model_type
# Sizes and switches of a grown model where its config.json does not say them.
DEFAULTS = {
    "vocab_size": 65536,
    "hidden_size": 1024,
    "intermediate_size": 4096,  # four times hidden_size
    "num_hidden_layers": 9,
    "num_attention_heads": 32,
    "max_position_embeddings": 1024,
    "substrate_bits": 1024,
    "substrate_rotated": False,
    "substrate_whitened": False,
    "substrate_trainable": False,
}
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
# How its vectors come from its bits; the fingerprint holds all of it, and older folders may leave it out.
SUBSTRATE_GEOMETRY = ("substrate_rotated", "substrate_whitened", "substrate_scale")
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
# How the class of a model with a head ends -> what it does, in words.
CAUSAL_LM = "ForCausalLM"
TASKS = {
    "ForSequenceClassification": "sequence classification",
    "ForTokenClassification": "token classification",
    "ForQuestionAnswering": "question answering",
}


def identity(merged: bool) -> dict[str, Any]:
    """The fields of a ``config.json`` that say which classes read it."""
    kind, suffix = ("MoE", "_moe") if merged else ("", "")
    classes, models = f"FrozenGlyph{kind}", f"modeling_frozen_glyph{suffix}.FrozenGlyph{kind}"
    return {
        "architectures": [f"{classes}{CAUSAL_LM}"],
        "auto_map": {
            "AutoConfig": f"configuration_frozen_glyph.{classes}Config",
            "AutoModel": f"{models}Model",
            f"AutoModel{CAUSAL_LM}": f"{models}{CAUSAL_LM}",
            **{f"AutoModel{task}": f"tasks_frozen_glyph.{classes}{task}" for task in TASKS},
        },
        "model_type": f"frozen_glyph{suffix}",
        "transformers_version": importlib.metadata.version("transformers"),
    }


def vectors_of(config: Mapping[str, Any]) -> str:
    """What the token vectors are, in words.

    >>> vectors_of({"substrate_whitened": True, "substrate_scale": 4.0})
    'frozen, whitened, 4 long'
    """
    if config.get("substrate_trainable"):
        return "a trained table"
    whitened = ", whitened" if config.get("substrate_whitened") else ""
    return f"frozen{whitened}, {config.get('substrate_scale', 1.0):g} long"


def task_of(config: Mapping[str, Any]) -> str | None:
    """What the head of a model is for, in words, if the model is no language model.

    >>> task_of({"architectures": ["FrozenGlyphMoEForQuestionAnswering"]})
    'question answering'
    """
    classes = config.get("architectures") or []
    return next((task for end, task in TASKS.items() if any(name.endswith(end) for name in classes)), None)


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a model is one of this package, also of a type that only a later version knows."""
    return str(config.get("model_type")).startswith(GROWN)


def is_merged(config: Mapping[str, Any]) -> bool:
    """Whether a model is a merged one: its type says so, whatever fields another has."""
    return config.get("model_type") == MERGED


def stored_blocks(config: Mapping[str, Any]) -> int | None:
    """How many blocks a model stores: all of a grown one; the trunk, once, and each expert's own of a merged one.

    >>> own = [{"num_hidden_layers": 2}, {"num_hidden_layers": 2}]
    >>> stored_blocks({"model_type": "frozen_glyph_moe", "num_shared_layers": 3, "experts": own})
    7
    """
    if not is_merged(config):
        return config.get("num_hidden_layers")
    return shared_blocks(config) + sum(expert["num_hidden_layers"] for expert in config["experts"])


def shared_blocks(config: Mapping[str, Any]) -> int:
    """How many leading blocks the experts of a merged model share: its trunk."""
    return config.get("num_shared_layers", 0)


def expert_blocks(config: Mapping[str, Any]) -> list[int]:
    """How many blocks a token passes in each expert of a merged model: the trunk's and the expert's own."""
    return [shared_blocks(config) + expert["num_hidden_layers"] for expert in config["experts"]]


def expert_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a merged model's experts; numbers where none are given, as the model class has it."""
    return config.get("expert_names") or [f"expert-{index}" for index in range(len(config["experts"]))]


def expert_weights(config: Mapping[str, Any]) -> list[float]:
    """The weights of a merged model's experts; equal where none are given."""
    return config.get("expert_weights") or [1 / len(config["experts"]) for _ in config["experts"]]
