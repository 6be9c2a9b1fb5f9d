"""The growth section of the page: every text's loss and every task's score by depth, with the trend in words."""

from collections.abc import Mapping, Sequence

from frozen_glyph.evaluation.report.page.charts import Series, line_chart
from frozen_glyph.evaluation.report.page.elements import (
    Cell,
    Figure,
    Group,
    LegendEntry,
    Row,
    Section,
    Table,
    plain_cells,
)
from frozen_glyph.evaluation.report.schema import Estimate, Report, Stage
from frozen_glyph.evaluation.report.words import (
    HINTS,
    NO_NUMBER,
    PUBLISHED,
    TERA,
    above_chance,
    both_p_text,
    interval_text,
    is_number,
    model_colours,
    number,
    published_tasks,
    task_label,
    trend_meaning,
    trend_text,
    unique,
)


def growth_section(report: Report) -> Section | None:
    """Return the section, or nothing if no model was grown."""
    growth = report.get("growth", {})
    texts = unique(text for stages in growth.values() for stage in stages for text in stage["losses"])
    tasks = unique(task for stages in growth.values() for stage in stages for task in stage["scores"])
    tasks.sort(key=published_tasks(report).__contains__)  # last, and otherwise as they are
    if not texts and not tasks:
        return None
    figures = [
        _figure(report, kind, name)
        for kind, names in (("loss", texts), ("score", tasks))
        for name in names
        if any(is_number(found) for stages in growth.values() for found in _by_stage(stages, kind, name))
    ]
    figures += [figure for text in texts if (figure := _compute_figure(report, text))]
    tables = [_stage_table(model, stages, published_tasks(report)) for model, stages in growth.items()]
    return Section("Growth", "growth.html", {"figures": figures, "tables": tables}, HINTS["growth"])


def _by_stage(stages: Sequence[Stage], kind: str, name: str) -> list[Estimate]:
    """What was measured of a text or task at the stages."""
    by_name: list[Mapping[str, Estimate]] = [stage["losses"] if kind == "loss" else stage["scores"] for stage in stages]
    return [found[name] for found in by_name if name in found]


def _figure(report: Report, kind: str, name: str) -> Figure:
    """One text or task: a line for each model that was measured on it at some stage."""
    colours = model_colours(report)
    measured: dict[str, list[tuple[Stage, Estimate]]] = {}
    chances: list[float | None] = []
    for model, stages in report.get("growth", {}).items():
        for stage in stages:
            found: Mapping[str, Estimate] = stage["losses"] if kind == "loss" else stage["scores"]
            if name in found and is_number(found[name]):
                measured.setdefault(model, []).append((stage, found[name]))
        chances += [stage["scores"][name]["chance"] for stage in stages if kind == "score" and name in stage["scores"]]
    chance = chances[0] if chances else None
    lines = [
        Series(
            model,
            [stage["num_hidden_layers"] for stage, _ in own],
            [estimate for _, estimate in own],
            colours[model],
            [above_chance(estimate, chance) for _, estimate in own],
        )
        for model, own in measured.items()
    ]
    trends = {
        trend["model"]: trend for trend in report.get("trends", []) if (trend["kind"], trend["name"]) == (kind, name)
    }
    last = {model: own[-1][0]["scores"].get(name) for model, own in measured.items()}
    title = f"{name}: {kind}"
    return Figure(
        title,
        line_chart(title, lines, "blocks", kind == "score", chance),
        caption="" if chance is None else f"dashed: chance {number(chance, True)}",
        tag=PUBLISHED if name in published_tasks(report) else "",
        trends=[
            LegendEntry(
                model, colours[model], trend_meaning(trend, last[model]), [trend_text(trend), both_p_text(trend)]
            )
            for model, trend in trends.items()
            if model in measured
        ],
        legend=[LegendEntry(line.name, line.colour) for line in lines if line.name not in trends],
    )


def _compute_figure(report: Report, text: str) -> Figure | None:
    """The loss of a text by the FLOPs of all training up to a stage, of the models whose folders tell them."""
    colours, lines = model_colours(report), []
    for model, stages in report.get("growth", {}).items():
        own = [
            (stage["flops"] / TERA, stage["losses"][text])
            for stage in stages
            if "flops" in stage and text in stage["losses"] and is_number(stage["losses"][text])
        ]
        if own:
            at, found = zip(*own, strict=True)
            lines.append(Series(model, at, found, colours[model], [True] * len(own)))
    if not lines:
        return None
    title = f"{text}: loss by training FLOPs"
    legend = [LegendEntry(line.name, line.colour) for line in lines]
    return Figure(title, line_chart(title, lines, "TFLOP", False, None), legend=legend)


def _stage_table(model: str, stages: Sequence[Stage], published: set[str]) -> Table:
    """A column for each stage: there are fewer stages than texts and tasks."""
    rows = [
        Row("layers", plain_cells([str(stage["num_hidden_layers"]) for stage in stages])),
        Row("trained parameters", plain_cells([f"{stage['trainable_parameters']:,}" for stage in stages])),
    ]
    if all("flops" in stage for stage in stages):
        rows.append(Row("training TFLOP", plain_cells([f"{stage.get('flops', 0) / TERA:.3g}" for stage in stages])))
    for text in unique(text for stage in stages for text in stage["losses"]):
        rows.append(Row(text, [_cell(stage["losses"].get(text), False) for stage in stages]))
    for task in unique(task for stage in stages for task in stage["scores"]):
        rows.append(Row(task_label(task, published), [_cell(stage["scores"].get(task), True) for stage in stages]))
    return Table(["", *(f"stage {stage['stage']}" for stage in stages)], [Group(rows, model)])


def _cell(estimate: Estimate | None, percent: bool) -> Cell:
    if estimate is None:
        return Cell("–")
    if not is_number(estimate):
        return Cell(NO_NUMBER)
    return Cell(number(estimate["value"], percent), [interval_text(estimate, percent)])
