"""Add blocks to a model, freeze what it had, choose what trains (arXiv 2507.07129: growth on a frozen substrate)."""

import copy
from collections.abc import Collection
from typing import Any, get_args

import torch

from frozen_glyph.checkpoint.tensors import BLOCKS_PREFIX, layer_of
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.recipe import Init, StageRecipe
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.linear_frozen_glyph import silence
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM

WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module")  # where compiling, distributing, checkpointing keep it
NAMED = 3  # tensors that an error names
PARTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam's state


def grow(model: FrozenGlyphForCausalLM, layers: int = 1, init: Init = "copy_zero") -> FrozenGlyphForCausalLM:
    """Return a model with ``layers`` new blocks on top; ``model`` itself stays as it is.

    The old blocks are frozen; the new blocks, the final norm and the head train. ``identity`` zeroes the new blocks'
    output projections, so that the grown model computes exactly what ``model`` did; ``random`` is the published way;
    ``copy`` repeats the topmost blocks; ``copy_zero``, the default, is both, copies whose output projections are zero
    (LLaMA Pro, arXiv 2401.02415); ``interpolate`` is the mean of what ``copy`` would repeat and the block below that,
    where there is one. No new blocks (``layers=0``) means: the newest ones go on training.

    ``model`` may be compiled, or wrapped by DistributedDataParallel, accelerate or DeepSpeed; the grown model is not.
    Every tensor keeps its dtype.

    Raises:
        FrozenGlyphError: ``layers`` is negative or ``init`` is unknown; ``model`` holds other tensors than its
            configuration says, as with adapters or parametrisations, or they are quantised, sharded or offloaded.
        ValueError: ``init`` is ``identity`` or ``copy_zero`` and the blocks' output projections are additive, which are
            never silent.
    """
    if layers < 0:
        raise FrozenGlyphError(f"layers={layers} must be 0 or more")
    if init not in (inits := get_args(Init)):
        raise FrozenGlyphError(f"init={init!r} is not known; allowed: {', '.join(inits)}")
    model = unwrap(model)
    old_layers = model.config.num_hidden_layers
    config: Any = copy.deepcopy(model.config)
    config.num_hidden_layers = old_layers + layers
    config.ladder = [*(config.ladder or [old_layers]), config.num_hidden_layers]
    if layers:
        config.num_frozen_layers = old_layers
    config.name_or_path = ""  # or a new model would look there for its substrate
    grown: Any = FrozenGlyphForCausalLM(config)
    grown.name_or_path = grown.config.name_or_path = model.config.name_or_path
    grown.to(model.device, model.dtype)
    tensors = old_tensors(model, grown)
    copies = {name: tensor.to(model.device, copy=True) for name, tensor in tensors.items()}
    grown.load_state_dict(copies, strict=False, assign=True)
    start_blocks(grown.model.layers, old_layers, init)
    return grown


def source_of(index: int, old_layers: int, new_layers: int) -> int:
    """The old block that new block ``index``, counted from 0 over the new ones, repeats: the topmost, in their order.

    >>> [source_of(index, 3, 2) for index in (0, 1)], [source_of(index, 2, 3) for index in (0, 1, 2)]
    ([1, 2], [0, 1, 0])
    """
    first = max(0, old_layers - new_layers)
    return first + index % (old_layers - first)


@torch.no_grad()
def start_blocks(blocks: Any, old_layers: int, init: Init) -> None:
    """Let the blocks after the first ``old_layers``, freshly initialised, begin as ``init`` says; see ``grow``."""
    for index, block in enumerate(blocks[old_layers:]):
        source = source_of(index, old_layers, len(blocks) - old_layers)
        if init in ("copy", "copy_zero", "interpolate"):
            block.load_state_dict(blocks[source].state_dict())
        if init == "interpolate" and source > 0:
            for tensor, below in zip(block.parameters(), blocks[source - 1].parameters(), strict=True):
                tensor.lerp_(below, 0.5)
        if init in ("identity", "copy_zero"):
            for output in (block.self_attn.o_proj, block.mlp.fc_out):
                silence(output)


def unwrap(model: Any) -> Any:
    """The model inside what compiles or distributes it.

    Raises:
        FrozenGlyphError: that is no model of one stack of blocks with its head.
    """
    inside = model
    while wrapper := next((name for name in WRAPPERS if name in inside._modules), None):
        inside = inside._modules[wrapper]
    kind = getattr(getattr(inside, "config", None), "model_type", None)
    if kind != FrozenGlyphConfig.model_type:
        raise FrozenGlyphError(
            f"grow() takes a FrozenGlyphForCausalLM, not a {type(inside).__name__} (model_type={kind!r})"
        )
    return inside


def old_tensors(model: Any, grown: Any) -> dict[str, torch.Tensor]:
    """The tensors of ``model`` by their names in ``grown``; ``FrozenGlyphError`` unless each has its counterpart."""
    found = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): tensor
        for name, tensor in model.state_dict().items()
    }
    new = tuple(f"model.layers.{index}." for index in range(model.config.num_hidden_layers, len(grown.model.layers)))
    expected = {name: tensor for name, tensor in grown.state_dict().items() if not name.startswith(new)}
    wrong = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "quantised, sharded, offloaded or of another shape": [
            name for name, tensor in found.items() if name in expected and not is_plain(tensor, expected[name])
        ],
    }
    if told := [f"{what}: {some(names)}" for what, names in wrong.items() if names]:
        raise FrozenGlyphError(
            f"grow() cannot copy every tensor of this {type(model).__name__}: {'; '.join(told)}. Make it plain first: "
            "merge_and_unload() or unload() of adapters, remove_parametrizations, or load it again"
        )
    return found


def is_plain(tensor: torch.Tensor, like: torch.Tensor) -> bool:
    """Whether ``tensor`` lies in memory as numbers that can stand for ``like``."""
    return (
        type(tensor) is torch.Tensor
        and not tensor.is_meta
        and tensor.shape == like.shape
        and tensor.is_floating_point() == like.is_floating_point()
    )


def some(names: list[str]) -> str:
    """The first of ``names``, and how many there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def choose_trainable(model: FrozenGlyphForCausalLM, parts: Collection[str]) -> None:
    """Let only ``parts`` train: ``blocks`` (those not frozen), ``norm``, ``head``, ``embeddings``."""
    model.requires_grad_(False)
    newest = model.model.layers[model.config.num_frozen_layers :]
    modules = {"blocks": newest, "norm": model.model.norm, "head": model.lm_head, "embeddings": model.substrate}
    for part in parts:
        modules[part].requires_grad_(True)


def moments_for(model: Any, left: dict[str, torch.Tensor], plan: StageRecipe) -> dict[str, torch.Tensor]:
    """Of Adam's state that the stage before left, by parameter and part, what the parameters that train begin with.

    Those that trained go on; copied blocks have the state of their sources, but not of outputs that were set to zero.
    """
    old_layers = model.config.num_hidden_layers - plan.layers
    begin: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        layer, source = layer_of(name), name
        if layer is not None and layer >= old_layers:
            new = f"{BLOCKS_PREFIX}{layer}."
            zero = plan.init == "copy_zero" and name.startswith((f"{new}self_attn.o_proj.", f"{new}mlp.fc_out."))
            if plan.init not in ("copy", "copy_zero") or zero:
                continue
            number = source_of(layer - old_layers, old_layers, plan.layers)
            source = f"{BLOCKS_PREFIX}{number}.{name.removeprefix(new)}"
        if parameter.requires_grad and ".lora_" not in name:  # adapters of the stage before are merged
            begin |= {f"{name}.{part}": left[f"{source}.{part}"] for part in PARTS if f"{source}.{part}" in left}
    return begin
