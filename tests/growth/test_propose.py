"""What is proposed for a memory budget fits it by the estimate, says the same tokens, and is a recipe."""

import pytest

from frozen_glyph.growth.estimate import estimate, totals
from frozen_glyph.growth.propose import MARGIN, memory_of, propose
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.recipes.errors import RecipeError

RECIPE = """
name: deep
model: {hidden_size: 256, num_attention_heads: 4, num_hidden_layers: 6}
substrate: {vocab_size: 4096}
stages: [{layers: 2, steps: 101}, {layers: 4, steps: 100}]
training: {context_length: 256, batch_tokens: 4096}
"""


@pytest.fixture
def recipe_file(tmp_path):
    (tmp_path / "growth.yaml").write_text(RECIPE)
    return tmp_path / "growth.yaml"


def budgets(recipe) -> list[int]:
    """Memories of which each is too small for something that the one before has room for."""
    most = propose(recipe, 10**12)
    return [int(MARGIN * proposal["memory_bytes"] * share) for proposal in most for share in (1, 0.9, 0.5)]


def test_every_proposal_is_a_recipe_that_fits_and_costs_what_it_says(recipe_file):
    plain = load_recipe(recipe_file)
    for memory in budgets(plain):
        for proposal in propose(plain, memory):
            if proposal["memory_bytes"] is None:
                assert proposal["settings"] == []
                continue
            recipe = load_recipe(recipe_file, proposal["settings"])
            found = totals(estimate(recipe))
            assert (found["memory_bytes"], found["flops"]) == (proposal["memory_bytes"], proposal["flops"])
            assert found["memory_bytes"] * MARGIN <= memory
            assert found["tokens"] == totals(estimate(plain))["tokens"]
            assert estimate(recipe)[-1]["num_hidden_layers"] == 6


def test_less_memory_trains_less_at_a_time(recipe_file):
    """Everything fits at first, at last with the smallest batches and activations made again; then not all blocks at
    once; then nothing."""
    recipe = load_recipe(recipe_file)
    assert "training.micro_batch_size=16" in propose(recipe, 10**12)[0]["settings"]
    too_little, enough = 10**7, 10**9
    while enough > 1.02 * too_little:
        middle = (enough + too_little) // 2
        first = propose(recipe, middle)[0]
        fits = first["plan"] == "joint" and first["memory_bytes"]
        too_little, enough = (too_little, middle) if fits else (middle, enough)
    least, below = propose(recipe, enough)[0], propose(recipe, too_little)
    assert {"training.micro_batch_size=1", "training.activation_checkpointing=true"} < set(least["settings"])
    assert below[0]["plan"] == "stacking" and below[-1]["plan"] == "joint" and below[-1]["memory_bytes"] is None
    assert all(proposal["memory_bytes"] is None for proposal in propose(recipe, 10**7))


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("500m", 5 * 10**8), ("700", 700)]
)
def test_sizes_are_read(text, size):
    assert memory_of(text) == size


@pytest.mark.parametrize("text", ["", "eight", "0GB", "-1GB", "8PB", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RecipeError, match="must be a size such as 8GB"):
        memory_of(text)


@pytest.mark.parametrize(("setting", "field"), [("lora={}", "lora"), ("stages.1.train=[head]", "stages.train")])
def test_other_recipes_are_refused(recipe_file, setting, field):
    with pytest.raises(RecipeError, match=f"leave out {field}"):
        propose(load_recipe(recipe_file, [setting]), 10**9)
