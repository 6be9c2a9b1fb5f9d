"""A small text, a substrate folder, a recipe of two stages that trains in under a second, and its finished run."""

import copy
import shutil

import pytest

from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.recipes.fields import parse

RECIPE = {
    "name": "tiny",
    "model": {"hidden_size": 48, "num_attention_heads": 4},
    "stages": [{"steps": 12}, {"layers": 2, "steps": 12, "init": "random"}],
    "seed": 5,
}
VERBS = ["sat", "is", "stood", "was", "ate", "slept"]


def edited(content: dict, changes: dict) -> dict:
    """A copy of nested ``content`` with ``{"dotted.path": value}`` changed; list places are numbers."""
    content = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target = content
        for part in parents:
            target = target[part]
        target[last] = value
    return content


@pytest.fixture(scope="session")
def recipe_content(tiny_training):
    """``recipe_content({"training.batch_tokens": 0})``: the tiny recipe (or another) as plain data, with changes."""
    return lambda changes=None, content=RECIPE | {"training": tiny_training}: edited(content, changes or {})


@pytest.fixture(scope="session")
def make_recipe(recipe_content):
    """``make_recipe({"seed": 1})``: the tiny recipe, with changes."""
    return lambda changes=None: parse(GrowthRecipe, recipe_content(changes))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Paths of a training text and a held-out text."""
    folder = tmp_path_factory.mktemp("text")
    cats = [f"The cat {verb} on the mat, and {verb} there. Кот сидел на окне {verb}." for verb in VERBS * 8]
    (folder / "train.txt").write_text("\n\n".join(cats), encoding="utf-8")
    (folder / "valid.txt").write_text("The hat is on the cat.\n\nКот тоже сидел там 😀.\n", encoding="utf-8")
    return folder / "train.txt", folder / "valid.txt"


@pytest.fixture(scope="session")
def substrate_folder(substrate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("substrate")
    substrate.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def grow_tiny(make_recipe, texts, substrate_folder):
    """``grow_tiny(out, {"seed": 1})``: carry the tiny recipe out, with changes; returns the provenance."""

    def run(out, changes=None, **arguments):
        defaults = {"text": [texts[0]], "valid": [texts[1]], "substrate": substrate_folder}
        return grow_from_recipe(make_recipe(changes), out=out, **(defaults | arguments))

    return run


@pytest.fixture(scope="session")
def finished(grow_tiny, tmp_path_factory):
    """(folder, provenance) of the tiny recipe's run. Only read it; ``copied`` is for changing."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, grow_tiny(folder)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "run")
