"""Every shipped configuration: published counts, recipe and configuration agree, dry run, and a small copy grows.

The small copies of most folders are slow tests: there are many, and they go through the same code.
"""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.growth.estimate import estimate, totals
from frozen_glyph.growth.recipe import GrowthRecipe, load_recipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.merge.recipe import load_merge_recipe
from frozen_glyph.merge.write import merge_experts
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.substrate.choices import choose_bits, choose_whitening
from frozen_glyph.substrate.font import FontError, load_font
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
README = (HUB_CONFIGS / "README.md").read_text("utf-8")
FOLDERS = sorted(path.parent for path in HUB_CONFIGS.glob("*/config.json"))
RECIPES = sorted(HUB_CONFIGS.glob("*/growth*.yaml"))
MERGES = sorted(HUB_CONFIGS.glob("*/merge.yaml"))
NOT_PUBLISHED = {"friday-evening", "tiny-trilingual-ru", "tiny-trilingual-zh"}
QUICK = {"tiny-trilingual", "growing-16bit", "unfrozen-then-frozen"}  # own tokenizer and merge; codes; trained table
FLOPS_PER_SECOND = 2e14  # what README.md assumes
TEXT = "Жил был кот. The cat sat.\n\n从前有一只猫。" * 40

# Parameters with the substrate's entries, as published and as counted; those that train in the last stage, where they
# were published or follow. Sources: see tests/model/test_parameter_counts.py and the README of each folder.
PUBLISHED = {
    "growing-unicode": ("247.6M", 247_614_464, 104_952_832),
    "growing-16bit": ("181.6M", 181_554_176, 104_952_832),
    "unfrozen-then-frozen": ("247M", 247_614_464, 104_952_832),
    "monolithic-frozen": ("247.6M", 247_614_464, 180_505_600),
    "monolithic-16bit": ("181M", 181_554_176, 180_505_600),
    "monolithic-trainable": ("247.6M", 247_614_464, 247_614_464),
    "long-run-16": ("269.7M", 269_699_072, None),
    "abs-bvv": ("2.3B", 2_282_061_824, None),
    **dict.fromkeys(("best-bvv-ru", "best-bvv-zh"), ("0.5B", 470_042_624, None)),
    **dict.fromkeys(("best-bvv-unfrozen-ru", "best-bvv-unfrozen-zh"), ("0.5B", 470_042_624, 470_042_624)),
    **dict.fromkeys(("max-bvv-ru", "max-bvv-zh", "nemo-bvv-ru", "nemo-bvv-zh"), ("0.4B", 419_674_112, None)),
    **dict.fromkeys(("pro-bvv-en", "pro-bvv-ru", "pro-bvv-zh", "pro-bvv-unfrozen"), ("0.2B", 247_614_464, None)),
    "emergent-semantics-glyph": ("335M", 335_759_360, None),
    "emergent-semantics-unfrozen": ("335M", 335_759_360, 335_759_360),
    "emergent-semantics-16bit": ("269M", 269_699_072, None),
    "emergent-semantics-64bit": ("272M", 272_844_800, None),
    "emergent-semantics-256bit": ("285M", 285_427_712, None),
    "emergent-semantics-1024bit": ("335M", 335_759_360, None),
    "emergent-semantics-16float": ("269M", 269_699_072, None),
    "emergent-semantics-64float": ("272M", 272_844_800, None),
    "emergent-semantics-256float": ("285M", 285_427_712, None),
    "emergent-semantics-1024float": ("335M", 335_759_360, None),
    "fixed-minimal-code-binary": (None, 471_173_120, None),
    "fixed-minimal-code-trainable": (None, 537_233_408, None),
}
PUBLISHED_MERGED = {"best-bvv": "0.9B", "max-bvv": "0.8B", "nemo-bvv": "0.8B"}  # two full copies, table included


def named(paths):
    return {"argvalues": paths, "ids": [f"{path.parent.name}-{path.stem}" for path in paths]}


def says(published: str, total: int) -> bool:
    """Whether ``total`` is what was published: ``2.3B`` rounded, ``335M`` with the digits behind it left out."""
    number, size = published[:-1], total / {"M": 1e6, "B": 1e9}[published[-1]]
    return f"{size:.1f}" == number if "." in number else str(math.floor(size)) == number


def shrink(recipe: GrowthRecipe, text: Path) -> GrowthRecipe:
    """The same stages, phases and layouts at a size that trains in seconds, on ``text`` where it names its data."""
    substrate = recipe.substrate
    own = substrate.tokenizer is not None and Path(substrate.tokenizer).is_dir()
    if not own:  # else its vocabulary stays, and with it the model's width
        substrate = dataclasses.replace(substrate, tokenizer=None, vocab_size=512, bits=substrate.bits and 24)
    changed = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "substrate_bits")
    model = {key: value for key, value in recipe.model.items() if own or key not in changed}
    lora = recipe.lora and dataclasses.replace(recipe.lora, rank=2, steps=1, tokens=None)
    return dataclasses.replace(
        recipe,
        model=model if own else model | {"hidden_size": 48, "num_attention_heads": 4},
        substrate=substrate,
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
    description = (folder / "README.md").read_text("utf-8")
    assert description.startswith(f"# {folder.name}\n")
    assert f"({folder.name})" in README
    for path in re.findall(r"hub_configs/[\w./-]+", description):
        assert (HUB_CONFIGS.parent / path).is_file()


@pytest.mark.parametrize("path", **named(RECIPES))
def test_recipe_agrees_with_its_config(path):
    recipe = load_recipe(path)
    assert recipe.model == read_json(path.parent / "config.json")
    assert sum(stage.layers for stage in recipe.stages) == recipe.model["num_hidden_layers"]
    assert recipe.name == path.parent.name + path.stem.removeprefix("growth")


@pytest.mark.parametrize("path", **named(RECIPES))
def test_pictures_of_published_models_are_as_drawn_and_ours_are_whitened(path):
    recipe = load_recipe(path)
    asked, width = recipe.substrate, recipe.model["hidden_size"]
    if asked.layout == "grid":
        bits = choose_bits(asked.layout, width, asked.bits, recipe.model["vocab_size"])
        whiten = choose_whitening(asked.layout, asked.whiten, bits)
        assert whiten == ("full" if recipe.name in NOT_PUBLISHED else "none")


@pytest.mark.parametrize("path", **named(RECIPES))
def test_dry_run_counts_what_was_published(path):
    recipe = load_recipe(path)
    last = [phase for phase in estimate(recipe) if phase["phase"] == "blocks"][-1]
    assert last["num_hidden_layers"] == recipe.model["num_hidden_layers"]
    if recipe.name in NOT_PUBLISHED:
        return
    published, total, trainable = PUBLISHED[recipe.name]
    assert last["total_parameters"] == total
    assert trainable in (None, last["trainable_parameters"])
    assert published is None or says(published, total)


def test_published_stages_and_tokens():
    phases = estimate(load_recipe(HUB_CONFIGS / "abs-bvv" / "growth.yaml"))
    assert [(p["stage"], p["phase"]) for p in phases] == [
        *((stage, "blocks") for stage in range(1, 6)), (5, "lora"), (6, "blocks"), (6, "lora"),
    ]  # fmt: skip
    billions = [round(p["total_parameters"] / 1e9, 1) for p in phases if p["phase"] == "blocks"]
    assert billions == [1.3, 1.5, 1.7, 1.9, 2.1, 2.3]
    assert round(totals(estimate(load_recipe(HUB_CONFIGS / "long-run-16" / "growth.yaml")))["tokens"] / 1e9, 1) == 68.9


@pytest.mark.parametrize("path", **named(MERGES))
def test_merge_recipe_names_what_was_grown(path):
    recipe = load_merge_recipe(path)
    growths = [load_recipe(path.parent / f"growth-{name}.yaml") for name in recipe.names]
    for source, name in zip(recipe.sources(), recipe.names, strict=True):
        assert source.source in (f"runs/{path.parent.name}-{name}", f"runs/{name}")
    config = FrozenGlyphConfig(**growths[0].model)
    expert = {name: getattr(config, name) for name in FrozenGlyphMoEConfig.EXPERT_FIELDS}
    with torch.device("meta"):
        shared = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size}
        merged = FrozenGlyphMoEForCausalLM(FrozenGlyphMoEConfig(**shared, experts=[expert] * 2, rule=recipe.rule))
    table = config.vocab_size * config.hidden_size
    if published := PUBLISHED_MERGED.get(path.parent.name):
        assert says(published, merged.num_parameters() + 2 * table)
    if path.parent.name == "best-bvv":
        assert f"{merged.num_parameters() + table:,}" in (path.parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_readme_says_what_it_costs(folder):
    """The row of a folder in hub_configs/README.md is that of its dry run; memory and days of its costliest recipe."""
    recipes = [load_recipe(path, ["training.precision=bf16"]) for path in sorted(folder.glob("growth*.yaml"))]
    runs = [totals(estimate(recipe)) for recipe in recipes]
    memory = max(run["memory_bytes"] for run in runs) / 1e9
    days = max(run["flops"] for run in runs) / FLOPS_PER_SECOND / 86_400
    small = folder.name == "tiny-trilingual"  # grown on a CPU
    row = next(row for row in README.splitlines() if row.startswith(f"| [{folder.name}]"))
    _, layers, ids, _, stages, *costs = (cell.strip() for cell in row.strip("|").split("|"))
    assert int(layers) == recipes[0].model["num_hidden_layers"]
    assert int(ids.replace(",", "")) == recipes[0].model["vocab_size"]
    assert stages.startswith(f"{len(recipes[0].stages)} of {recipes[0].stages[0].layers}")
    tokens = f"{runs[0]['tokens'] / 1e9:.{1 if small else 3}g}"
    assert costs == [tokens, f"{memory:.{int(small)}f}", "" if small else f"{days:.2g}"]


def small_copies():
    slow = pytest.mark.slow
    return [pytest.param(path, id=path.name, marks=() if path.name in QUICK else slow) for path in FOLDERS]


@pytest.mark.parametrize("folder", small_copies())
def test_small_copies_grow_as_foretold_and_dock(folder, tmp_path):
    try:
        load_font()
    except FontError as error:
        pytest.skip(f"needs GNU Unifont: {error}")
    text = tmp_path / "text.txt"
    text.write_text(TEXT, "utf-8")
    for path in sorted(folder.glob("growth*.yaml")):
        recipe = shrink(load_recipe(path), text)
        out = tmp_path / path.stem
        provenance = grow_from_recipe(recipe, out, [] if recipe.data else [text])
        config = read_json(out / "config.json")
        sizes = {name: config[name] for name in ("vocab_size", "substrate_bits")}
        phases = estimate(dataclasses.replace(recipe, model=recipe.model | sizes))
        foretold = [phase["trainable_parameters"] for phase in phases if phase["phase"] == "blocks"]
        assert [stage["trainable_parameters"] for stage in provenance["stages"]] == foretold
    if (folder / "merge.yaml").exists():
        recipe = load_merge_recipe(folder / "merge.yaml")
        experts = [tmp_path / f"growth-{name}" for name in recipe.names]
        merged = merge_experts(experts, tmp_path / "merged", recipe.rule, names=recipe.names)
        assert read_json(merged / "config.json")["expert_names"] == recipe.names
