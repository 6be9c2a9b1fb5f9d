"""The growth section of the page: every text's loss and every task's score by depth, with the trend in words."""

from collections.abc import Mapping
from html import escape

from frozen_glyph.evaluation.report.charts import Series, icon, legend, line_chart, number
from frozen_glyph.evaluation.report.html_elements import (
    figure,
    folded,
    grid,
    group_row,
    point,
    section,
    table,
    table_row,
)
from frozen_glyph.evaluation.report.schema import Estimate, Report, Stage, Trend
from frozen_glyph.evaluation.report.words import (
    HINTS,
    PUBLISHED,
    above_chance,
    both_p_text,
    interval_text,
    model_order,
    published_tasks,
    task_label,
    trend_meaning,
    trend_text,
    unique,
)


def growth_section(report: Report) -> str:
    """Return the section, or nothing if no model was grown."""
    growth = report.get("growth", {})
    texts = unique(text for stages in growth.values() for stage in stages for text in stage["losses"])
    tasks = unique(task for stages in growth.values() for stage in stages for task in stage["scores"])
    tasks.sort(key=published_tasks(report).__contains__)  # last, and otherwise as they are
    cards = [_card(report, "loss", text) for text in texts] + [_card(report, "score", task) for task in tasks]
    if not cards:
        return ""
    tables = [_stage_table(model, stages, published_tasks(report)) for model, stages in growth.items()]
    return section("Growth", grid(cards), folded("All numbers by stage", *tables), hint=HINTS["growth"])


def _card(report: Report, kind: str, name: str) -> str:
    """One text or task: a line for each model that was measured on it at some stage."""
    colours = {model: colour for colour, model in enumerate(model_order(report))}
    measured: dict[str, list[tuple[Stage, Estimate]]] = {}
    chances: list[float | None] = []
    for model, stages in report.get("growth", {}).items():
        for stage in stages:
            found: Mapping[str, Estimate] = stage["losses"] if kind == "loss" else stage["scores"]
            if name in found:
                measured.setdefault(model, []).append((stage, found[name]))
        chances += [stage["scores"][name]["chance"] for stage in stages if kind == "score" and name in stage["scores"]]
    chance = chances[0] if chances else None
    lines = [
        Series(
            model,
            [stage["num_hidden_layers"] for stage, _ in own],
            [point(estimate) for _, estimate in own],
            colours[model],
            [above_chance(estimate, chance) for _, estimate in own],
        )
        for model, own in measured.items()
    ]
    trends = {
        trend["model"]: trend for trend in report.get("trends", []) if (trend["kind"], trend["name"]) == (kind, name)
    }
    title = f"{name}: {kind}"
    chart = line_chart(title, lines, "blocks", kind == "score", chance)
    below = _trends(trends, {model: own[-1][0] for model, own in measured.items()}, colours)
    untold = [line for line in lines if line.name not in trends]
    below += legend([line.name for line in untold], [line.colour for line in untold]) if untold else ""
    caption = "" if chance is None else f"dashed: chance {number(chance, True)}"
    return figure(title, chart, below, caption=caption, tag=PUBLISHED if name in published_tasks(report) else "")


def _trends(trends: Mapping[str, Trend], last: Mapping[str, Stage], colours: Mapping[str, int]) -> str:
    """The legend of a chart that also says what became of each line."""
    items = [
        f"<li>{icon(colours[model])}<span><b>{escape(model)}</b>: "
        f"{escape(trend_meaning(trend, last[model]['scores'].get(trend['name'])))}"
        f"<small>{escape(trend_text(trend))}</small><small>{escape(both_p_text(trend))}</small></span></li>"
        for model, trend in trends.items()
        if model in last
    ]
    return f'<ul class="trends">{"".join(items)}</ul>' if items else ""


def _stage_table(model: str, stages: list[Stage], published: set[str]) -> str:
    """A column for each stage: there are fewer stages than texts and tasks."""
    head = ["", *(f"stage {stage['stage']}" for stage in stages)]
    rows = [
        group_row(head, model),
        table_row(head, "layers", [str(stage["num_hidden_layers"]) for stage in stages]),
        table_row(head, "trained parameters", [f"{stage['trainable_parameters']:,}" for stage in stages]),
    ]
    for text in unique(text for stage in stages for text in stage["losses"]):
        rows.append(table_row(head, escape(text), [_cell(stage["losses"].get(text), False) for stage in stages]))
    for task in unique(task for stage in stages for task in stage["scores"]):
        label = escape(task_label(task, published))
        rows.append(table_row(head, label, [_cell(stage["scores"].get(task), True) for stage in stages]))
    return table(head, rows)


def _cell(estimate: Estimate | None, percent: bool) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate['value'], percent)}<small>{interval_text(estimate, percent)}</small>"
