"""Charts: inside their frame, to scale, with names cut to their place and round ticks."""

import re

import pytest

from frozen_glyph.evaluation.report.page.charts import ChartRow, Series, fit, line_chart, row_chart, ticks
from frozen_glyph.evaluation.report.schema import Estimate


def between(value: float, low: float, high: float) -> Estimate:
    return {"value": value, "low": low, "high": high}


def test_charts_stay_inside_their_frame() -> None:
    points = [between(0.0, 0.0, 0.01), between(0.5, 0.2, 0.8), between(1.0, 0.99, 1.0)]
    every = [True] * 3
    lines = [Series(f"line {index}", [1, 2, 9], points, index, every) for index in range(7)]
    single = [Series("one stage", [4], points[1:2], 0, [False])]
    charts = [line_chart("t", lines, "blocks", True, 0.25), line_chart("t", single, "blocks", percent=False)]
    rows = [ChartRow("row", point, 0, "text", inner=(point["low"], point["value"])) for point in points]
    charts.append(row_chart("t", rows, (0.0, 1.0), percent=True, reference=0.25))
    charts.append(
        row_chart("t", [ChartRow("heading"), *rows], (0.0, 1.0), True, reference=0.0, signed=True, beside=True)
    )
    for chart in charts:
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)" role', chart)[0])
        xs = [float(x) for x in re.findall(r'\b(?:cx|x|x1|x2)="(-?[\d.]+)"', chart)]
        ys = [float(y) for y in re.findall(r'\b(?:cy|y|y1|y2)="(-?[\d.]+)"', chart)]
        assert min(xs) >= 0 and max(xs) <= width and min(ys) >= 0 and max(ys) <= height


def test_positions_of_a_line_are_to_scale() -> None:
    points = [between(0.5, 0.4, 0.6)] * 3
    chart = line_chart("t", [Series("m", [1, 2, 4], points, 0, [True] * 3)], "blocks", percent=False)
    first, second, third = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart))
    assert third - second == pytest.approx(2 * (second - first), abs=0.2)


def test_long_names_are_cut_to_their_place() -> None:
    assert fit("short", 100) == "short"
    assert fit("a" * 50, 100, 10) == "a" * 17 + "…"  # 5.4 pixels a letter
    assert fit("山" * 50, 100, 10) == "山" * 9 + "…"
    row = ChartRow(
        "growing-transformers-model-16-bit-1-9-181m-long-name", between(0.5, 0.4, 0.6), 0, "50.0% · above chance"
    )
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
