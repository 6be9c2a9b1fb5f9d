"""What is wrong with a recipe, in one line: the field, its value, what is allowed, the nearest name."""

import re
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import ErrorDetails

from frozen_glyph.errors import FrozenGlyphError, nearest

ANOTHER_SPELLING = {"vocab": "vocab_size", "vocab_size": "vocab"}  # fields that have two names


class RecipeError(FrozenGlyphError):
    """A recipe has an unknown key or a value that is not allowed."""


class FieldError(RecipeError):
    """One field has a value that is not allowed."""

    def __init__(self, name: str, value: Any, allowed: str) -> None:
        super().__init__(f"recipe field {name or 'the recipe'}={value!r} is not allowed: it must be {allowed}")
        self.name, self.value, self.allowed = name, value, allowed


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``FieldError`` unless ``condition``; in a recipe's own checks ``name`` is relative to that recipe."""
    if not condition:
        raise FieldError(name, value, allowed)


def recipe_error(kind: Any, invalid: ValidationError, section: str = "") -> FrozenGlyphError:
    """What is wrong with a ``kind``, in one line: an unknown key first, then a missing one, then a value."""
    order = {"unexpected_keyword_argument": 0, "invalid_key": 0, "missing": 1}
    errors = sorted(invalid.errors(include_url=False), key=lambda error: order.get(error["type"], 2))
    error = errors[0]
    owner, _, where = place_of(kind, error["loc"][:-1], section)
    _, _, name = place_of(kind, error["loc"], section)
    if error["type"] in ("unexpected_keyword_argument", "invalid_key"):
        return unknown_key(str(error["loc"][-1]), typing.get_type_hints(owner), where)
    if error["type"] == "missing":
        return RecipeError(f"recipe field {name} is missing")
    if error["type"] == "value_error":
        problem = error["ctx"]["error"]
        if not isinstance(problem, FieldError):
            return problem
        return FieldError(".".join(filter(None, [name, problem.name])), problem.value, problem.allowed)
    members = [other for other in errors if place_of(kind, other["loc"], section)[2] == name]  # of a union
    allowed = " or ".join(allowed_value(other, place_of(kind, other["loc"], section)[1]) for other in members)
    return FieldError(name, error["input"], allowed)


def unknown_key(key: str, names: Iterable[str], where: str) -> RecipeError:
    """``key`` is no field of the recipe at ``where``, or the second spelling of one that is given."""
    place = f" in {where}" if where else ""
    others = {ANOTHER_SPELLING[name]: name for name in names if name in ANOTHER_SPELLING}
    if key in others:
        return RecipeError(f"recipe keys {others[key]!r} and {key!r}{place} are one field; leave one of both out")
    spellings = [*names, *others]
    return RecipeError(f"unknown recipe key {key!r}{place}.{nearest(key, spellings)} Allowed: {', '.join(names)}")


def place_of(kind: Any, location: tuple[int | str, ...], section: str) -> tuple[Any, list[Any], str]:
    """(type, metadata, dotted name) of what pydantic calls ``location`` in a ``kind``."""
    name = section
    kind, metadata = bare_type(kind)
    for part in location:
        inner: Any = None
        if is_pydantic_dataclass(kind):
            hints = typing.get_type_hints(kind, include_extras=True)
            part = list(hints)[part] if isinstance(part, int) else part  # of a call with positions
            inner = hints.get(part) or hints.get(ANOTHER_SPELLING.get(part, ""))
            name = f"{name}.{part}" if name else part
        elif typing.get_origin(kind) is list:
            (inner,), name = typing.get_args(kind), f"{name}[{part}]"
        elif typing.get_origin(kind) is dict:
            name = f"{name}.{part}"
        else:  # pydantic names the member of a union that it tried
            inner = next((member for member in typing.get_args(kind) if getattr(member, "__name__", "") == part), None)
        kind, metadata = bare_type(inner)
    return kind, metadata, name


def bare_type(kind: Any) -> tuple[Any, list[Any]]:
    """An annotation without ``Annotated`` and ``None``, and the metadata."""
    metadata: list[Any] = []
    while True:
        if typing.get_origin(kind) is Annotated:
            metadata += kind.__metadata__
            kind = kind.__origin__
        elif typing.get_origin(kind) in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind):
            kind = typing.Union[tuple(member for member in typing.get_args(kind) if member is not type(None))]  # noqa: UP007
        else:
            return kind, metadata


def allowed_value(error: ErrorDetails, metadata: Sequence[Any]) -> str:
    """What a field with ``metadata`` must be, whose value gave ``error``."""
    kinds = {"int": "int", "float": "float", "string": "str", "bool": "bool", "dict": "dict", "list": "a list"}
    kind = error["type"].removesuffix("_type")
    if kind == "dataclass":
        return "a mapping of fields"
    if kind in kinds:
        return kinds[kind]
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = nearest(str(error["input"]), words)
        return f"one of {', '.join(words)}{hint and '.'}{hint}"
    if kind == "finite_number":
        return f"a finite number {bounds(metadata)}".rstrip()
    if said := [entry for entry in metadata if isinstance(entry, str)]:
        return said[0]
    return bounds(metadata) or error["msg"].removeprefix("Input should be ")


def bounds(metadata: Sequence[Any]) -> str:
    """The numbers that limits in ``metadata`` allow, or an empty string."""
    limits = {
        name: getattr(entry, name) for entry in metadata for name in ("ge", "gt", "le", "lt") if hasattr(entry, name)
    }
    match limits:
        case {"ge": low, "le": high}:
            return f"from {low} to {high}"
        case {"gt": low, "lt": high}:
            return f"between {low} and {high}"
        case {"ge": low}:
            return f"at least {low}" if low else "0 or more"
        case {"gt": low}:
            return f"above {low}"
        case {"le": high}:
            return f"at most {high}"
    return ""
