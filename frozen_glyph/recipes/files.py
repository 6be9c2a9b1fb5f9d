"""A recipe file -> plain data, with the settings of a command line applied; see ``shipped.py`` for which file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.formats import YAML_BYTES, FormatError, parse_yaml, read_bytes
from frozen_glyph.recipes.errors import ANOTHER_SPELLING, RecipeError

SUFFIXES = {".yaml", ".yml", ".json"}  # of files that were meant as recipes


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, which ``find_recipe`` found.

    Raises:
        RecipeError: it is no YAML mapping, or another kind of file.
    """
    try:
        content = parse_yaml(read_bytes(path, YAML_BYTES))
    except FormatError as error:
        problem = f"is not YAML: {error}"
    else:
        if isinstance(content, dict):
            return content
        problem = f"must hold a mapping of fields, found {type(content).__name__}"
    if path.suffix.lower() in SUFFIXES:
        raise RecipeError(f"recipe {str(path)!r} {problem}")
    raise RecipeError(
        f"{str(path)!r} is no recipe, which is a YAML file of fields, as `frozen-glyph recipes` lists and shows them; "
        "give one, and a text that is to be read with --text"
    )


def override(content: dict[str, Any], settings: Sequence[str]) -> None:
    """Apply settings such as ``training.learning_rate=1e-3`` or ``stages.0.steps=10`` to ``content`` in place.

    Values are read as YAML; places in lists are numbers. Unknown names are left for ``parse`` to refuse.

    Raises:
        RecipeError: a setting has no ``=``, or its path leads through something that is no mapping or list.
    """
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise RecipeError(f"setting {setting!r} must look like training.learning_rate=1e-3")
        try:
            value = parse_yaml(text)
        except FormatError as error:
            raise RecipeError(f"setting {setting!r} has no YAML value: {error}") from None
        *parents, last = path.split(".")
        target: Any = content
        try:
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
            if isinstance(target, list):
                target[int(last)] = value
            else:
                put(target, last, value)
        except (ValueError, IndexError, TypeError, AttributeError):
            raise RecipeError(f"setting {setting!r} leads nowhere: the recipe has no such place") from None


def put(content: dict[str, Any], name: str, value: Any) -> None:
    """Set a field of plain recipe data, in place of another spelling of it."""
    content.pop(ANOTHER_SPELLING.get(name, ""), None)
    content[name] = value


def beside(folder: Path, name: str) -> str:
    """``name`` as an absolute path where ``folder`` holds it; else it is a Hub id, or a path from where one works."""
    try:
        return str((folder / name).resolve()) if (folder / name).exists() else name
    except (OSError, ValueError):  # no name of a file
        return name
