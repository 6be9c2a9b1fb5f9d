"""Controls of a multiple-choice score: what is right without reading the question, counted by hand."""

from types import SimpleNamespace
from typing import Any

import pytest

from frozen_glyph.evaluation.tasks.baselines import answers_of, baselines

LETTERS = SimpleNamespace(OUTPUT_TYPE="multiple_choice", doc_to_choice=lambda doc: ["no", "yes"])
ITEMS = [(["a", "bb", "ccc"], 2), (["aaa", "b", "cc"], 2), (["aa", "bb", "c"], 0), (["a", "b", "cc"], 1)]


def sample(doc: dict[str, Any], target: Any, options: int = 3) -> dict[str, Any]:
    return {"doc": doc, "target": target, "arguments": [()] * options}


def test_baselines_are_counted_over_the_items_asked() -> None:
    found = baselines(ITEMS)
    assert found["always 'C'"] == 2 / 4  # the key that is right most often
    assert found["the shortest answer"] == pytest.approx((0 + 0 + 0 + 1 / 2) / 4)
    assert found["the longest answer"] == pytest.approx((1 + 0 + 1 / 2 + 0) / 4)
    yes_or_no = baselines([(["no", "yes"], place) for place in (1, 1, 0, 1)])
    assert yes_or_no == {"always 'yes'": 3 / 4}  # length says no more than the constant


def test_options_are_those_that_people_read() -> None:
    """MMLU, ARC and CommonsenseQA score letters or texts; the lengths are those of the texts."""
    mmlu = sample({"choices": ["x", "yy", "zzz"], "answer": 2}, 2)
    arc = sample({"choices": {"text": ["x", "yy", "zzz"], "label": ["A", "B", "C"]}}, "B")
    paper = sample({"options": ["x", "yy", "zzz"], "answer": "A"}, "A", options=1)
    assert answers_of(LETTERS, [mmlu, arc]) == [(["x", "yy", "zzz"], 2), (["x", "yy", "zzz"], 1)]
    assert answers_of(SimpleNamespace(OUTPUT_TYPE="generate_until"), [paper]) == [(["x", "yy", "zzz"], 0)]
    assert answers_of(LETTERS, [sample({"passage": "p"}, 1, options=2)]) == [(["no", "yes"], 1)]


@pytest.mark.parametrize("target", [None, "some text", 7, ["A"]])
def test_a_task_that_does_not_say_what_is_right_has_none(target: Any) -> None:
    assert answers_of(LETTERS, [sample({"choices": ["x", "yy", "zzz"]}, target)]) is None
