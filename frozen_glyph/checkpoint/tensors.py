"""What the tensors of a checkpoint are called and shaped: of a grown model, and of an expert inside a merged one.

It imports no torch. The model room, which travels alone, has its own names; tests compare the two.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SUBSTRATE_PREFIX, BLOCKS_PREFIX, NORM_PREFIX = "model.embed_tokens.", "model.layers.", "model.norm."
TRUNK_PREFIX, EXPERTS_PREFIX = "model.trunk.", "model.experts."  # of merged models only
ADAPTERS_PREFIX = "adapters."  # of an expert with LoRA adapters
HEAD_WEIGHT, HEAD_BIAS = "lm_head.weight", "lm_head.bias"  # of a merged model: those of all experts, side by side


def layer_of(name: str) -> int | None:
    """The block that a tensor of a grown model belongs to; None for substrate, final norm and head."""
    number = name.removeprefix(BLOCKS_PREFIX).partition(".")[0] if name.startswith(BLOCKS_PREFIX) else ""
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else None


def merged_prefixes(expert: int, layers: int, shared: int) -> dict[str, str]:
    """How the tensors of an expert with ``layers`` blocks begin in a model of its own -> in the merged model.

    The first ``shared`` blocks are those of the trunk that all experts share; ``expert`` counts from 0. No prefix is
    the beginning of another, here or there, so that the map turned round is its inverse.
    """
    own = f"{EXPERTS_PREFIX}{expert}."
    return {
        SUBSTRATE_PREFIX: SUBSTRATE_PREFIX,
        **{f"{BLOCKS_PREFIX}{layer}.": f"{TRUNK_PREFIX}{layer}." for layer in range(shared)},
        **{f"{BLOCKS_PREFIX}{layer}.": f"{own}layers.{layer - shared}." for layer in range(shared, layers)},
        NORM_PREFIX: f"{own}norm.",
        ADAPTERS_PREFIX: f"{own}adapters.",
        "lm_head.": "lm_head.",
    }


def rename(name: str, prefixes: Mapping[str, str]) -> str:
    """``name`` with the prefix that ``prefixes`` gives for its own; unchanged where it has none of them."""
    for prefix, other in prefixes.items():
        if name.startswith(prefix):
            return other + name.removeprefix(prefix)
    return name


def model_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the ``FrozenGlyphForCausalLM`` with a frozen substrate that ``config`` describes."""
    vocabulary, width, inner = config["vocab_size"], config["hidden_size"], config["intermediate_size"]
    bits = config["substrate_bits"]
    shapes: dict[str, tuple[int, ...]] = {
        SUBSTRATE_PREFIX + "packed_bits": (vocabulary, bits // 8),
        SUBSTRATE_PREFIX + "center": (bits,),
    }
    if bits > width or config.get("substrate_rotated"):
        shapes[SUBSTRATE_PREFIX + "projection"] = (bits, min(bits, width))
    if config.get("substrate_whitened"):
        shapes[SUBSTRATE_PREFIX + "gain"] = (min(bits, width),)
    norms = [NORM_PREFIX]
    for layer in range(config["num_hidden_layers"]):
        block = f"{BLOCKS_PREFIX}{layer}."
        norms += [block + "input_layernorm.", block + "post_attention_layernorm."]
        shapes |= {f"{block}self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {block + "mlp.fc_in.weight": (inner, width), block + "mlp.fc_in.bias": (inner,)}
        shapes |= {block + "mlp.fc_out.weight": (width, inner), block + "mlp.fc_out.bias": (width,)}
    shapes |= {norm + part: (width,) for norm in norms for part in ("weight", "bias")}
    return shapes | {HEAD_WEIGHT: (vocabulary, width), HEAD_BIAS: (vocabulary,)}


def fingerprint(tensors: dict[str, str], tokenizer_sha256: str | None, scale: float = 1.0) -> str:
    """Fingerprint of a substrate from the sha256 of each of its tensors, by their names in a checkpoint."""
    gain = tensors.get(SUBSTRATE_PREFIX + "gain")
    parts = {
        "bits": tensors[SUBSTRATE_PREFIX + "packed_bits"],
        "center": tensors[SUBSTRATE_PREFIX + "center"],
        "projection": tensors.get(SUBSTRATE_PREFIX + "projection"),
        "normalization": "l2",
        "tokenizer": tokenizer_sha256,
        **({"gain": gain} if gain is not None else {}),
        **({"scale": float(scale)} if scale != 1 else {}),
    }
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
