"""JSON and YAML of others end in a value or in one line; what is read has the types that its reader relies on."""

import sys
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from frozen_glyph.errors import LONGEST_MESSAGE, FrozenGlyphError
from frozen_glyph.formats import DEEPEST, FormatError, check_type, parse_json, parse_yaml, read_bytes

ALIASES = ", ".join(["*a{n}"] * 9)
BOMB = "a0: &a0 [x, x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [{ALIASES.format(n=n)}]" for n in range(12))
MERGING = "a0: &a0 {k: v}\n" + "\n".join(f"a{n + 1}: &a{n + 1} {{<<: [{ALIASES.format(n=n)}]}}" for n in range(12))


class Part(TypedDict):
    name: str
    sizes: NotRequired[list[int]]


class Whole(TypedDict, total=False):
    parts: list[Part]
    rate: float | None
    kind: Literal["a", "b"]
    files: dict[str, str]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "Expecting"),
        ("[" * 100_000, "deeper than 64"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "deeper than 64"),
        ("9" * 5000, "integer of more than 256 bits"),
        ("1" * 100, "integer of more than 256 bits"),
        (b"\xff", "byte 0xff at offset 0"),
        (b'"\xed\xa0\x80"', "byte 0xed at offset 1"),  # half a surrogate pair, which Python's reader lets pass
        ('"{}"'.encode("utf-16"), "byte 0xff at offset 0"),
        (r'{"text": "\ud800"}', r"U\+D800.*half a character"),
        (r'{"\udfff": 1}', r"U\+DFFF"),
    ],
)
def test_json_of_no_value(content, message):
    with pytest.raises(FormatError, match=message):
        parse_json(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "anchors written out it has more than 100,000"),
        (MERGING, "anchors written out it has more than 100,000"),
        ("name: &a [*a]", "deeper than 64"),
        ("[" * 3000, "deeper than 64"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 2001-99-99", "not of the type"),
        ("a: !!timestamp x", "not of the type"),
        ("a: !!bool x", "not of the type"),
        ("a: 0x" + "f" * 9000, "integer of more than 256 bits"),
        ("? [a, {b: c}]\n: d", "unhashable key"),
        ('"\\ud800"', "half a character"),
    ],
)
def test_yaml_of_no_value(content, message):
    """Bombs of anchors are refused before they are built: memory and time stay small."""
    with pytest.raises(FormatError, match=message) as error:
        parse_yaml(content)
    assert len(str(error.value).splitlines()) == 1


def test_values_stay_what_they_are():
    assert parse_json('{"a": ["\U0001f600", 1e308, 1]}') == {"a": ["\U0001f600", 1e308, 1]}
    assert parse_json(r'"\ud83d\ude00"') == "\U0001f600"  # a pair is a character
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}}") == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}
    assert parse_yaml("") is None
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]


def test_files_have_a_limit(tmp_path):
    path = tmp_path / "some.json"
    path.write_bytes(b" " * 11)
    assert len(read_bytes(path, 11)) == 11
    with pytest.raises(FormatError, match="more than 10 bytes, the limit"):
        read_bytes(path, 10)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"parts": [{"name": "x"}, {"sizes": []}]}, Whole, r"parts\[1\]\.name is missing"),
        ({"parts": [{"name": "x", "sizes": [1, True]}]}, Whole, r"parts\[0\]\.sizes\[1\] is True; it must be a whole"),
        ({"parts": {}}, Whole, "parts is {}; it must be a list"),
        ({"rate": "1"}, Whole, "rate is '1'; it must be a number or null"),
        ({"kind": "c"}, Whole, "kind is 'c'; it must be 'a' or 'b'"),
        ({"files": {"a": 5}}, Whole, r"files\.a is 5; it must be text"),
        ({"files": {"a\x1b": 5}}, Whole, r"files\.'a.x1b' is 5"),
        (5, Whole, "it is 5; it must be a mapping"),
        (True, int, "it is True; it must be a whole number"),
        ("x" * sys.getrecursionlimit(), int, "it is 'x.*\\.\\.\\."),
        ([[5]], list[list[str] | None], r"\[0\]\[0\] is 5; it must be text"),
    ],
)
def test_values_of_another_type_are_named(value, kind, message):
    with pytest.raises(FormatError, match=message):
        check_type(value, kind)


def test_values_of_the_type_pass():
    check_type({"parts": [{"name": "x", "sizes": [1]}], "rate": 1, "kind": "b", "files": {}, "more": object()}, Whole)
    check_type({"rate": None}, Whole)
    check_type({"a": [None, [1.5]]}, dict[str, list[list[float] | None]])
    check_type(object(), Any)


def test_an_error_is_one_printable_line():
    assert str(FrozenGlyphError("a\n  b\x1b[31m \u202e")) == r"a b\x1b[31m \u202e"
    assert str(FrozenGlyphError("a  b")) == "a  b"
    assert len(str(FrozenGlyphError("x" * 10**6))) == LONGEST_MESSAGE + 1
