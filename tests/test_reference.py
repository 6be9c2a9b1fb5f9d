"""What docstrings point at exists, and the reference that pdoc makes of them holds every module and no broken link."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("frozen_glyph", "eval")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NAMED = re.compile(r"(?<![\w/.:-])[\w-]+(?:/[\w.-]+)*\.(?:py|md)\b(?!/)|\b(?:frozen_glyph|eval)(?:\.[a-z_]\w*)+\b")
ELSEWHERE = {"models/utils.py", "run_clm.py", "squad_v2/squad_v2.py"}  # of transformers and of a peer
WRITTEN = {"OUT.md", "README.md", "report.md"}  # by what the docstring is about


def docstrings(source: str) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, documented))
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


def exists(name: str, beside: Path) -> bool:
    """Whether ``name`` is a module or in one, or a file of the folders above ``beside`` and one below them."""
    if name.endswith((".py", ".md")):
        above = [place for place in beside.parents if ROOT in (place, *place.parents)]
        return any((place / name).exists() or next(place.glob(f"*/{name}"), None) for place in above)
    place = ROOT / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").exists():
        return True
    module = place.parent.with_suffix(".py")
    return module.exists() and bool(re.search(rf"^(def )?{place.name}\b", module.read_text("utf-8"), re.M))


def missing(path: Path) -> list[str]:
    named = set(NAMED.findall(docstrings(path.read_text("utf-8")))) - ELSEWHERE - WRITTEN
    return [f"{path.relative_to(ROOT)}: {name}" for name in sorted(named) if not exists(name, path)]


def test_files_and_modules_that_docstrings_name_exist():
    assert [name for path in SOURCES for name in missing(path)] == []


def test_what_does_not_exist_is_seen(tmp_path):
    here = ROOT / "frozen_glyph" / "growth" / "run.py"
    for name in ("stage.py", "growth/recipe.py", "frozen_glyph.cli", "frozen_glyph.hub.push"):
        assert exists(name, here)
    for name in ("stages_of.py", "growth/nothing.py", "frozen_glyph.nothing", "frozen_glyph.hub.nothing"):
        assert not exists(name, here)


@pytest.mark.slow
def test_the_reference_has_every_module_and_no_broken_link(tmp_path):
    pytest.importorskip("pdoc", reason="the reference is made by pdoc")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "reference", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    modules = {path.relative_to(ROOT) for path in SOURCES if ROOT / "frozen_glyph" in path.parents}
    named = {path.parent if path.name == "__init__.py" else path for path in modules if path.name != "__main__.py"}
    assert {tmp_path / path.with_suffix(".html") for path in named} <= pages.keys()
    anchors = {path: set(re.findall(r'id="([^"]+)"', page)) for path, page in pages.items()}
    assert "grow_from_recipe" in anchors[tmp_path / "frozen_glyph.html"]
    broken = []
    for path, page in pages.items():
        for link in re.findall(
            r'<a[^>]* href="(?!https?:|\$\{)([^"]+)"', page
        ):  # those of the search box are made later
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if target not in pages or (anchor and anchor not in anchors[target]):
                broken.append(f"{path.relative_to(tmp_path)}: {link}")
    assert sorted(set(broken)) == []
