"""Add blocks to a model and freeze what it had (arXiv 2507.07129: layer-wise growth on a frozen substrate)."""

import copy
from typing import Any, Literal

import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM


def grow(
    model: FrozenGlyphForCausalLM, layers: int = 1, init: Literal["identity", "random", "copy"] = "identity"
) -> FrozenGlyphForCausalLM:
    """Return a model with ``layers`` new blocks on top; ``model`` itself stays as it is.

    The old blocks are frozen; the new blocks, the final norm and the head train. ``identity`` zeroes the new blocks'
    output projections, so that the grown model computes exactly what ``model`` did; ``random`` is the published way.

    Raises:
        FrozenGlyphError: ``layers`` is below 1 or ``init`` is unknown.
    """
    if layers < 1:
        raise FrozenGlyphError(f"layers={layers} must be at least 1")
    if init not in ("identity", "random"):
        raise FrozenGlyphError(f"init={init!r} is not known; allowed: identity, random")
    old_layers = model.config.num_hidden_layers
    config: Any = copy.deepcopy(model.config)
    config.num_hidden_layers, config.num_frozen_layers = old_layers + layers, old_layers
    config.ladder = [*(config.ladder or [old_layers]), config.num_hidden_layers]
    grown: Any = FrozenGlyphForCausalLM(config)
    grown.to(model.device, model.dtype)
    grown.load_state_dict(model.state_dict(), strict=False)
    if init == "identity":
        with torch.no_grad():
            for block in grown.model.layers[old_layers:]:
                for output in (block.self_attn.o_proj.weight, block.mlp.fc_out.weight, block.mlp.fc_out.bias):
                    output.zero_()
    return grown
