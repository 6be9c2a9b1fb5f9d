"""The comparison sections of the page: merged models against each expert, and all other pairs, as forest plots."""

from collections.abc import Sequence

from frozen_glyph.evaluation.report.page.charts import ChartRow, row_chart
from frozen_glyph.evaluation.report.page.elements import Cell, Figure, Group, Row, Section, Table, plain_cells
from frozen_glyph.evaluation.report.schema import Comparison, Estimate, Report
from frozen_glyph.evaluation.report.words import (
    HINTS,
    PUBLISHED,
    adjusted_text,
    comparison_text,
    effect_text,
    ends,
    model_colours,
    oriented,
    p_text,
    published_tasks,
    signed,
    task_label,
    told_apart,
    unique,
)


def comparison_sections(report: Report) -> list[Section]:
    """Return the merge view and the other paired comparisons, each left out if there is none."""
    merge_view, others = oriented(report)
    titled = {"Merged against each expert": merge_view, "Paired comparisons": others}
    return [_section(report, title, comparisons) for title, comparisons in titled.items() if comparisons]


def _section(report: Report, title: str, comparisons: list[Comparison]) -> Section:
    published, colours = published_tasks(report), model_colours(report)
    models = []
    for second in unique(comparison["second"] for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison["second"] == second]
        losses = [comparison for comparison in own if comparison["kind"] == "loss"]
        scores = [comparison for comparison in own if comparison["kind"] == "score"]
        likelihood = [comparison for comparison in scores if comparison["name"] not in published]
        generated = [comparison for comparison in scores if comparison["name"] in published]
        tagged = ((losses, ""), (likelihood, ""), (generated, PUBLISHED))
        figures = [_forest(rows, colours, tag) for rows, tag in tagged if rows]
        models.append({"name": second, "colour": colours.get(second), "figures": figures})
    content = {
        "models": models,
        "summary": f"All {len(comparisons)} comparisons as a table",
        "table": _table(comparisons, published),
    }
    return Section(title, "comparisons.html", content, HINTS["comparisons"])


def _forest(comparisons: Sequence[Comparison], colours: dict[str, int], tag: str) -> Figure:
    """One model's differences of one kind, grouped by the model it is compared with."""
    percent = comparisons[0]["kind"] == "score"
    points: list[Estimate] = [
        {"value": row["difference"], "low": row["low"], "high": row["high"]} for row in comparisons
    ]
    rows = []
    for first in unique(row["first"] for row in comparisons):
        rows.append(ChartRow(f"against {first}"))
        rows += [
            ChartRow(
                row["name"],
                point,
                colours.get(first, 0),
                signed(row["difference"], percent),
                f"{row['name']}: {comparison_text(row, percent)}",
                told_apart(row),
            )
            for row, point in zip(comparisons, points, strict=True)
            if row["first"] == first
        ]
    bounds = [0.0, *(end for point in points for end in ends(point))]
    margin = 0.05 * (max(bounds) - min(bounds) or 1.0)
    scale = (min(bounds) - margin, max(bounds) + margin)
    second, better = comparisons[0]["second"], "right" if percent else "left"
    title = "Score, percentage points" if percent else "Loss, nats per character"
    chart = row_chart(f"{title}: {second}", rows, scale, percent, reference=0.0, signed=True, beside=True)
    return Figure(title, chart, f"{better} of the line: {second} is better", tag)


def _table(comparisons: Sequence[Comparison], published: set[str]) -> Table:
    groups: dict[str, list[Row]] = {}
    for comparison in comparisons:
        difference, interval = comparison_text(comparison, comparison["kind"] == "score").split(" ", 1)
        others = [
            interval,
            p_text(comparison["p_value"]),
            adjusted_text(comparison),
            effect_text(comparison),
            comparison["test"],
        ]
        row = Row(task_label(comparison["name"], published), [Cell(difference, strong=True), *plain_cells(others)])
        groups.setdefault(f"{comparison['second']} − {comparison['first']}", []).append(row)
    head = ["on", "difference", "95% interval", "p", "adjusted p", "effect size", "test"]
    return Table(head, [Group(rows, title) for title, rows in groups.items()])
