"""The report's page, Markdown and JSON: complete, well formed, self-contained and the same for the same input."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.evaluation.charts import Point, Series, forest_chart, line_chart, ticks
from frozen_glyph.evaluation.report import report_html, report_json, write_report
from frozen_glyph.evaluation.report_markdown import report_markdown
from frozen_glyph.evaluation.report_schema import Report

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
        return {
            "stage": number, "num_hidden_layers": number, "trainable_parameters": 1234567,
            "losses": {"Russian": estimate(3.0 - number / 2, 0.1)}, "scores": {"recall": recall},
        }  # fmt: skip

    def score(model: str, value: float, verdict: str) -> Any:
        return {
            "model": model, "task": "fg_mmlu", "metric": "acc", "correct": 1000 * value, "total": 1000, "chance": 0.25,
            "verdict": verdict, **estimate(value, 0.03),
        }  # fmt: skip

    def comparison(kind: str, name: str, difference: float) -> Any:
        return {
            "kind": kind, "name": name, "first": "merged", "second": "<ru> & co", "p_value": 0.0002, "test": "a test",
            "difference": difference, "low": difference - 0.01, "high": difference + 0.01,
        }  # fmt: skip

    sizes = {"tokens": 9, "characters": 20, "blocks": 2}
    return {
        "title": "A < B",
        "note": "Synthetic corpus.",
        "growth": {"Russian expert": [stage(1), stage(2), stage(3)]},
        "losses": [
            {"model": "merged", "text": "Russian", **estimate(2.5, 0.1), **sizes},  # type: ignore[typeddict-item]
            {"model": "<ru> & co", "text": "Russian", **estimate(2.25, 0.1), **sizes},  # type: ignore[typeddict-item]
        ],
        "scores": [score("merged", 0.31, "above chance"), score("<ru> & co", 0.2, "below chance")],
        "comparisons": [comparison("loss", "Russian", -0.25), comparison("score", "fg_mmlu", -0.11)],
        "pictures": [{"title": "Glyphs", "caption": "of tokens", "png": PNG}],
        "samples": [{"model": "merged", "prompt": "Жил | был", "text": "старик\n<script>"}],
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


def test_page_shows_every_section_and_number(report: Report) -> None:
    page = outline(report_html(report))
    headings = [
        "Growth",
        "Held-out loss",
        "Questions and benchmarks",
        "Paired comparisons",
        "Substrate",
        "Samples",
        "Provenance",
    ]
    assert [tag for tag, _ in page.tags].count("h2") == len(headings)
    expected = [
        *headings, "A < B", "Synthetic corpus.", "2.250", "[2.150, 2.350]", "Δ −0.250 [−0.260, −0.240]", "31.0%",
        "310 / 1,000", "above chance", "below chance", "chance 25.0%", "−11.0 [−12.0, −10.0]", "< 0.001", "1,234,567",
        "<ru> & co", "Жил | был", "<script>", "1,000 parameters", "torch 2.13", "all items",
    ]  # fmt: skip
    for text in expected:
        assert text in page.text, text
    best = re.findall(r"class=best><div><b>([\d.]+)", report_html(report))
    assert best == ["2.250"]


def test_page_needs_no_other_file_and_no_script(report: Report) -> None:
    page = report_html(report)
    sources = [attributes.get("src") or attributes.get("href") for _, attributes in outline(page).tags]
    assert [source.split(",")[0] for source in sources if source] == ["data:image/png;base64"]
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
    lines = [Series(f"line {index}", points, index, chance=0.25) for index in range(7)]
    single = [Series("one stage", points[1:2], 0)]
    charts = [line_chart("t", lines, ["1", "2", "3"], percent=True), line_chart("t", single, ["1"], percent=False)]
    rows = [Series("row", [point], 0, 0.25) for point in points]
    charts.append(forest_chart("t", rows, (0.0, 1.0), percent=True))
    for chart in charts:
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)" role', chart)[0])
        xs = [float(x) for x in re.findall(r'\b(?:cx|x1|x2)="(-?[\d.]+)"', chart)]
        ys = [float(y) for y in re.findall(r'\b(?:cy|y1|y2)="(-?[\d.]+)"', chart)]
        assert min(xs) >= 0 and max(xs) <= width and min(ys) >= 0 and max(ys) <= height


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (1.9, 2.2, [1.9, 2.0, 2.1, 2.2]), (2.0, 2.0, None), (0.0, 0.0, None)],
)
def test_ticks_cover_the_range(low: float, high: float, expected: list[float] | None) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high
    assert expected is None or marks == expected
