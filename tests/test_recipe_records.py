"""What a recipe is stored as stays what it is, byte for byte, so that runs and tunings that were interrupted go on."""

import hashlib
import json
from pathlib import Path

import pytest

from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.merge.tune_recipe import TuneRecipe

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"

# Identity of what is computed, and sha256 of the record in provenance.json: the first 16 digits of each.
STORED = {
    "abs-bvv/growth": ("eab539bb649d58dc", "cd74f05f7bc18737"),
    "emergent-semantics/growth-1024float": ("d982d9b2584d2b7c", "93e1e95a3424a23b"),
    "fixed-minimal-code/growth-trainable": ("c7a4ecc6b544b0f9", "715084cd12ba9cc0"),
    "long-run-16/growth": ("6c1ad7a5b2f2e347", "5b3481820ddc845c"),
    "nemo-bvv/growth-ru": ("980d463df076a043", "3c296fcc506d96e0"),
    "tiny-trilingual/growth-zh": ("579e4917b56a32bb", "06c9f19fcd7ecdd3"),
}
ALL = "6d12455781d4fde0"  # of all shipped growth recipes


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", STORED)
def test_a_growth_recipe_is_stored_as_ever(name):
    recipe = load_recipe(HUB_CONFIGS / f"{name}.yaml")
    assert (recipe.sha256[:16], digest(json.dumps(recipe.to_dict()))) == STORED[name]


def test_every_shipped_growth_recipe_is_stored_as_ever():
    recipes = [load_recipe(path) for path in sorted(HUB_CONFIGS.glob("*/growth*.yaml"))]
    assert digest(json.dumps([[recipe.sha256, recipe.to_dict()] for recipe in recipes])) == ALL


def test_a_tune_recipe_is_stored_as_ever():
    recipe = TuneRecipe("scales", tokens=5)
    assert (recipe.sha256[:16], digest(json.dumps(recipe.to_dict()))) == ("cf82d9c6fe5ca8ce", "7042713362fd268f")
