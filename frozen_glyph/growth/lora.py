"""Low-rank adapters on every block of a model: add, then merge, write or drop (LoRA, arXiv 2106.09685, on peft).

A merged phase trains adapters, final norm and head, and changes the blocks; one that is kept trains the adapters alone,
so that all shards of its stage stay valid and the adapters are the whole difference.
"""

import importlib.util
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from frozen_glyph.checkpoint.contract import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from frozen_glyph.checkpoint.files import copy_file, sha256_file, write_tensors
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.recipe import LoraRecipe

ADAPTER = "default"


def check_peft() -> None:
    """Raise ``FrozenGlyphError`` unless peft is installed."""
    if importlib.util.find_spec("peft") is None:
        raise FrozenGlyphError("recipe field lora needs peft: pip install 'frozen-glyph[train]'")


def add_adapters(model: Any, recipe: LoraRecipe, seed: int = 0) -> None:
    """Put an adapter on each ``recipe.targets`` Linear of every block, in place; the model computes what it did.

    Afterwards the adapters train (float32; the same ``seed`` gives the same bits on any device) and, when
    ``recipe.merge``, the final norm and the head. All else is frozen.

    Raises:
        FrozenGlyphError: peft is not installed; the model has adapters already; a block is quantised.
    """
    inject(model, recipe, seed)
    if recipe.merge:
        model.model.norm.requires_grad_(True)
        model.lm_head.requires_grad_(True)


def add_adapters_below(model: Any, recipe: LoraRecipe, blocks: int, seed: int = 0) -> None:
    """As ``add_adapters``, but on the lowest ``blocks`` alone, and what trained before trains on; 0: nothing."""
    if blocks:
        training = [parameter for parameter in model.parameters() if parameter.requires_grad]
        inject(model, recipe, seed, range(blocks))
        for parameter in training:
            parameter.requires_grad_(True)


def inject(model: Any, recipe: LoraRecipe, seed: int, blocks: Sequence[int] | None = None) -> None:
    """Put adapters on ``blocks`` of ``model`` (None: all), which alone train then."""
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    if list(adapters(model)):
        raise FrozenGlyphError("the model has adapters already; merge or drop them first")
    refuse_quantized(model)
    alpha: Any = recipe.alpha  # peft says int and takes any number
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        target_modules=sorted(set(recipe.targets)),
        layers_to_transform=None if blocks is None else [*blocks],
        task_type="CAUSAL_LM",
        inference_mode=False,
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for _, layer in adapters(model):
        down, up = layer.lora_A[ADAPTER].float(), layer.lora_B[ADAPTER].float()
        bound = 1 / math.sqrt(down.in_features)
        with torch.no_grad():
            down.weight.copy_(torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator))
            up.weight.zero_()
        down.requires_grad_(True)
        up.requires_grad_(True)


def adapters(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and adapted Linears of ``model``, in order."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield name, module


def refuse_quantized(model: nn.Module) -> None:
    """Raise ``FrozenGlyphError`` when a weight of a block is no plain floating-point tensor."""
    for name, parameter in model.named_parameters():
        if type(parameter.data) is not torch.Tensor or not parameter.is_floating_point():
            raise FrozenGlyphError(
                f"{name} is quantised ({type(parameter.data).__name__}), and adapters are merged into full precision; "
                "load the stage again and add the adapters without training.quantize_frozen"
            )


@torch.no_grad()
def merge_adapters(model: Any) -> None:
    """Add every adapter to its Linear's weight, computed in float32, in place; the adapters are gone afterwards.

    Names and shapes of ``state_dict()`` are again those before ``add_adapters``; frozen is what the configuration says.
    """
    for _, layer in adapters(model):
        weight, up, down = layer.get_base_layer().weight, layer.lora_B[ADAPTER].weight, layer.lora_A[ADAPTER].weight
        weight.copy_(weight.float() + layer.scaling[ADAPTER] * (up.float() @ down.float()))
    drop_adapters(model)


def drop_adapters(model: Any) -> None:
    """Take the adapters off, in place: what is left are the plain Linears they stood on."""
    for name, layer in list(adapters(model)):
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(True)
    model.apply_freezing()


def write_adapters(model: Any, recipe: LoraRecipe, folder: Path) -> dict[str, str]:
    """Write the adapters as a folder for ``PeftModel.from_pretrained(base, folder)``; return each file's sha256.

    Raises:
        FrozenGlyphError: the model has no adapters, or their phase also trained norm and head (``recipe.merge``),
            without which the folder would compute something else.
    """
    found = list(adapters(model))
    if not found or recipe.merge:
        problem = "the model has no adapters" if not found else "recipe field lora.merge=True trained norm and head too"
        raise FrozenGlyphError(f"no adapters can be written to {str(folder)!r}: {problem}")
    tensors = {
        f"base_model.model.{name}.{part}.weight": getattr(layer, part)[ADAPTER].weight
        for name, layer in found
        for part in ("lora_A", "lora_B")
    }
    write_tensors(folder / ADAPTER_WEIGHTS, tensors)
    with tempfile.TemporaryDirectory() as temporary:
        model.peft_config[ADAPTER].save_pretrained(temporary)
        copy_file(Path(temporary) / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)  # last: peft looks for it first
    return {name: sha256_file(folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
