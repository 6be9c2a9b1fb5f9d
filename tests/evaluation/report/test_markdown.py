"""report.md: the same sections as the page, in tables that every Markdown reader takes as they are meant."""

import re

from markdown_it import MarkdownIt

from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.schema import Report

from .conftest import HEADINGS, hostile, outline


def test_markdown_tables_are_rectangular_and_escaped(report: Report) -> None:
    text = report_markdown(report)
    assert "| &lt;ru> & co | 2.250 [2.150, 2.350] |" in text
    assert "| Жил \\| был | merged | старик &lt;script> |" in text
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [name for name in HEADINGS if name != "Substrate"]
    for row in (
        "| &lt;ru> & co | – |",
        "| Russian | &lt;ru> & co | −0.500 [−0.520, −0.480] nats per block | < 0.001 | 0.001 | falls with depth |",
        "| 200 / 1,000 | 20.0% [17.0%, 23.0%] | 25.0% | – | below chance | [19.5%, 20.5%], 2 runs |",
        "| paper_bleu | bleu | &lt;ru> & co | – | 4.0% [1.0%, 7.0%] | – | – | – |",
        "| Russian | merged − &lt;ru> & co | +0.250 [+0.240, +0.260] | < 0.001 | 0.012 | d = +0.31 | a test |",
        "| subject_56 | 56.0% [52.0%, 60.0%] | – |",
        "| mmlu | 1,000 | 12 | 1.2% | 13 words |",
    ):
        assert row in text, row
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_greedy_and_sampled_groups_have_columns_of_their_own(report: Report) -> None:
    """A model has both of one task."""
    greedy = next(score for score in report["scores"] if score.get("groups"))
    report["scores"] = [greedy, {**greedy, "runs": [0.5, 0.25], "runs_low": 0.1, "runs_high": 0.9}]
    for line in report_markdown(report).splitlines():
        if line.startswith("| group |"):
            assert line == f"| group | {greedy['model']} | {greedy['model']}, 2 runs |"
            break
    else:
        raise AssertionError("no table of groups")


def test_no_text_of_a_report_is_html_or_markdown(report: Report) -> None:
    """Names and generated text come from strangers: they show as they are, and change nothing around them."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    plain, attacked = (outline(reader.render(report_markdown(one))) for one in (report, hostile(report)))
    assert attacked.tags == plain.tags
    shown = "<img src=x onerror=alert(1)>|\"'> a\\|b # c `d *e* __f__ [g](http://h) ![i](http://j) &lt;k | l |"
    assert attacked.text.count(shown) > 40
