"""Rooms import only what the design allows, and importing the package stays cheap and works in any order."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import frozen_glyph

PACKAGE = Path(frozen_glyph.__file__).parent
ROOMS = {"demo", "evaluation", "growth", "merge", "training", "substrate", "hub", "text", "checkpoint", "model"}
ROOMS |= {
    "pages",
    "app",
    "export",
    "health",
    "published",
    "recipes",
    "statistics",
    "talk",
    "formats",
    "errors",
    "memory",
}
FOUNDATION = {"memory", "pages", "recipes", "statistics", "text", "checkpoint", "model", "formats", "errors"}
ARROWS = {
    "cli": ROOMS,
    "app": {"evaluation", "talk", "substrate"} | FOUNDATION,
    "demo": {"evaluation", "growth", "merge", "training", "substrate"} | FOUNDATION,
    "evaluation": FOUNDATION,
    "export": {"substrate"} | FOUNDATION,
    "growth": {"health", "training", "substrate"} | FOUNDATION,  # meets merge in checkpoint folders only
    "health": FOUNDATION,
    "merge": {"training"} | FOUNDATION,
    "talk": {"merge", "evaluation"} | FOUNDATION,  # whose base an adapter means, what weights a rule takes, who speaks
    "training": FOUNDATION,
    "substrate": FOUNDATION,
    "published": {"substrate"} | FOUNDATION,
    "hub": FOUNDATION,
    "checkpoint": {"model", "formats", "errors"},
    "text": {"formats", "errors"},
    "recipes": {"formats", "errors"},
    "statistics": set(),
    "model": set(),  # travels to machines without this package
    "formats": {"errors"},  # JSON and YAML of others, within limits
    "errors": set(),
    "memory": set(),
    "pages": set(),
    "registration": {"model"},
    "__init__": {"registration"},
    "__main__": {"cli"},
}
TRAVELS_WITH = {"torch", "transformers", "huggingface_hub", "safetensors"}  # safetensors: transformers depends on it


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path, root: Path) -> list[str]:
    """Absolute names of all modules that a file imports, wherever in the file; relative ones are made absolute."""
    package = ["frozen_glyph", *path.relative_to(root).parent.parts]
    modules = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            if module == "frozen_glyph":  # a room, a file or one of the public names
                modules += [frozen_glyph._HOME.get(alias.name, f"frozen_glyph.{alias.name}") for alias in node.names]
            else:  # what is imported may be a module too
                modules += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return modules


def rooms_imported(path: Path, root: Path = PACKAGE) -> set[str]:
    """Rooms of this package that a file imports; a bare ``import frozen_glyph``, which only registers, is none."""
    modules = [module.split(".") for module in imported_modules(path, root)]
    return {parts[1] for parts in modules if parts[0] == "frozen_glyph" and len(parts) > 1}


FILES = sorted(PACKAGE.rglob("*.py"))
EVALUATION = PACKAGE / "evaluation"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_arrows_between_rooms(path):
    room = room_of(path)
    assert room in ARROWS, f"room {room!r} is new: say in ARROWS what it may import"
    forbidden = rooms_imported(path) - ARROWS[room] - {room}
    assert not forbidden, f"{path.name} in room {room!r} must not import {sorted(forbidden)}"


def test_no_circle_of_files():
    """Every file can be read after all that it imports, types included."""
    files = {".".join(["frozen_glyph", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in FILES}
    graph = {name: files.keys() & set(imported_modules(path, PACKAGE)) for name, path in files.items()}
    assert sum(map(len, graph.values())) > len(files)
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("part", ["tasks", "report"])
def test_parts_of_evaluation_meet_in_its_flow(part):
    """Tasks know no report, the report no task: what is measured (measurements.py) is all that both know."""
    for path in (EVALUATION / part).rglob("*.py"):
        modules = [module.split(".")[1:] for module in imported_modules(path, PACKAGE)]
        imported = {module[1] for module in modules if module[:1] == ["evaluation"]}
        assert imported <= {part, "measurements"}, path.name


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_the_model_room_travels_alone(path):
    """A checkpoint carries these files without the package: outside libraries and flat siblings only."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, "write `from .sibling import name`"
            assert (path.parent / f"{node.module}.py").is_file()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert outside <= TRAVELS_WITH


def test_the_reader_of_imports_sees_them(tmp_path):
    file = tmp_path / "growth" / "new.py"
    file.parent.mkdir()
    file.write_text(
        "import frozen_glyph\nfrom ..merge.write import x\ndef f():\n    from frozen_glyph import evaluate_models\n"
        "    import frozen_glyph.substrate.font as font\nfrom .run import y\nfrom .. import hub\n"
    )
    assert rooms_imported(file, tmp_path) == {"merge", "evaluation", "substrate", "growth", "hub"}


def test_every_public_name_loads():
    assert [name for name in frozen_glyph.__all__ if not hasattr(frozen_glyph, name)] == []
    assert set(frozen_glyph.__all__) <= set(dir(frozen_glyph))
    with pytest.raises(AttributeError, match="no attribute 'grwo'"):
        _ = frozen_glyph.grwo


REGISTERED = """
import transformers
from transformers import AutoConfig, AutoModel
for name, middle in (("frozen_glyph", ""), ("frozen_glyph_moe", "MoE")):
    config = AutoConfig.for_model(name)
    assert type(config).__module__ == "frozen_glyph.model.configuration_frozen_glyph"
    assert AutoModel._model_mapping[type(config)].__name__ == f"FrozenGlyph{middle}Model"
    for task in ("CausalLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"):
        mapping = getattr(transformers, f"AutoModelFor{task}")._model_mapping
        assert mapping[type(config)].__name__ == f"FrozenGlyph{middle}For{task}"
"""
PACKAGE_FIRST = """
import sys
import frozen_glyph
from frozen_glyph.model.rules_frozen_glyph import RULES
assert not {"torch", "transformers", "numpy", "typer"} & set(sys.modules)
from frozen_glyph import FrozenGlyphForCausalLM
assert FrozenGlyphForCausalLM.config_class is frozen_glyph.FrozenGlyphConfig
"""
TRANSFORMERS_FIRST = """
import transformers
transformers.AutoModelForCausalLM
import frozen_glyph
"""
BASE_CLASS_BETWEEN = """
import frozen_glyph
from transformers import PreTrainedModel
"""
# A file of transformers that brings in the Auto classes before it has finished itself.
LAYERS_BETWEEN = """
import frozen_glyph
import transformers.modeling_layers
"""
FIRSTS = {
    "package": PACKAGE_FIRST,
    "transformers": TRANSFORMERS_FIRST,
    "base class": BASE_CLASS_BETWEEN,
    "layers": LAYERS_BETWEEN,
}


@pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)
def test_import_orders(first, tmp_path):
    """Whatever is imported first, the Auto classes know the models; the package and its rules load no torch."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", first + REGISTERED],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
