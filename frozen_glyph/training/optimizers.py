"""Optimisers that keep less than Adam's two moments of every weight: what each needs, and the bytes that it keeps.

GaLore (arXiv 2403.03507) and APOLLO (arXiv 2412.05270) keep moments of projected gradients, of the Linears of blocks;
8-bit Adam (arXiv 2110.02861) quantised moments; Adafactor (arXiv 1804.04235) sums over rows and columns.
"""

import importlib.util
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.recipe import TrainingRecipe

PACKAGES = {"adamw_8bit": "bitsandbytes", "galore_adamw": "galore_torch", "apollo_adamw": "apollo_torch"}
PROJECTED = ("galore_adamw", "apollo_adamw")
TARGETS = [r".*layers\.\d+\.(self_attn|mlp)\.\w+"]
# Plain objects in the state of these, which hold numbers and tensors.
PROJECTORS = (
    ("galore_torch.galore_projector", "GaLoreProjector"),
    ("apollo_torch.random_projector", "GradientProjector"),
)


def check_optimizer(recipe: TrainingRecipe, sharded: bool) -> None:
    """``RecipeError`` unless the optimiser is installed and can be launched so."""
    package = PACKAGES.get(recipe.optim)
    if package is not None and importlib.util.find_spec(package) is None:
        name = package.replace("_", "-")
        raise RecipeError(
            f"recipe field training.optim={recipe.optim!r} needs {name}: pip install {name}, or say adamw"
        )
    if recipe.optim != "adamw" and sharded:
        raise RecipeError(
            f"recipe field training.optim={recipe.optim!r}: FSDP and DeepSpeed divide weights that it must see whole; "
            "say adamw, or launch with DistributedDataParallel"
        )


def optimizer_arguments(recipe: TrainingRecipe) -> dict[str, Any]:
    """What Trainer's arguments say of the optimiser."""
    if recipe.optim == "adamw":
        return {}
    targets = {"optim_target_modules": TARGETS} if recipe.optim in PROJECTED else {}
    rank = {"optim_args": f"rank={recipe.optim_rank}"} if recipe.optim in PROJECTED else {}
    return {"optim": recipe.optim, **targets, **rank}


def projectors_load() -> AbstractContextManager:
    """Let the state of an optimiser that is in use be read with the projector that it holds."""
    import torch

    found = [(sys.modules[module], name) for module, name in PROJECTORS if module in sys.modules]
    return torch.serialization.safe_globals([getattr(module, name) for module, name in found])


def optimizer_bytes(recipe: TrainingRecipe, trainable: int, linears: Iterable[tuple[int, int]]) -> int:
    """Bytes of the state of ``trainable`` weights, of which ``linears`` are those of blocks, (inputs, outputs) each."""
    sizes = list(linears)
    inside = sum(inputs * outputs for inputs, outputs in sizes)
    if recipe.optim == "adamw_8bit":
        return 2 * trainable
    if recipe.optim == "adafactor":
        return 4 * (sum(map(sum, sizes)) + trainable - inside)
    if recipe.optim in PROJECTED:
        ranks = [(min(recipe.optim_rank, *size), size) for size in sizes]
        kept = sum(rank * (2 * max(size) + min(size)) for rank, size in ranks)
        return 4 * kept + 8 * (trainable - inside)
    return 8 * trainable
