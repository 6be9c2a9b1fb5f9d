"""Every dependency says its lowest version, from which ``.ci/run oldest`` makes its environment."""

import tomllib
from pathlib import Path

from floors import FLOOR, floors

PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")


def test_every_dependency_has_a_floor():
    project = tomllib.loads(PYPROJECT)["project"]
    words = [*project["dependencies"], *(word for words in project["optional-dependencies"].values() for word in words)]
    unbounded = [word for word in words if not FLOOR.match(word) and not word.startswith(("frozen-glyph[", "types-"))]
    assert unbounded == []


def test_floors_are_those_of_the_base_and_its_extras():
    found = floors(
        '[project]\ndependencies = ["torch>=2.11"]\n[project.optional-dependencies]\n'
        'eval = ["lm-eval[hf]>=0.4.11"]\nquant = ["torchao>=0.18"]\ndev = ["ruff>=0.17", "pytest>=8.3"]\n'
    )
    assert found == {"torch": "2.11", "lm-eval": "0.4.11", "pytest": "8.3"}
