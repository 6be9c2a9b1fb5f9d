"""The report's page, Markdown and JSON: complete, well formed, self-contained and the same for the same input."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.evaluation.report.charts import Point, Row, Series, fit, line_chart, row_chart, ticks
from frozen_glyph.evaluation.report.html import report_html
from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.words import trend_meaning
from frozen_glyph.evaluation.report.write import report_json, write_report

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
VOID = {"meta", "img", "br", "hr"}


class Outline(HTMLParser):
    """Checks nesting and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture
def report() -> Report:
    def stage(number: int) -> Any:
        recall = {**estimate(0.3 * number, 0.05), "correct": 30 * number, "total": 100, "chance": 0.25}
        guessed = {**estimate(0.2, 0.05), "correct": 20, "total": 100, "chance": 0.25}
        return {
            "stage": number, "num_hidden_layers": 3 * number, "trainable_parameters": 1234567,
            "losses": {"Russian": estimate(3.0 - number / 2, 0.1)}, "scores": {"recall": recall, "paper_mmlu": guessed},
        }  # fmt: skip

    def trend(kind: str, name: str, slope: float, adjusted_p: float) -> Any:
        return {
            "model": "<ru> & co", "kind": kind, "name": name, **estimate(slope, 0.02), "p_value": 0.0004,
            "adjusted_p": adjusted_p, "test": "a test",
        }  # fmt: skip

    def score(model: str, task: str, value: float, verdict: str, **more: Any) -> Any:
        return {
            "model": model, "task": task, "metric": "acc", "correct": 1000 * value, "total": 1000, "chance": 0.25,
            "verdict": verdict, **estimate(value, 0.03), **more,
        }  # fmt: skip

    def comparison(kind: str, name: str, difference: float) -> Any:
        return {
            "kind": kind, "name": name, "first": "merged", "second": "<ru> & co", "p_value": 0.0002, "test": "a test",
            "difference": difference, "low": difference - 0.01, "high": difference + 0.01, "adjusted_p": 0.0123,
            "effect": -0.31, "effect_name": "Cohen's g" if kind == "score" else "Cohen's d",
        }  # fmt: skip

    subjects = [
        {"group": f"subject_{index}", "correct": index, "total": 100, **estimate(index / 100, 0.04)}
        for index in range(57)
    ]
    runs = {"published": True, "runs": [0.19, 0.21], "runs_low": 0.195, "runs_high": 0.205}
    bleu = {"metric": "bleu", "correct": None, "chance": None, "published": True}
    sizes = {"tokens": 9, "characters": 20, "blocks": 2}
    return {
        "title": "A < B",
        "note": "Synthetic corpus.",
        "growth": {"<ru> & co": [stage(1), stage(2), stage(3)]},
        "trends": [
            trend("loss", "Russian", -0.5, 0.001),
            trend("score", "recall", 0.3, 0.06),
            trend("score", "paper_mmlu", 0.04, 0.001),
        ],
        "losses": [
            {
                "model": "merged", "text": "Russian", **estimate(2.5, 0.1), **sizes,
                "bits_per_byte": estimate(1.75, 0.05),
            },
            {"model": "<ru> & co", "text": "Russian", **estimate(2.25, 0.1), **sizes},  # type: ignore[typeddict-item]
        ],
        "scores": [
            score("merged", "mmlu", 0.31, "above chance", groups=subjects),
            score("<ru> & co", "mmlu", 0.2, "below chance"),
            score("merged", "paper_mmlu", 0.2, "below chance", **runs),
            score("<ru> & co", "paper_bleu", 0.04, None, **bleu),  # type: ignore[arg-type]
        ],
        "comparisons": [
            comparison("loss", "Russian", -0.25),
            comparison("score", "mmlu", -0.11),
            comparison("score", "paper_mmlu", -0.02),
        ],
        "contamination": [
            {"task": "mmlu", "items": 1000, "shared": 12, "ngram": 13, "unit": "words", "examples": ["a <shared> run"]}
        ],
        "pictures": [{"title": "Glyphs", "caption": "of tokens", "png": PNG}],
        "samples": [
            {"model": "merged", "prompt": "Жил | был", "text": "старик\n<script>"},
            {"model": "<ru> & co", "prompt": "Жил | был", "text": "从前有座山"},
        ],
        "provenance": {
            "models": [
                {
                    "label": "merged", "folder": "runs/merged", "rule": "mean", "num_hidden_layers": 4,
                    "parameters": 1000, "substrate_fingerprint": "f" * 64, "weights_sha256": "a" * 64,
                }
            ],
            "versions": {"torch": "2.13"},
            "limit": None,
            "seed": 7,
        },
    }  # fmt: skip


HEADINGS = [
    "Growth",
    "Held-out loss",
    "Questions and benchmarks",
    "Published protocol",
    "Merged against each expert",
    "Contamination",
    "Substrate",
    "Samples",
    "Provenance",
]


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
    best = re.findall(r"class=best><div><b>([\d.]+)", source)
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
    cards = re.findall(r"<figure.*?</figure>", page)
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
    folded = re.search(r"<details><summary>mmlu · acc: all 57 groups</summary>(.*?)</details>", section)
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
    assert "<details>" not in section_of(report_html(report), "Contamination")


def test_samples_of_a_prompt_stand_side_by_side(report: Report) -> None:
    section = section_of(report_html(report), "Samples")
    assert section.count("<article") == 1 and section.count('<div class="generated') == 2
    assert "&lt;script&gt;" in section and "<script" not in section


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


def test_markdown_tables_are_rectangular_and_escaped(report: Report) -> None:
    text = report_markdown(report)
    assert "| <ru> & co | 2.250 [2.150, 2.350] |" in text
    assert "| Жил \\| был | merged | старик <script> |" in text
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [name for name in HEADINGS if name != "Substrate"]
    for row in (
        "| <ru> & co | – |",
        "| Russian | <ru> & co | −0.500 [−0.520, −0.480] nats per block | < 0.001 | 0.001 | falls with depth |",
        "| 200 / 1,000 | 20.0% [17.0%, 23.0%] | 25.0% | below chance | [19.5%, 20.5%], 2 runs |",
        "| paper_bleu | bleu | <ru> & co | – | 4.0% [1.0%, 7.0%] | – | – | – |",
        "| Russian | merged − <ru> & co | +0.250 [+0.240, +0.260] | < 0.001 | 0.012 | d = +0.31 | a test |",
        "| subject_56 | 56.0% [52.0%, 60.0%] | – |",
        "| mmlu | 1,000 | 12 | 1.2% | 13 words |",
    ):
        assert row in text, row
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_json_keeps_pictures_as_base64(report: Report) -> None:
    stored = json.loads(report_json(report))
    assert base64.b64decode(stored["pictures"][0]["png"]) == PNG
    assert stored["scores"] == report["scores"]


def test_same_report_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(report, tmp_path / name)
    names = ["report.html", "report.json", "report.md"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_charts_stay_inside_their_frame() -> None:
    points = [Point(0.0, 0.0, 0.01), Point(0.5, 0.2, 0.8), Point(1.0, 0.99, 1.0)]
    every = [True] * 3
    lines = [Series(f"line {index}", [1, 2, 9], points, index, every) for index in range(7)]
    single = [Series("one stage", [4], points[1:2], 0, [False])]
    charts = [line_chart("t", lines, "blocks", True, 0.25), line_chart("t", single, "blocks", percent=False)]
    rows = [Row("row", point, 0, "text", inner=(point.low, point.value)) for point in points]
    charts.append(row_chart("t", rows, (0.0, 1.0), percent=True, reference=0.25))
    charts.append(row_chart("t", [Row("heading"), *rows], (0.0, 1.0), True, reference=0.0, signed=True, beside=True))
    for chart in charts:
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)" role', chart)[0])
        xs = [float(x) for x in re.findall(r'\b(?:cx|x|x1|x2)="(-?[\d.]+)"', chart)]
        ys = [float(y) for y in re.findall(r'\b(?:cy|y|y1|y2)="(-?[\d.]+)"', chart)]
        assert min(xs) >= 0 and max(xs) <= width and min(ys) >= 0 and max(ys) <= height


def test_positions_of_a_line_are_to_scale() -> None:
    points = [Point(0.5, 0.4, 0.6)] * 3
    chart = line_chart("t", [Series("m", [1, 2, 4], points, 0, [True] * 3)], "blocks", percent=False)
    first, second, third = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart))
    assert third - second == pytest.approx(2 * (second - first), abs=0.2)


def test_long_names_are_cut_to_their_place() -> None:
    assert fit("short", 100) == "short"
    assert fit("a" * 50, 100, 10) == "a" * 17 + "…"  # 5.4 pixels a letter
    assert fit("山" * 50, 100, 10) == "山" * 9 + "…"
    row = Row("growing-transformers-model-16-bit-1-9-181m-long-name", Point(0.5, 0.4, 0.6), 0, "50.0% · above chance")
    chart = row_chart("t", [row], (0.0, 1.0), percent=True)
    assert "<title>growing-transformers-model-16-bit-1-9-181m-long-name</title>" in chart
    assert re.search(r">growing-transformers-[^<]*…</text>", chart)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (1.9, 2.2, [1.9, 2.0, 2.1, 2.2]), (2.0, 2.0, None), (0.0, 0.0, None)],
)
def test_ticks_cover_the_range(low: float, high: float, expected: list[float] | None) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high
    assert expected is None or marks == expected
