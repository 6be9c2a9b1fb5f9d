"""Differences between recorded recipes are named by field, with both values."""

import pytest

from frozen_glyph.recipes.changes import differences


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1, "b": {"c": 1.0}}, {"a": 1, "b": {"c": 1}}, []),
        ({"a": 1}, {"a": 2, "b": 3}, [("a", 1, 2), ("b", None, 3)]),
        ({"a": {"b": 1}}, {"a": None}, [("a", {"b": 1}, None)]),
        ({"a": ["x", "y"]}, {"a": ["x"]}, [("a", ["x", "y"], ["x"])]),
        ({"s": [{"n": 1}]}, {"s": [{"n": 2}, {"n": 3}]}, [("s[0].n", 1, 2), ("s[1]", None, {"n": 3})]),
        ({"a": [1, 2]}, {"a": (1, 2)}, []),
    ],
)
def test_differences(before, now, expected):
    assert differences(before, now) == expected


def test_a_long_value_is_shortened():
    (change,) = differences({"a": "x" * 100}, {"a": 1})
    assert str(change) == f"a is '{'x' * 56}... there, 1 here"
