"""The score sections of the page: forest plots with chance lines, one axis for all, and the groups of a task.

Scores of the published protocol stand in a section of their own, so that they are never read as likelihood scores.
"""

from frozen_glyph.evaluation.report.page.charts import ChartRow, row_chart
from frozen_glyph.evaluation.report.page.elements import Cell, Figure, Group, Row, Section, Table, plain_cells
from frozen_glyph.evaluation.report.schema import GroupScore, Report, Score
from frozen_glyph.evaluation.report.words import (
    HINTS,
    PUBLISHED,
    above_chance,
    adjusted_text,
    comparison_text,
    count_text,
    ends,
    estimate_text,
    group_counts,
    inline,
    interval_text,
    model_colours,
    number,
    p_text,
    score_label,
    sorted_groups,
    task_caption,
    unique,
)

ByTask = dict[tuple[str, str], list[Score]]  # by task and metric


def score_sections(report: Report) -> list[Section]:
    """Return the section of all scores but those of the published protocol, and theirs; each left out if empty."""
    scores = [score for score in report.get("scores", []) if not score.get("published")]
    published = [score for score in report.get("scores", []) if score.get("published")]
    hint = (
        "Thin: 95% interval over items and sampling. Thick: sampling noise alone, over the runs."
        if any("runs" in score for score in published)
        else HINTS["scores"]
    )
    sections = []
    if scores:
        sections.append(_section(report, "Questions and benchmarks", scores, HINTS["scores"]))
    if published:
        sections.append(_section(report, "Published protocol", published, hint, HINTS["published"], tag=PUBLISHED))
    return sections


def _section(report: Report, title: str, scores: list[Score], hint: str, warning: str = "", tag: str = "") -> Section:
    colours = model_colours(report)
    ceiling = max(max(ends(score)[1], score["chance"] or 0.0) for score in scores)
    scale = (0.0, min(1.0, max(0.2, ceiling * 1.05)))
    tasks = unique((score["task"], score["metric"]) for score in scores)
    by_task = {key: [score for score in scores if (score["task"], score["metric"]) == key] for key in tasks}
    content = {
        "warning": warning,
        "figures": [_forest(own, colours, scale, tag) for own in by_task.values()],
        "grouped": [_groups(own, colours) for own in by_task.values() if any(score.get("groups") for score in own)],
        "table": _table(report, by_task, colours),
    }
    return Section(title, "scores.html", content, hint)


def _forest(scores: list[Score], colours: dict[str, int], scale: tuple[float, float], tag: str) -> Figure:
    """One task and metric: a row for each model."""
    task, metric, chance = scores[0]["task"], scores[0]["metric"], scores[0]["chance"]
    rows = [
        ChartRow(
            score_label(score),
            score,
            colours[score["model"]],
            " · ".join(filter(None, (number(score["value"], True), score["verdict"]))),
            f"{score_label(score)}: {estimate_text(score, True)}",
            above_chance(score, chance),
            (score["runs_low"], score["runs_high"]) if "runs_low" in score else None,
        )
        for score in scores
    ]
    chart = row_chart(f"{task}, {metric}", rows, scale, percent=True, reference=chance)
    return Figure(f"{task} · {metric}", chart, task_caption(scores[0], "dashed: "), tag)


def _groups(scores: list[Score], colours: dict[str, int]) -> dict[str, object]:
    """The parts of a task, such as the subjects of MMLU: a chart for each model, all in one order and on one axis."""
    task, metric = scores[0]["task"], scores[0]["metric"]
    order = sorted_groups(scores)
    groups = [group for score in scores for group in score.get("groups", [])]
    scale = (min(ends(group)[0] for group in groups), max(ends(group)[1] for group in groups))
    figures = []
    for score in scores:
        by_name = {group["group"]: group for group in score.get("groups", [])}
        rows = [_group_row(by_name[group], score, colours) for group in order if group in by_name]
        chart = row_chart(
            f"{task} of {score_label(score)} by group",
            rows,
            scale,
            percent=True,
            reference=score["chance"],
            beside=True,
        )
        figures.append(Figure(score_label(score), chart, group_counts(score)))
    return {"summary": f"{task} · {metric}: all {len(order)} groups", "hint": HINTS["groups"], "figures": figures}


def _group_row(group: GroupScore, score: Score, colours: dict[str, int]) -> ChartRow:
    return ChartRow(
        group["group"].replace("_", " "),
        group,
        colours[score["model"]],
        number(group["value"], True),
        f"{group['group']}: {group['correct']:g} of {group['total']}, {estimate_text(group, True)}",
        above_chance(group, score["chance"]),
    )


def _table(report: Report, by_task: ByTask, colours: dict[str, int]) -> Table:
    compared, reference = inline(report.get("comparisons", []), "score")
    sampled = any("runs" in score for own in by_task.values() for score in own)
    head = ["model", "right", "score", "95% interval", *(["sampling alone"] if sampled else []), "verdict"]
    head += ["difference", "p", "adjusted p"] if reference else []
    first_metric: dict[str, str] = {}
    for task, metric in by_task:
        first_metric.setdefault(task, metric)
    groups = []
    for (task, metric), own in by_task.items():
        rows = []
        for score in own:
            cells = [
                Cell(count_text(score)),
                Cell(number(score["value"], True), strong=True),
                Cell(interval_text(score, True)),
            ]
            if sampled:
                cells.append(_runs_cell(score))
            cells.append(Cell("–") if score["verdict"] is None else Cell(score["verdict"], is_verdict=True))
            if reference:
                # Only the first metric of a task is compared between models.
                comparison = compared.get((score["model"], task)) if metric == first_metric[task] else None
                cells += plain_cells(
                    [comparison_text(comparison, True), p_text(comparison["p_value"]), adjusted_text(comparison)]
                    if comparison
                    else ["–"] * 3
                )
            rows.append(Row(score["model"], cells, colours[score["model"]]))
        groups.append(Group(rows, task, f"{metric} · {task_caption(own[0])}"))
    hint = f"Difference: percentage points from {reference}, paired on the same items." if reference else ""
    return Table(head, groups, hint)


def _runs_cell(score: Score) -> Cell:
    if "runs" not in score:
        return Cell("–")
    bounds = interval_text({"value": score["value"], "low": score["runs_low"], "high": score["runs_high"]}, True)
    return Cell(bounds, [f"{len(score['runs'])} runs"])
