"""Turn the Linears of a model into another kind: the negative control, AdderNet's layer, or a remedy.

Kinds: see ``frozen_glyph/model/linear_frozen_glyph.py``.
"""

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.model.linear_frozen_glyph import (
    LINEAR_CLASSES,
    LowRankLinear,
    fuse,
    initialise_linear,
    make_linear,
)


def replace_linear(model: Any, kind: str = "additive", where: str = "layers.*") -> Any:
    """Replace, in place, the Linears of ``model``'s blocks whose names match ``where`` by ``kind``; return the model.

    ``where`` is a pattern of names in the base model, such as ``layers.0.*`` or ``*.mlp.fc_in``. The new layers take
    over weights (``low_rank``: the nearest of that rank) and bias, as far as they have them, and what was frozen stays
    so. The configuration remembers the kind, so that the model saves and loads like any other, and blocks that are
    grown on top follow it where the pattern matches them.

    Raises:
        FrozenGlyphError: ``kind`` is unknown, nothing matches ``where``, or ``model`` is a merged one.
    """
    if kind not in LINEAR_CLASSES:
        raise FrozenGlyphError(
            f"kind={kind!r} is not known;{nearest(kind, LINEAR_CLASSES)} Allowed: {', '.join(LINEAR_CLASSES)}"
        )
    if not hasattr(model.config, "linear_kinds"):
        raise FrozenGlyphError(f"model_type={model.config.model_type!r} has no linear_kinds; give a single model")
    base = model.base_model
    classes = tuple(LINEAR_CLASSES.values())
    linears = {name: module for name, module in base.layers.named_modules(prefix="layers") if type(module) in classes}
    matching = {name: module for name, module in linears.items() if fnmatchcase(name, where)}
    if not matching:
        raise FrozenGlyphError(
            f"where={where!r} matches none of the {len(linears)} Linears; "
            f"they have names like {next(iter(linears), '-')!r}"
        )
    for name, old in matching.items():
        base.set_submodule(name, converted(old, kind, model.config.initializer_range))
    fuse(base)
    model.config.linear_kinds = [*(model.config.linear_kinds or []), [where, kind]]
    return model


def converted(old: Any, kind: str, std: float) -> nn.Module:
    """A layer of ``kind`` with what it can take over from ``old``; the rest has initial values."""
    weight = old.up.weight @ old.down.weight if isinstance(old, LowRankLinear) else old.weight
    bias = old.up.bias if isinstance(old, LowRankLinear) else old.bias
    new: Any = make_linear(kind, old.in_features, old.out_features, bias is not None).to(weight.device, weight.dtype)
    initialise_linear(new, std)
    with torch.no_grad():
        if isinstance(new, LowRankLinear):
            rank = new.up.in_features
            left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
            roots = values[:rank].sqrt()
            new.up.weight.copy_(left[:, :rank] * roots)
            new.down.weight.copy_(roots.unsqueeze(1) * right[:rank])
        else:
            new.weight.copy_(weight)
        new_bias = new.up.bias if isinstance(new, LowRankLinear) else new.bias
        if bias is not None and new_bias is not None:
            new_bias.copy_(bias)
    return new.requires_grad_(weight.requires_grad).train(old.training)
