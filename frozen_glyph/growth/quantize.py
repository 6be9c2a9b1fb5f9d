"""Weight-only quantisation of the frozen blocks while a stage trains above them: their memory, not the result's form.

``int8`` (a scale for each output) and ``int4`` (for each group of inputs) are torchao's, ``nf4`` is QLoRA's (arXiv
2305.14314) in bitsandbytes. The stored shards of frozen blocks are never written from such a model.
"""

import importlib.util
from typing import Any, Literal

import torch
from torch import nn

from frozen_glyph.errors import FrozenGlyphError

GROUP_SIZES = (128, 64, 32)  # inputs that share a scale in int4: the largest that divides their number
LIBRARIES = {"int8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}
NEEDS_CUDA = ("int4", "nf4")


def quantize_frozen(model: Any, kind: Literal["int8", "int4", "nf4"]) -> None:
    """Quantise the Linears of the frozen blocks in place; embedding, norms, trainable blocks and head stay as they are.

    The same weights give the same bits again. Without frozen blocks nothing happens.

    Raises:
        FrozenGlyphError: ``kind`` is unknown; its library is not installed; it needs a CUDA GPU and the model is on
            none; a frozen block has parameters that train, or a size that ``int4`` cannot group.
    """
    check_kind(kind, model.device)
    blocks = nn.ModuleList(model.model.layers[: model.config.num_frozen_layers])
    if any(parameter.requires_grad for parameter in blocks.parameters()):
        raise FrozenGlyphError(f"training.quantize_frozen={kind!r}: frozen blocks have adapters that train; say none")
    linears = {name: module for name, module in blocks.named_modules() if isinstance(module, nn.Linear)}
    for name, linear in linears.items():
        if kind == "nf4":
            blocks.set_submodule(name, nf4_linear(linear))
        else:
            quantize_with_torchao(linear, kind)


def plain_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that hold ``tensor``: itself, or the parts of a quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in plain_parts(getattr(tensor, name))]


def check_kind(kind: str, device: torch.device) -> None:
    """Raise ``FrozenGlyphError`` unless ``kind`` can be computed here."""
    if kind not in LIBRARIES:
        raise FrozenGlyphError(f"training.quantize_frozen={kind!r} is not known; allowed: {', '.join(LIBRARIES)}, none")
    if kind in NEEDS_CUDA and device.type != "cuda":
        raise FrozenGlyphError(
            f"training.quantize_frozen={kind!r} needs a CUDA GPU, the model is on {device.type}; say int8 or none"
        )
    if importlib.util.find_spec(LIBRARIES[kind]) is None:
        raise FrozenGlyphError(
            f"training.quantize_frozen={kind!r} needs {LIBRARIES[kind]}: pip install 'frozen-glyph[quant]', or say none"
        )


def quantize_with_torchao(linear: nn.Linear, kind: str) -> None:
    """Replace the weight of ``linear`` by torchao's int8 or int4 tensor, which computes in the activations' type."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    if kind == "int8":
        quantize_(linear, Int8WeightOnlyConfig(set_inductor_config=False))
        return
    sizes = [size for size in GROUP_SIZES if linear.in_features % size == 0]
    if not sizes:
        raise FrozenGlyphError(
            f"training.quantize_frozen='int4' groups {GROUP_SIZES[-1]} inputs or more, and a Linear has "
            f"{linear.in_features}; say int8 or none"
        )
    linear.weight = nn.Parameter(linear.weight.bfloat16(), requires_grad=False)  # the only type its kernel knows
    config = Int4WeightOnlyConfig(
        group_size=sizes[0], int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )
    quantize_(linear, config)


def nf4_linear(linear: nn.Linear) -> nn.Module:
    """``linear`` with 4-bit NormalFloat weights, computed in bfloat16."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    device = linear.weight.device
    quantized = Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
    )
    quantized.weight = Params4bit(linear.weight.detach().cpu(), requires_grad=False, quant_type="nf4")
    quantized.bias = linear.bias
    return quantized.to(device)  # bitsandbytes quantises on the way
