"""Every shipped configuration: published counts, recipe and configuration agree, dry run, and a small copy grows."""

import dataclasses
from pathlib import Path

import pytest
import torch

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.growth.estimate import estimate, totals
from frozen_glyph.growth.recipe import GrowthRecipe, load_recipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.merge.write import merge_experts
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.substrate.font import FontError, load_font
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
FOLDERS = sorted(path.parent for path in HUB_CONFIGS.glob("*/config.json"))
RECIPES = sorted(HUB_CONFIGS.glob("*/growth*.yaml"))
TEXT = "Жил был кот. The cat sat.\n\n从前有一只猫。" * 40

# Parameters with the substrate's entries; trained in the last stage. Sources: see tests/model/test_parameter_counts.py.
PUBLISHED = {
    "growing-unicode": (247_614_464, 104_952_832),
    "growing-16bit": (181_554_176, 104_952_832),
    "monolithic-frozen": (247_614_464, 180_505_600),
    "monolithic-trainable": (247_614_464, 247_614_464),
    "unfrozen-then-frozen": (247_614_464, 104_952_832),
    "long-run-16": (269_699_072, None),
    "abs-bvv": (2_282_061_824, None),  # published as 2.3B
}


def named(paths):
    return {"argvalues": paths, "ids": [f"{path.parent.name}-{path.stem}" for path in paths]}


def shrink(recipe: GrowthRecipe, text: Path) -> GrowthRecipe:
    """The same stages, phases and layouts at a size that trains in seconds, on ``text`` where it names its data."""
    own = recipe.substrate.tokenizer is not None  # its vocabulary stays, and with it the model's width
    changed = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "substrate_bits")
    model = {key: value for key, value in recipe.model.items() if own or key not in changed}
    if not own:
        model |= {"hidden_size": 48, "num_attention_heads": 4}
    lora = recipe.lora and dataclasses.replace(recipe.lora, rank=2, steps=1, tokens=None)
    return dataclasses.replace(
        recipe,
        model=model,
        substrate=recipe.substrate if own else dataclasses.replace(recipe.substrate, vocab_size=512),
        data=recipe.data and DataRecipe([SourceRecipe(files=[str(text)])]),
        stages=[dataclasses.replace(stage, steps=1, tokens=None) for stage in recipe.stages],
        lora=lora,
        training=dataclasses.replace(
            recipe.training, context_length=16, batch_tokens=32, micro_batch_size=None, precision="fp32"
        ),
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_config_builds_and_is_described(folder):
    config = read_json(folder / "config.json")
    with torch.device("meta"):
        model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**config))
    assert len(model.model.layers) == config["num_hidden_layers"]
    assert model.lm_head.weight.shape == (config["vocab_size"], config["hidden_size"])
    assert f"# {folder.name}" in (folder / "README.md").read_text("utf-8")
    assert f"({folder.name})" in (HUB_CONFIGS / "README.md").read_text("utf-8")
    if folder.name in PUBLISHED:
        entries = 0 if config.get("substrate_trainable") else config["vocab_size"] * config["substrate_bits"]
        assert model.num_parameters() + entries == PUBLISHED[folder.name][0]


@pytest.mark.parametrize("path", **named(RECIPES))
def test_recipe_agrees_with_its_config(path):
    recipe = load_recipe(path)
    assert recipe.model == read_json(path.parent / "config.json")
    assert sum(stage.layers for stage in recipe.stages) == recipe.model["num_hidden_layers"]
    assert recipe.name.startswith(path.parent.name)


@pytest.mark.parametrize("path", **named(RECIPES))
def test_dry_run_counts_what_was_published(path):
    phases = estimate(load_recipe(path))
    last = [phase for phase in phases if phase["phase"] == "blocks"][-1]
    total, trainable = PUBLISHED.get(path.parent.name, (None, None))
    assert total in (None, last["total_parameters"])
    assert trainable in (None, last["trainable_parameters"])
    assert last["num_hidden_layers"] == load_recipe(path).model["num_hidden_layers"]


def test_published_stages_and_tokens():
    phases = estimate(load_recipe(HUB_CONFIGS / "abs-bvv" / "growth.yaml"))
    assert [(p["stage"], p["phase"]) for p in phases] == [
        *((stage, "blocks") for stage in range(1, 6)), (5, "lora"), (6, "blocks"), (6, "lora"),
    ]  # fmt: skip
    billions = [round(p["total_parameters"] / 1e9, 1) for p in phases if p["phase"] == "blocks"]
    assert billions == [1.3, 1.5, 1.7, 1.9, 2.1, 2.3]
    assert round(totals(estimate(load_recipe(HUB_CONFIGS / "long-run-16" / "growth.yaml")))["tokens"] / 1e9, 1) == 68.9


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_small_copies_grow_as_foretold_and_dock(folder, tmp_path):
    try:
        load_font()
    except FontError as error:
        pytest.skip(f"needs GNU Unifont: {error}")
    text = tmp_path / "text.txt"
    text.write_text(TEXT, "utf-8")
    experts = []
    for path in sorted(folder.glob("growth*.yaml")):
        recipe = shrink(load_recipe(path), text)
        experts.append(tmp_path / path.stem)
        provenance = grow_from_recipe(recipe, experts[-1], [] if recipe.data else [text])
        config = read_json(experts[-1] / "config.json")
        sizes = {name: config[name] for name in ("vocab_size", "substrate_bits")}
        phases = estimate(dataclasses.replace(recipe, model=recipe.model | sizes))
        foretold = [phase["trainable_parameters"] for phase in phases if phase["phase"] == "blocks"]
        assert [stage["trainable_parameters"] for stage in provenance["stages"]] == foretold
    if len(experts) > 1:
        merge_experts(experts, tmp_path / "merged")
