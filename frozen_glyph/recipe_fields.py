"""Recipes: a YAML file -> overrides -> typed dataclasses; errors name the field, its value and what is allowed."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from frozen_glyph.errors import FrozenGlyphError, nearest


class RecipeError(FrozenGlyphError):
    """A recipe has an unknown key or a value that is not allowed."""


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``RecipeError`` naming field, value and what is allowed."""
    if not condition:
        raise RecipeError(f"recipe field {name}={value!r} is not allowed: it must be {allowed}")


def read_recipe(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; ``what`` (such as ``growth.yaml``) is for the error when there is none.

    Raises:
        RecipeError: the file is missing or no YAML mapping.
    """
    if not path.is_file():
        raise RecipeError(f"recipe {str(path)!r} does not exist; give the path of a {what}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {str(path)!r} must hold a mapping of fields, found {type(content).__name__}")
    return content


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
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"setting {setting!r} has no YAML value: {' '.join(str(error).split())}") from None
        *parents, last = path.split(".")
        target: Any = content
        try:
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
            target[int(last) if isinstance(target, list) else last] = value
        except (ValueError, IndexError, TypeError, AttributeError):
            raise RecipeError(f"setting {setting!r} leads nowhere: the recipe has no such place") from None


def parse(kind: Any, value: Any, name: str) -> Any:
    """Turn plain YAML ``value`` into the annotated type ``kind``; ``name`` is the field's dotted path for errors."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return parse_dataclass(kind, value, name)
    if origin is list:
        require(isinstance(value, list), name, value, "a list")
        return [parse(arguments[0], entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if origin is Literal:
        if value is False and "off" in arguments:  # YAML 1.1 reads off as false
            return "off"
        require(value in arguments, name, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return parse_union([kind for kind in arguments if kind is not type(None)], value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or kind
    if plain is float and isinstance(value, str):  # YAML 1.1 reads 2e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    require(isinstance(value, plain) and (plain is not int or not isinstance(value, bool)), name, value, plain.__name__)
    return value


def parse_dataclass(kind: Any, value: Any, name: str) -> Any:
    """A mapping as the dataclass ``kind``: no unknown key, no missing one."""
    require(isinstance(value, dict), name or "the recipe", value, "a mapping of fields")
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            where = f" in {name}" if name else ""
            allowed = ", ".join(hints)
            raise RecipeError(f"unknown recipe key {key!r}{where}.{nearest(str(key), hints)} Allowed: {allowed}")
    for entry in dataclasses.fields(kind):
        if (
            entry.name not in value
            and entry.default is dataclasses.MISSING
            and entry.default_factory is dataclasses.MISSING
        ):
            raise RecipeError(f"recipe field {'.'.join(filter(None, [name, entry.name]))} is missing")
    dotted = {key: f"{name}.{key}" if name else key for key in value}
    return kind(**{key: parse(hints[key], entry, dotted[key]) for key, entry in value.items()})


def parse_union(kinds: list[Any], value: Any, name: str) -> Any:
    """``None``, or the first of ``kinds`` that takes ``value``."""
    if value is None:
        return None
    for kind in kinds[:-1]:
        try:
            return parse(kind, value, name)
        except RecipeError:
            continue
    return parse(kinds[-1], value, name)
