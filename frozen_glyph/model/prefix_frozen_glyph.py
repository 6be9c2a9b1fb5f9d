"""Keys and values from outside, as peft's prefix tuning learns them, in the layers of a merged model's cache.

A prefix has one number of heads for all layers and as many layers as the configuration counts; experts may differ in
heads, and the last layer is what a rule has read.

Shapes: B batch, P positions of the prefix, H heads, K head size, N experts, D hidden size.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from .configuration_frozen_glyph import FrozenGlyphMoEConfig
from .evidence_frozen_glyph import width_of_keys
from .rules_frozen_glyph import RULES


def fit_heads(config: FrozenGlyphMoEConfig, cache: Cache | None) -> None:
    """Divide keys and values [B, H, P, K] of each layer, in place, by the heads of its block: H * K is the same."""
    if not isinstance(cache, DynamicCache):
        return
    heads = [config.experts[0]["num_attention_heads"]] * config.first_own_layer
    for expert in config.experts:
        heads += [expert["num_attention_heads"]] * expert["num_hidden_layers"]
    layers: list[Any] = cache.layers
    for layer, count in zip(layers, heads, strict=False):
        if layer.is_initialized and layer.keys.dim() == 4 and layer.keys.shape[1] != count:
            layer.keys, layer.values = (divided(tensor, count) for tensor in (layer.keys, layer.values))


def divided(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    return tensor.transpose(1, 2).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2)


def fit_evidence(config: FrozenGlyphMoEConfig, cache: Cache | None) -> None:
    """Put nothing, which counts as padding, where the rule has not read what is in the layers of the blocks."""
    if not isinstance(cache, DynamicCache) or (past := cache.get_seq_length()) == 0:
        return
    reads = RULES[config.rule].reads_tokens
    width_of_values = len(config.experts) * config.hidden_size if reads else 0
    layers: list[Any] = cache.layers
    layer: Any = layers[config.evidence_layer] if config.evidence_layer < len(layers) else None
    if layer is not None and not layer.is_initialized:
        layer = None
    foreign = layer is not None and layer.values.shape[-1] != width_of_values  # a prefix has this layer too
    missing = past if layer is None or foreign else past - layer.get_seq_length()  # a layer may lag on purpose
    if missing <= 0:
        return
    content = layers[0].values
    keys = torch.zeros(len(content), 1, missing, width_of_keys(config), device=content.device)
    values = content.new_zeros(len(content), 1, missing, width_of_values)
    if foreign:
        layer.keys, layer.values = keys, values
    else:
        cache.update(keys, values, config.evidence_layer)


__all__ = ["fit_evidence", "fit_heads"]
