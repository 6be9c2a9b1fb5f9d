"""A report begins with its answer: three lines, read off its own numbers, escaped like the rest; details are folded."""

from typing import Any

import pytest

from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.page.render import report_html
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.verdict import verdict

from .conftest import hostile, outline


def test_three_lines_say_what_was_measured(report: Report) -> None:
    assert verdict(shown(report)) == [
        "Lowest loss on Russian: <ru> & co, 2.250 [2.150, 2.350] nats per character; merged has 0.250 "
        "[0.240, 0.260] more, told apart.",
        "With depth <ru> & co's loss falls on Russian.",
        "Above chance for certain: 1 of 3 scores.",
    ]


def test_all_texts_together_come_first_and_what_cannot_be_told_is_said(report: Report) -> None:
    comparison: Any = {**report["comparisons"][0], "name": "all texts", "adjusted_p": 0.2, "low": -0.6, "high": 0.1}
    report["comparisons"] = [comparison]
    report["losses"] += [{**loss, "text": "all texts"} for loss in report["losses"]]
    report["trends"][0]["adjusted_p"] = 0.5
    first, second, _ = verdict(shown(report))
    assert first.startswith("Lowest loss on all texts: <ru> & co")
    assert first.endswith("merged has 0.250 [-0.100, 0.600] more, not told apart.")
    assert second == "With depth <ru> & co's loss shows no trend on Russian."


def test_nothing_is_said_of_what_was_not_measured(report: Report) -> None:
    for section in ("losses", "growth", "trends", "scores"):
        del report[section]  # type: ignore[misc]
    assert verdict(shown(report)) == []
    assert 'class="verdict"' not in report_html(report)


def test_scores_that_an_answer_without_the_question_reaches_are_counted_apart(report: Report) -> None:
    report["scores"][0]["baselines"] = {"the longest answer": 0.3}
    assert verdict(shown(report))[2].endswith("1 of 3 scores, 0 of them above every answer that needs no question.")


@pytest.mark.parametrize("attacked", [False, True])
def test_both_forms_begin_with_it_and_fold_the_rest(report: Report, attacked: bool) -> None:
    chosen = hostile(report) if attacked else report
    source = report_html(chosen)
    page, lines = outline(source), verdict(shown(chosen))
    for line in lines:
        assert line in page.text
    assert source.index('<ul class="verdict">') < source.index("<section ")
    assert all("><details><summary><h2>" in section for section in source.split("<section ")[1:])
    text = report_markdown(report)
    assert text.index("* Lowest loss") < text.index("<details><summary>All that was measured") < text.index("## Growth")


def test_loss_against_compute_is_drawn_where_the_folders_tell(report: Report) -> None:
    assert "loss by training FLOPs" not in report_html(report)
    for number, stage in enumerate(report["growth"]["<ru> & co"], start=1):
        stage["flops"] = number * 2_500_000_000_000
    page = outline(report_html(report)).text
    assert "Russian: loss by training FLOPs" in page and "<ru> & co, 7.5 TFLOP: 1.500" in page
    assert "| 3 | 9 | 1,234,567 | 7.5 |" in report_markdown(report)
