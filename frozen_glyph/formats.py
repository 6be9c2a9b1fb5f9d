"""JSON and YAML that others wrote: read within limits, and compared with the types that the reader relies on.

What is wrong is a ``FormatError`` of one line, which does not know the file's name: the caller adds it.
"""

import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, Required

from frozen_glyph.errors import FrozenGlyphError

JSON_BYTES = 1 << 28  # of a file: the largest tokenizer.json in use has a tenth of it
YAML_BYTES = 1 << 18  # of a file; a recipe has a few thousand
YAML_NODES = 100_000  # of a file, an anchor counted wherever it is used
DEEPEST = 64  # lists and mappings inside each other
INTEGER_BITS = 256
HALF = re.compile("[\ud800-\udfff]")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # as JSON may write one


class FormatError(FrozenGlyphError):
    """What was read is not of its format, larger than is allowed, or of other types than are expected."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file.

    Raises:
        FormatError: it has more than ``limit``, or is a pipe or device, which might never end.
        OSError: it cannot be read.
    """
    if not (path.is_file() or path.is_dir()) and path.exists():
        raise FormatError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FormatError(f"it has more than {limit:,} bytes, the limit")
    return content


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    >>> parse_json('{"stage": 2}')
    {'stage': 2}

    Raises:
        FormatError: it is no JSON in UTF-8, nested deeper than ``DEEPEST``, has an integer above ``INTEGER_BITS``, or a
            text with half a surrogate pair.
    """
    text = as_text(content)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(str(error)) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:  # Python's own limit of digits
        raise FormatError(f"it has an integer of more than {INTEGER_BITS} bits") from None
    check_bounds(value, letters=SURROGATE.search(text) is not None)
    return value


def parse_yaml(content: bytes | str) -> Any:
    """The value of a YAML text of plain types.

    Raises:
        FormatError: it is no such YAML, or beyond ``YAML_NODES``, ``DEEPEST`` or ``INTEGER_BITS``.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(as_text(content))
        try:
            node = loader.get_single_node()
            check_nodes(node)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise too_deep() from None
    except FormatError:
        raise
    except yaml.YAMLError as error:
        raise FormatError(" ".join(str(error).split())) from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError):  # of a date, number or key
        raise FormatError("a value is not of the type that its tag or form says") from None
    check_bounds(value, letters=True)
    return value


def as_text(content: bytes | str) -> str:
    """UTF-8 as text, without a byte order mark; ``FormatError`` names the first byte that is none."""
    try:
        return content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}") from None


def too_deep() -> FormatError:
    return FormatError(f"it is nested deeper than {DEEPEST} levels, the limit")


def check_nodes(node: Any) -> None:
    """Raise ``FormatError`` where a composed YAML document, its anchors written out, is beyond the limits."""
    level, count = [] if node is None else [node], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for found in level:
            inner = found.value if isinstance(found.value, list) else []
            count += 1 + len(inner)
            if count > YAML_NODES:
                raise FormatError(f"with its anchors written out it has more than {YAML_NODES:,} values, the limit")
            for entry in inner:
                below += entry if isinstance(entry, tuple) else [entry]
        if not below:
            return
        level = below
    raise too_deep()


def check_bounds(value: Any, letters: bool) -> None:
    """Raise ``FormatError`` where a parsed value is nested too deeply or holds too large an integer.

    ``letters``: or a text that has half a surrogate pair, which no file and no tokenizer can hold.
    """
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for found in level:
            if type(found) is dict:
                below += found.values()
                if letters:
                    below += found
            elif type(found) is list:
                below += found
            elif type(found) is int and found.bit_length() > INTEGER_BITS:
                raise FormatError(f"it has an integer of more than {INTEGER_BITS} bits")
            elif letters and type(found) is str and (half := HALF.search(found)):
                raise FormatError(
                    f"it has U+{ord(half[0]):04X} in a text, half a character: a surrogate without its other"
                )
        if not below:
            return
        level = below
    raise too_deep()


def finite(value: Any) -> Any:
    """``value`` with None in the place of numbers that JSON cannot hold: infinite ones, and what is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def check_type(value: Any, kind: Any, place: str = "") -> None:
    """Raise ``FormatError``, naming the place, unless ``value`` is of the plain type ``kind``.

    ``kind`` is built of ``int`` (no bool), ``float`` (an int too), ``str``, ``bool``, ``None``, ``Any``, ``list[...]``,
    ``dict[str, ...]``, ``Literal``, unions and ``TypedDict``; of the last keys that it does not name may be anything.

    >>> check_type({"a": [1, "b"]}, dict[str, list[int]])
    Traceback (most recent call last):
    frozen_glyph.formats.FormatError: a[1] is 'b'; it must be a whole number
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (Required, NotRequired):
        check_type(value, arguments[0], place)
    elif origin in (types.UnionType, typing.Union):
        check_union(value, arguments, place)
    elif typing.is_typeddict(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind, include_extras=True)
        for name in sorted(kind.__required_keys__ - value.keys()):
            raise FormatError(f"{joined(place, name)} is missing")
        for name in hints.keys() & value.keys():
            check_type(value[name], hints[name], joined(place, name))
    elif origin is list and isinstance(value, list):
        for index, entry in enumerate(value):
            check_type(entry, arguments[0], f"{place}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for name, entry in value.items():
            check_type(entry, arguments[1], joined(place, str(name)))
    elif not fits(value, kind):
        raise FormatError(f"{place or 'it'} is {reprlib.repr(value)}; it must be {words(kind)}")


def check_union(value: Any, kinds: Sequence[Any], place: str) -> None:
    """``check_type`` of one of several kinds."""
    problems = []
    for kind in kinds:
        try:
            return check_type(value, kind, place)
        except FormatError as error:
            problems.append(error)
    inner = [error for error, kind in zip(problems, kinds, strict=True) if isinstance(value, plain_of(kind))]
    raise (
        inner[0]
        if inner
        else FormatError(f"{place or 'it'} is {reprlib.repr(value)}; it must be {' or '.join(map(words, kinds))}")
    )


def plain_of(kind: Any) -> type:
    """The class of the values of ``kind``."""
    origin = typing.get_origin(kind)
    if typing.is_typeddict(kind):
        return dict
    return origin if origin in (list, dict) else type(None)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value without parts is of ``kind``."""
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    if kind is None or kind is type(None):
        return value is None
    return kind in PLAIN and isinstance(value, PLAIN[kind])


def joined(place: str, name: str) -> str:
    """``place.name``, shortened where a file has long names."""
    name = name if name.isprintable() and len(name) <= 60 else reprlib.repr(name)
    return f"{place}.{name}" if place else name


PLAIN: dict[Any, Any] = {int: int, float: int | float, str: str}
NAMES: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", None: "null", type(None): "null"
}  # fmt: skip


def words(kind: Any) -> str:
    """What values of ``kind`` are called in an error."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return one_of(arguments)
    if origin in (Required, NotRequired):
        return words(arguments[0])
    if origin is list:
        return "a list"
    if origin is dict or typing.is_typeddict(kind):
        return "a mapping"
    return NAMES.get(kind, str(kind))


def one_of(values: Iterable[Any]) -> str:
    return " or ".join(map(repr, values))
