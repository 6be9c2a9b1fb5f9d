"""Add blocks to a model, freeze what it had, choose what trains (arXiv 2507.07129: growth on a frozen substrate)."""

import copy
from collections.abc import Collection
from typing import Any, Literal

import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.linear_frozen_glyph import silence
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM

INITS = ("identity", "random", "copy")


def grow(
    model: FrozenGlyphForCausalLM, layers: int = 1, init: Literal["identity", "random", "copy"] = "identity"
) -> FrozenGlyphForCausalLM:
    """Return a model with ``layers`` new blocks on top; ``model`` itself stays as it is.

    The old blocks are frozen; the new blocks, the final norm and the head train. ``identity`` zeroes the new blocks'
    output projections, so that the grown model computes exactly what ``model`` did; ``random`` is the published way;
    ``copy`` repeats the topmost blocks. No new blocks (``layers=0``) means: the newest ones go on training.

    Raises:
        FrozenGlyphError: ``layers`` is negative or ``init`` is unknown.
        ValueError: ``init`` is ``identity`` and the blocks' output projections are additive, which are never silent.
    """
    if layers < 0:
        raise FrozenGlyphError(f"layers={layers} must be 0 or more")
    if init not in INITS:
        raise FrozenGlyphError(f"init={init!r} is not known; allowed: {', '.join(INITS)}")
    old_layers = model.config.num_hidden_layers
    config: Any = copy.deepcopy(model.config)
    config.num_hidden_layers = old_layers + layers
    config.ladder = [*(config.ladder or [old_layers]), config.num_hidden_layers]
    if layers:
        config.num_frozen_layers = old_layers
    grown: Any = FrozenGlyphForCausalLM(config)
    grown.to(model.device, model.dtype)
    grown.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for index, block in enumerate(grown.model.layers[old_layers:]):
            if init == "identity":
                for output in (block.self_attn.o_proj, block.mlp.fc_out):
                    silence(output)
            elif init == "copy":
                first = max(0, old_layers - layers)
                block.load_state_dict(grown.model.layers[first + index % (old_layers - first)].state_dict())
    return grown


def choose_trainable(model: FrozenGlyphForCausalLM, parts: Collection[str]) -> None:
    """Let only ``parts`` train: ``blocks`` (those not frozen), ``norm``, ``head``, ``embeddings``."""
    model.requires_grad_(False)
    newest = model.model.layers[model.config.num_frozen_layers :]
    modules = {"blocks": newest, "norm": model.model.norm, "head": model.lm_head, "embeddings": model.substrate}
    for part in parts:
        modules[part].requires_grad_(True)
