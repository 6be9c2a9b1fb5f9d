"""The growth recipe of a study's training and what it costs."""

from typing import Any

from eval.studies.common.scale import Scale
from frozen_glyph.growth.estimate import estimate
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe, SubstrateRecipe
from frozen_glyph.training.recipe import TrainingRecipe


def recipe_at(
    scale: Scale,
    name: str,
    stages: list[StageRecipe],
    seed: int,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **fields: Any,
) -> GrowthRecipe:
    """A recipe of the sizes of ``scale``; ``model``, ``training`` and ``fields`` say what else it holds."""
    return GrowthRecipe(
        name=name,
        model={"hidden_size": scale.hidden_size, "num_attention_heads": scale.heads} | (model or {}),
        stages=stages,
        substrate=SubstrateRecipe(vocab_size=scale.vocab_size, reserved=0),  # as in the results that are kept
        training=TrainingRecipe(
            context_length=scale.context_length,
            batch_tokens=scale.batch_tokens,
            learning_rate=scale.learning_rate,
            warmup_steps=20,
            **{"save_steps": 200} | (training or {}),
        ),
        seed=seed,
        **fields,
    )


def flops_of(recipe: GrowthRecipe) -> float:
    """Of all its phases."""
    return sum(phase["flops"] for phase in estimate(recipe))
