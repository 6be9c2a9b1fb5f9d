"""The report's page: every section and number, well formed, self-contained, and no text of a report is markup."""

import re
from typing import Any

import pytest

from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.page.render import report_html
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.words import trend_meaning

from .conftest import HEADINGS, Outline, hostile, outline


def section_of(page: str, heading: str) -> str:
    """The source of one section of a page."""
    return next(part for part in page.split("<section ")[1:] if f"<h2>{heading}</h2>" in part)


def test_page_shows_every_section_and_number(report: Report) -> None:
    source = report_html(report)
    page = outline(source)
    assert re.findall(r"<h2>(.*?)</h2>", source) == HEADINGS
    anchors = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert anchors == [f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section"]
    expected = [
        "A < B", "Synthetic corpus.", "2.250", "[2.150, 2.350]", "Δ −0.250 [−0.260, −0.240]", "31.0%", "310 / 1,000",
        "1.750 bits/byte [1.700, 1.800]", "above chance", "below chance", "chance 25.0%", "< 0.001", "1,234,567",
        "<ru> & co", "Жил | был", "<script>", "从前有座山", "1,000 parameters", "torch 2.13", "all items",
    ]  # fmt: skip
    for text in expected:
        assert text in page.text, text
    best = re.findall(r'class="best"><div><b>([\d.]+)', source)
    assert best == ["2.250"]


def test_growth_says_the_trend_in_words(report: Report) -> None:
    growth = outline("<section " + section_of(report_html(report), "Growth")).text
    assert "<ru> & co: falls with depth−0.500 [−0.520, −0.480] nats per blockp < 0.001, adjusted 0.001" in growth
    assert "no trend can be told+30.00 [+28.00, +32.00] points per blockp < 0.001, adjusted 0.060" in growth
    assert "rises with depth, yet the deepest stage is not above chance+4.00" in growth
    assert "paper_mmlu (published protocol)" in growth
    del report["trends"]
    without = outline("<section " + section_of(report_html(report), "Growth"))
    assert "per block" not in without.text and "<ru> & co" in without.text
    assert ("ul", {"class": "legend"}) in without.tags


@pytest.mark.parametrize(
    ("slope", "adjusted_p", "last", "expected"),
    [
        (-0.1, 0.01, None, "falls with depth"),
        (0.1, 0.01, (0.3, 0.25), "rises with depth"),
        (0.1, 0.01, (0.2, 0.25), "rises with depth, yet the deepest stage is not above chance"),
        (0.1, 0.01, (0.01, None), "rises with depth"),
        (0.1, 0.05, (0.3, 0.25), "no trend can be told"),
    ],
)
def test_meaning_of_a_trend(slope: float, adjusted_p: float, last: Any, expected: str) -> None:
    stage = last and {"value": 1.0, "low": last[0], "high": 1.0, "chance": last[1], "correct": 1.0, "total": 2}
    trend: Any = {"value": slope, "p_value": 0.001, "adjusted_p": adjusted_p}
    assert trend_meaning(trend, stage) == expected


def test_published_protocol_stands_apart_and_says_so(report: Report) -> None:
    page = report_html(report)
    likelihood = section_of(page, "Questions and benchmarks")
    published = outline("<section " + section_of(page, "Published protocol")).text
    assert "paper_" not in likelihood
    assert "Not comparable with the scores above" in published
    assert "[17.0%, 23.0%]" in published and "[19.5%, 20.5%]" in published and "2 runs" in published
    assert "paper_bleu · bleu" in published and "no chance level" in published
    # Every card with a number of the published protocol wears its label.
    cards = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    paper = [card for card in cards if "paper_" in card]
    assert len(paper) == 4 and all('<p class="tag">published protocol</p>' in card for card in paper)
    assert all("published protocol" not in card for card in cards if card not in paper)


def test_no_number_at_or_below_chance_looks_like_ability(report: Report) -> None:
    section = section_of(report_html(report), "Questions and benchmarks")
    above, below = re.findall(r"<g><title>(?:merged|&lt;ru&gt; &amp; co):.*?</g>", section)
    assert "31.0% · above chance" in above and "strong" in above and "hollow" not in above
    assert "20.0% · below chance" in below and "strong" not in below and "hollow" in below


def test_groups_are_folded_sorted_and_marked(report: Report) -> None:
    section = section_of(report_html(report), "Questions and benchmarks")
    folded = re.search(
        r"<details><summary>mmlu · acc: all 57 groups</summary>(.*?)</details>", section, flags=re.DOTALL
    )
    assert folded is not None
    rows = re.findall(r"<g><title>subject_(\d+): .*?</g>", folded[1])
    assert [int(row) for row in rows] == list(range(56, -1, -1))
    hollow = [
        int(match[1]) for match in re.finditer(r"<g><title>subject_(\d+): .*?</g>", folded[1]) if "hollow" in match[0]
    ]
    assert hollow == list(range(29, -1, -1))  # the interval of 30 of 100 begins above chance, that of 29 at it
    assert "27 of 57 above chance, 21 below; luck alone puts about 1.4 on each side" in folded[1]
    assert "<details open" not in section


def test_merge_view_is_merged_minus_expert(report: Report) -> None:
    page = report_html(report)
    text = outline("<section " + section_of(page, "Merged against each expert")).text
    assert "merged − <ru> & co" in text and "against <ru> & co" in text
    for cell in ("+0.250", "[+0.240, +0.260]", "+11.0", "[+10.0, +12.0]", "0.012", "d = +0.31", "g = +0.31", "a test"):
        assert cell in text, cell
    del report["provenance"]  # nothing says which model is merged
    page = report_html(report)
    assert "<h2>Merged against each expert</h2>" not in page
    assert "<ru> & co − merged" in outline("<section " + section_of(page, "Paired comparisons")).text
    for row in report["comparisons"]:  # reports written before these were there
        for key in ("adjusted_p", "effect", "effect_name"):
            del row[key]  # type: ignore[misc]
    assert '<td data-label="effect size"><div>–</div>' in report_html(report)


def test_differences_are_hollow_where_none_can_be_told(report: Report) -> None:
    assert "mark hollow" not in section_of(report_html(report), "Merged against each expert")
    for row in report["comparisons"]:
        row["adjusted_p"] = 0.2
    section = section_of(report_html(report), "Merged against each expert")
    assert section.count("mark hollow") == 3


def test_contamination_tells_shares_and_folds_examples(report: Report) -> None:
    section = section_of(report_html(report), "Contamination")
    text = outline("<section " + section).text
    assert "1,000" in text and "1.2%" in text and "13 words" in text and "a <shared> run" in text
    report["contamination"][0]["examples"] = []
    assert "Examples of shared runs" not in section_of(report_html(report), "Contamination")


def test_samples_of_a_prompt_stand_side_by_side(report: Report) -> None:
    section = section_of(report_html(report), "Samples")
    assert section.count("<article") == 1 and section.count('<div class="generated') == 2
    assert "&lt;script&gt;" in section and "<script" not in section


def test_no_text_of_a_report_is_markup(report: Report) -> None:
    """Names of models, tasks, texts and files and generated text come from strangers."""

    def markup(page: Outline) -> list[tuple[str, list[str]]]:
        # Long names leave a chart's axis less room: fewer ticks and grid lines.
        return [(tag, [*attributes]) for tag, attributes in page.tags if tag not in ("text", "line")]

    page, attacked = outline(report_html(report)), outline(report_html(hostile(report)))
    assert markup(attacked) == markup(page)
    assert {tag for tag, _ in attacked.tags} == {tag for tag, _ in page.tags}
    assert attacked.text.count("<img src=x onerror=alert(1)>") > 100


def test_page_is_ready_for_a_phone(report: Report) -> None:
    source = report_html(report)
    page = outline(source)
    assert "max-width: 640px" in source
    assert all(attributes.get("data-label") for tag, attributes in page.tags if tag == "td")
    assert not re.search(r'<svg class="chart"[^>]* width=', source)  # charts take the width that there is
    assert all("style" not in attributes for _, attributes in page.tags)


def test_page_needs_no_other_file_and_no_script(report: Report) -> None:
    page = report_html(report)
    sources = [attributes.get("src") or attributes.get("href") for _, attributes in outline(page).tags]
    assert {source.split(",")[0] for source in sources if source and source[0] != "#"} == {"data:image/png;base64"}
    assert "url(" not in page and "@import" not in page
    assert "script" not in [tag for tag, _ in outline(page).tags]
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_missing_sections_are_left_out(report: Report) -> None:
    page = outline(report_html({"title": "Only a title"}))
    assert "h2" not in [tag for tag, _ in page.tags]
    assert report_markdown({"title": "Only a title"}) == "# Only a title\n"
    for section in set(report) - {"title"}:
        partial = {key: value for key, value in report.items() if key != section}
        outline(report_html(partial))  # type: ignore[arg-type]
        report_markdown(partial)  # type: ignore[arg-type]
