"""Recipes are found by name from anywhere, copied with what they stand on, and all of hub_configs is in the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.merge.recipe import load_merge_recipe
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.shipped import copy_recipe, find_recipe, shipped_recipe, shipped_recipes
from frozen_glyph.substrate.recipe import load_substrate_recipe

ROOT = Path(__file__).parents[2]
LOADERS = {"growth": load_recipe, "merge": load_merge_recipe, "substrate": load_substrate_recipe}


@pytest.mark.parametrize("kind", LOADERS)
def test_every_recipe_loads_by_its_name_and_from_a_copy(kind, tmp_path, monkeypatch):
    """From a folder without a checkout; a copy has all that its recipe names, and says where its schema is."""
    monkeypatch.chdir(tmp_path)
    names = shipped_recipes(kind)
    assert len(names) == {"growth": 35, "merge": 4, "substrate": 4}[kind]
    for number, name in enumerate(names):
        recipe = LOADERS[kind](name)
        copy, *_, schema = copy_recipe(name, tmp_path / str(number))
        copied = LOADERS[kind](copy)
        if "tiny-trilingual/growth" in name:
            assert Path(copied.substrate.tokenizer) == copy.parent
        else:
            assert copied == recipe
        said = copy.read_text("utf-8").splitlines()[0].partition("$schema=")[2]
        assert copy.parent / said == schema and schema.is_file()


def test_a_growth_recipe_names_a_shipped_substrate(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nmodel: {hidden_size: 1024}\nstages: [{}]\nsubstrate: substrates/bvv241-2-3\n")
    assert load_recipe(path).substrate.max_ngram == 3


def test_a_file_goes_before_a_shipped_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "growing-unicode" / "growth"
    own.parent.mkdir()
    own.write_text("name: own\nmodel: {}\nstages: [{}]\n")
    assert load_recipe("growing-unicode/growth").name == "own"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-trilingual", "Did you mean 'tiny-trilingual/growth-ru' or 'tiny-trilingual/growth-zh'"),
        ("hub_configs/abs-bvv/growth.yaml", r"does not exist; .*Did you mean 'abs-bvv/growth'\?"),
        ("growing-unicod/growth", r"Did you mean 'growing-unicode/growth'\?"),
        ("tiny-trilingual/merge", r"does not exist; give the path of a growth\.yaml"),
        ("tiny-trilingual/merge", r"\. The shipped one of that name is of kind merge, not growth$"),
        ("../hub_configs/abs-bvv/growth", "does not exist"),
        (".", r"is a folder; give the path of a file in it, such as growth\.yaml"),
        ("", "is a folder"),
        ("a" * 300, "does not exist"),
        ("a\0b", "does not exist"),
    ],
)
def test_what_is_no_recipe_is_refused_and_the_near_names_are_told(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=message):
        find_recipe(name, "growth")
    with pytest.raises(RecipeError):
        shipped_recipe(name if name != "tiny-trilingual/merge" else "merge")


def test_a_copy_writes_over_nothing(tmp_path):
    copy_recipe("tiny-trilingual/growth-ru", tmp_path)
    assert copy_recipe("tiny-trilingual/growth-zh", tmp_path)  # beside it, on the same configuration
    (tmp_path / "growth-ru.yaml").write_text("name: mine\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(RecipeError, match=r"growth-ru\.yaml' exists and is not written over"):
        copy_recipe("tiny-trilingual/growth-ru", tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


@pytest.mark.slow
def test_a_wheel_holds_every_shipped_file(tmp_path):
    """Its recipes are found by name where the checkout is not."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    home = tmp_path / "installed" / "frozen_glyph"
    for own, there in (("hub_configs", "hub_configs"), ("eval/tasks", "evaluation/definitions/tasks")):
        files = [path.relative_to(ROOT / own) for path in (ROOT / own).rglob("*.*") if "__pycache__" not in path.parts]
        assert files and [path for path in files if not (home / there / path).exists()] == []
    command = [sys.executable, "-m", "frozen_glyph", "grow", "tiny-trilingual/growth-ru", "--dry-run"]
    found = subprocess.run(command, cwd=tmp_path / "installed", capture_output=True, text=True)
    assert "tiny-trilingual-ru (dry run)" in found.stdout, found.stderr
