"""How to train a recipe's blocks within a memory budget: what trains at a time, and how much of a batch goes through.

Command: ``frozen-glyph grow RECIPE --dry-run --memory 8GB``

Plans read as many tokens for as many blocks; those of which more trains at a time come first: all blocks at once; one
block more a stage, of which as many of the topmost train as fit; the newest alone; and all in turns, to compare with.
Within a plan the largest micro-batch that fits is taken; activations are made again where none fits without.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import TypedDict

from frozen_glyph.growth.estimate import estimate, totals
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.recipe import TrainingRecipe

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
MARGIN = 1.25  # the estimate is held to this factor by its test
TURN_STEPS = 100
PLANS = {
    "joint": "all blocks at once",
    "stacking": "one block more a stage, the topmost {active} train",
    "newest": "one block more a stage, only that trains",
    "turns": f"all blocks at once, each in turn for {TURN_STEPS} steps (as BAdam)",
}


class Proposal(TypedDict):
    """A plan with its settings; ``memory_bytes`` is None where it does not fit with any."""

    plan: str
    about: str
    memory_bytes: int | None
    flops: int | None
    settings: list[str]


def memory_of(text: str) -> int:
    """Bytes of a size such as 8GB, 500 MB or 7.5GiB.

    >>> memory_of("8GB"), memory_of("1.5 GiB")
    (8000000000, 1610612736)

    Raises:
        RecipeError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", text.strip().lower())
    if found is None or not float(found[1]):
        raise RecipeError(f"--memory {text!r} is not allowed: it must be a size such as 8GB, 500MB or 7.5GiB")
    return int(float(found[1]) * UNITS[found[2]])


def propose(recipe: GrowthRecipe, memory: int) -> list[Proposal]:
    """The plans for the blocks and tokens of ``recipe`` in ``memory`` bytes, best first; those that do not fit last.

    Raises:
        RecipeError: the recipe goes on from a parent, or trains embeddings or adapters.
    """
    blocks = sum(stage.layers for stage in recipe.stages)
    odd = {
        "parent": recipe.parent is not None,
        "lora": recipe.lora is not None,
        "stages.train": any(set(stage.train) != {"blocks", "norm", "head"} for stage in recipe.stages),
    }
    if fields := [name for name, given in odd.items() if given]:
        raise RecipeError(f"--memory proposes how to train blocks, norm and head from the first: leave out {fields[0]}")
    found = [fitted(plan, variants, memory) for plan, variants in plans_of(recipe, blocks)]
    return sorted(found, key=lambda proposal: proposal["memory_bytes"] is None)


def plans_of(recipe: GrowthRecipe, blocks: int) -> Iterator[tuple[str, Iterator[tuple[GrowthRecipe, list[str]]]]]:
    """The plans, each with its variants, the one to be preferred first."""
    steps = sum(recipe.training.steps_of(stage.steps, stage.tokens) for stage in recipe.stages)
    once = StageRecipe(layers=blocks, steps=steps)
    yield "joint", variants_of(recipe, [once])
    if blocks > 1:
        yield "stacking", (v for active in range(blocks - 1, 1, -1) for v in grown(recipe, blocks, steps, active))
        yield "newest", grown(recipe, blocks, steps, None)
        yield "turns", variants_of(recipe, [dataclasses.replace(once, rotate=TURN_STEPS)])


def grown(
    recipe: GrowthRecipe, blocks: int, steps: int, active: int | None
) -> Iterator[tuple[GrowthRecipe, list[str]]]:
    """One block more a stage, a copy of the one below."""
    each, rest = divmod(steps, blocks)
    more = {"init": "copy_zero", "optimizer": "carried", "active": active}
    stages = [StageRecipe(steps=each + rest)]
    stages += [StageRecipe(steps=each, **more) for _ in range(blocks - 1)]  # type: ignore[arg-type]
    return variants_of(recipe, stages)


def variants_of(recipe: GrowthRecipe, stages: list[StageRecipe]) -> Iterator[tuple[GrowthRecipe, list[str]]]:
    """The recipe with ``stages`` under one decay, for every micro-batch, without and with activations made again."""
    own: TrainingRecipe = dataclasses.replace(recipe.training, schedule="warmup_stable_decay")
    sizes = [size for size in range(own.batch_size, 0, -1) if own.batch_size % size == 0]
    said = [
        f"stages=[{', '.join(map(written, stages))}]",
        "decay=run",
        "training.schedule=warmup_stable_decay",
    ]
    for again in (False, True):
        for size in sizes:
            training = dataclasses.replace(own, micro_batch_size=size, activation_checkpointing=again)
            settings = [
                *said,
                f"training.micro_batch_size={size}",
                f"training.activation_checkpointing={again}".lower(),
            ]
            yield dataclasses.replace(recipe, stages=stages, training=training, decay="run"), settings


def written(stage: StageRecipe) -> str:
    """A stage as a setting says it."""
    fields = {name: value for name, value in stage.to_dict().items() if value != getattr(StageRecipe(), name)}
    return "{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}"


def fitted(plan: str, variants: Iterator[tuple[GrowthRecipe, list[str]]], memory: int) -> Proposal:
    """The first variant of a plan that fits."""
    for recipe, settings in variants:
        costs = totals(estimate(recipe))
        if MARGIN * costs["memory_bytes"] <= memory:
            return {
                "plan": plan,
                "about": PLANS[plan].format(active=recipe.stages[-1].active),
                "memory_bytes": costs["memory_bytes"],
                "flops": costs["flops"],
                "settings": settings,
            }
    about = PLANS[plan].format(active="two or more")
    return {"plan": plan, "about": about, "memory_bytes": None, "flops": None, "settings": []}
