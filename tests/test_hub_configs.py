"""Every shipped configuration: its files load, its model has the shape it states, its recipes run and dock."""

import dataclasses
from pathlib import Path

import pytest
import torch

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.merge.write import merge_experts
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.substrate.font import FontError, load_font

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
FOLDERS = sorted(path.parent for path in HUB_CONFIGS.glob("*/config.json"))
RECIPES = sorted(HUB_CONFIGS.glob("*/growth*.yaml"))
TEXT = "Жил был кот. The cat sat.\n\n从前有一只猫。" * 40


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_config_builds_and_is_described(folder):
    config = read_json(folder / "config.json")
    with torch.device("meta"):
        model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**config))
    assert len(model.model.layers) == config["num_hidden_layers"]
    assert model.lm_head.weight.shape == (config["vocab_size"], config["hidden_size"])
    assert f"# {folder.name}" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_agrees_with_its_config(path):
    recipe = load_recipe(path)
    assert recipe.model == read_json(path.parent / "config.json")
    assert sum(stage.layers for stage in recipe.stages) == recipe.model["num_hidden_layers"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_recipes_of_one_folder_run_and_dock(folder, tmp_path):
    try:
        load_font()
    except FontError as error:
        pytest.skip(f"needs GNU Unifont: {error}")
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    experts = []
    for path in folder.glob("growth*.yaml"):
        recipe = load_recipe(path)
        recipe = dataclasses.replace(
            recipe,
            stages=[dataclasses.replace(stage, steps=1) for stage in recipe.stages],
            training=dataclasses.replace(recipe.training, context_length=16, batch_tokens=32, precision="fp32"),
        )
        experts.append(tmp_path / path.stem)
        grow_from_recipe(recipe, experts[-1], [tmp_path / "text.txt"])
    if len(experts) > 1:
        merge_experts(experts, tmp_path / "merged")
