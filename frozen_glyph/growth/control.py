"""The control of a growth: the same budget spent on the first stage's blocks, which train on while nothing is added.

Command: ``frozen-glyph grow RECIPE --control --out runs/ru`` trains it in ``runs/ru-control``, where the page and the
picture of ``runs/ru`` look for it.
"""

import dataclasses

from frozen_glyph.checkpoint.contract import CONTROL
from frozen_glyph.growth.recipe import GrowthRecipe

OF_DEPTH = ("num_hidden_layers", "num_frozen_layers", "ladder")  # fields of ``model`` that say how it was to grow


def control_recipe(recipe: GrowthRecipe) -> GrowthRecipe:
    """``recipe`` with the same steps, rates and data, in which stages after the first add no blocks."""
    first, *others = recipe.stages
    if recipe.parent is not None:  # the parent's newest blocks train on
        first = dataclasses.replace(first, layers=0, init="identity", active=None)
    stages = [first, *(dataclasses.replace(stage, layers=0, init="identity", active=None) for stage in others)]
    model = {name: value for name, value in recipe.model.items() if name not in OF_DEPTH}
    return dataclasses.replace(recipe, name=CONTROL.format(name=recipe.name), model=model, stages=stages)
