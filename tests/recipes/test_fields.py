"""Recipes made in Python: validated whenever one is made or changed, and refused in one line that names the field."""

import dataclasses
import re

import pytest

from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe, StageRecipe
from frozen_glyph.merge.recipe import MergeRecipe
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe, TrainingRecipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StageRecipe(-1), "recipe field stages.layers=-1 is not allowed: it must be from 0 to 10000"),
        (lambda: StageRecipe(1, 5, 7), "recipe field stages.steps=5 is not allowed: it must be left out where tokens"),
        (lambda: StageRecipe(init="copi"), "it must be one of identity, random, copy, copy_zero, interpolate. Did you"),
        (lambda: StageRecipe(layer=1), "unknown recipe key 'layer' in stages. Did you mean 'layers'? Allowed: layers,"),
        (lambda: SourceRecipe(), "recipe field data.sources=[] is not allowed: it must be a source with either"),
        (lambda: DataRecipe([]), "recipe field data.sources=[] is not allowed: it must be at least one source"),
        (lambda: GrowthRecipe("x", {}), "recipe field stages is missing"),
        (lambda: GrowthRecipe("x", {}, [5]), "recipe field stages[0]=5 is not allowed: it must be a mapping of fields"),
        (lambda: GrowthRecipe("x", {}, [{}], seed=2**31), "seed=2147483648 is not allowed: it must be from 0 to"),
        (lambda: TrainingRecipe(adam_beta2=1), "training.adam_beta2=1.0 is not allowed: it must be between 0 and 1"),
        (lambda: LoraRecipe(targets=[]), "lora.targets=[] is not allowed: it must be at least one Linear of a block"),
        (lambda: LoraRecipe(alpha=True), "lora.alpha=True is not allowed: it must be float"),
        (lambda: SourceRecipe(["a"], weight=float("inf")), "data.sources.weight=inf is not allowed: it must be"),
        (lambda: MergeRecipe(["a", 5]), "recipe field experts[1]=5 is not allowed: it must be str or a mapping"),
        (lambda: parse(MergeRecipe, [1]), "recipe field the recipe=[1] is not allowed: it must be a mapping of fields"),
        (lambda: parse(MergeRecipe, {1: 2}), "unknown recipe key '1'. Allowed: experts, rule,"),
    ],
)  # fmt: skip
def test_what_is_made_in_python_is_refused_in_one_line(make, message):
    with pytest.raises(RecipeError, match=re.escape(message)) as refused:
        make()
    assert "\n" not in str(refused.value) and refused.value.__cause__ is None


def test_a_changed_copy_is_validated_and_the_recipe_stays():
    stage = StageRecipe(steps=5)
    assert dataclasses.replace(stage, steps=6) == StageRecipe(1, 6) and stage.steps == 5
    with pytest.raises(RecipeError, match=r"stages\.steps=0"):
        dataclasses.replace(stage, steps=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.steps = 0


def test_a_number_stays_what_it_was_written_as():
    """Records are compared byte for byte: an int of a float field is a float, an int stays an int."""
    lora = LoraRecipe(alpha=16, rank=4)
    assert (type(lora.alpha), type(lora.rank)) == (float, int)
    with pytest.raises(RecipeError, match=r"lora\.rank=4\.0 is not allowed: it must be int"):
        LoraRecipe(rank=4.0)
