"""The comparison sections of the page: merged models against each expert, and all other pairs, as forest plots."""

from collections.abc import Sequence
from html import escape

from frozen_glyph.evaluation.report.charts import Row, row_chart
from frozen_glyph.evaluation.report.html_elements import (
    figure,
    folded,
    grid,
    group_row,
    name,
    point,
    section,
    table,
    table_row,
)
from frozen_glyph.evaluation.report.schema import Comparison, Report
from frozen_glyph.evaluation.report.words import (
    HINTS,
    PUBLISHED,
    adjusted_text,
    comparison_text,
    effect_text,
    model_order,
    oriented,
    p_text,
    published_tasks,
    signed,
    task_label,
    told_apart,
    unique,
)


def comparison_sections(report: Report) -> str:
    """Return the merge view and the other paired comparisons, each left out if there is none."""
    merge_view, others = oriented(report)
    return _section(report, "Merged against each expert", merge_view) + _section(report, "Paired comparisons", others)


def _section(report: Report, title: str, comparisons: list[Comparison]) -> str:
    if not comparisons:
        return ""
    published = published_tasks(report)
    colours = {model: colour for colour, model in enumerate(model_order(report))}
    body = []
    for second in unique(comparison["second"] for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison["second"] == second]
        losses = [comparison for comparison in own if comparison["kind"] == "loss"]
        scores = [comparison for comparison in own if comparison["kind"] == "score"]
        likelihood = [comparison for comparison in scores if comparison["name"] not in published]
        generated = [comparison for comparison in scores if comparison["name"] in published]
        charts = [
            _forest(rows, colours, tag)
            for rows, tag in ((losses, ""), (likelihood, ""), (generated, PUBLISHED))
            if rows
        ]
        heading = name(second, colours[second]) if second in colours else escape(second)
        body.append(f'<h3 class="model">{heading}</h3>{grid(charts)}')
    numbers = folded(f"All {len(comparisons)} comparisons as a table", _comparison_table(comparisons, published))
    return section(title, *body, numbers, hint=HINTS["comparisons"])


def _forest(comparisons: Sequence[Comparison], colours: dict[str, int], tag: str) -> str:
    """One model's differences of one kind, grouped by the model it is compared with."""
    percent = comparisons[0]["kind"] == "score"
    rows = []
    for first in unique(row["first"] for row in comparisons):
        rows.append(Row(f"against {first}"))
        rows += [
            Row(
                row["name"],
                point({"value": row["difference"], "low": row["low"], "high": row["high"]}),
                colours.get(first, 0),
                signed(row["difference"], percent),
                f"{row['name']}: {comparison_text(row, percent)}",
                told_apart(row),
            )
            for row in comparisons
            if row["first"] == first
        ]
    ends = [0.0, *(row["low"] for row in comparisons), *(row["high"] for row in comparisons)]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    scale = (min(ends) - margin, max(ends) + margin)
    second, better = comparisons[0]["second"], "right" if percent else "left"
    title = "Score, percentage points" if percent else "Loss, nats per character"
    chart = row_chart(f"{title}: {second}", rows, scale, percent, reference=0.0, signed=True, beside=True)
    return figure(title, chart, caption=f"{better} of the line: {second} is better", tag=tag)


def _comparison_table(comparisons: Sequence[Comparison], published: set[str]) -> str:
    head = ["on", "difference", "95% interval", "p", "adjusted p", "effect size", "test"]
    rows = []
    for first, second in unique((comparison["first"], comparison["second"]) for comparison in comparisons):
        rows.append(group_row(head, f"{second} − {first}"))
        for comparison in comparisons:
            if (comparison["first"], comparison["second"]) == (first, second):
                difference, interval = comparison_text(comparison, comparison["kind"] == "score").split(" ", 1)
                cells = [
                    f"<b>{difference}</b>",
                    interval,
                    p_text(comparison["p_value"]),
                    adjusted_text(comparison),
                    effect_text(comparison),
                    escape(comparison["test"]),
                ]
                rows.append(table_row(head, escape(task_label(comparison["name"], published)), cells))
    return table(head, rows)
