"""The score sections of the page: forest plots with chance lines, one axis for all, and the groups of a task.

Scores of the published protocol stand in a section of their own, so that they are never read as likelihood scores.
"""

from html import escape

from frozen_glyph.evaluation.report.charts import Row, described, number, row_chart
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
    verdict_chip,
)
from frozen_glyph.evaluation.report.schema import GroupScore, Report, Score
from frozen_glyph.evaluation.report.words import (
    HINTS,
    PUBLISHED,
    above_chance,
    adjusted_text,
    comparison_text,
    count_text,
    group_counts,
    inline,
    interval_text,
    model_order,
    p_text,
    sorted_groups,
    task_caption,
    unique,
)


def scores_section(report: Report) -> str:
    """Return the section of all scores but those of the published protocol, or nothing."""
    scores = [score for score in report.get("scores", []) if not score.get("published")]
    return _section(report, "Questions and benchmarks", scores, HINTS["scores"])


def published_section(report: Report) -> str:
    """Return the section of the published protocol, or nothing."""
    scores = [score for score in report.get("scores", []) if score.get("published")]
    hint = (
        "Thin: 95% interval over items and sampling. Thick: sampling noise alone, over the runs."
        if any("runs" in score for score in scores)
        else HINTS["scores"]
    )
    return _section(report, "Published protocol", scores, hint, HINTS["published"], tag=PUBLISHED)


def _section(report: Report, title: str, scores: list[Score], hint: str, warning: str = "", tag: str = "") -> str:
    if not scores:
        return ""
    colours = {model: colour for colour, model in enumerate(model_order(report))}
    ceiling = max(max(score["high"], score["chance"] or 0.0) for score in scores)
    scale = (0.0, min(1.0, max(0.2, ceiling * 1.05)))
    tasks = unique((score["task"], score["metric"]) for score in scores)
    by_task = {key: [score for score in scores if (score["task"], score["metric"]) == key] for key in tasks}
    cards = [_forest(own, colours, scale, tag) for own in by_task.values()]
    groups = [_groups(own, colours) for own in by_task.values() if any(score.get("groups") for score in own)]
    all_scores = folded("All scores as a table", _score_table(report, by_task, colours))
    note = f'<p class="note" role="note"><b>Published protocol.</b> {escape(warning)}</p>' if warning else ""
    return section(title, note, grid(cards), *groups, all_scores, hint=hint)


def _forest(scores: list[Score], colours: dict[str, int], scale: tuple[float, float], tag: str) -> str:
    """One task and metric: a row for each model."""
    task, metric, chance = scores[0]["task"], scores[0]["metric"], scores[0]["chance"]
    rows = [
        Row(
            score["model"],
            point(score),
            colours[score["model"]],
            " · ".join(filter(None, (number(score["value"], True), score["verdict"]))),
            f"{score['model']}: {described(point(score), True)}",
            above_chance(score, chance),
            (score["runs_low"], score["runs_high"]) if "runs_low" in score else None,
        )
        for score in scores
    ]
    chart = row_chart(f"{task}, {metric}", rows, scale, percent=True, reference=chance)
    return figure(f"{task} · {metric}", chart, caption=task_caption(scores[0], "dashed: "), tag=tag)


def _groups(scores: list[Score], colours: dict[str, int]) -> str:
    """The parts of a task, such as the subjects of MMLU: a chart for each model, all in one order and on one axis."""
    task, metric = scores[0]["task"], scores[0]["metric"]
    order = sorted_groups(scores)
    groups = [group for score in scores for group in score.get("groups", [])]
    scale = (min(group["low"] for group in groups), max(group["high"] for group in groups))
    cards = []
    for score in scores:
        by_name = {group["group"]: group for group in score.get("groups", [])}
        rows = [_group_row(by_name[group], score, colours) for group in order if group in by_name]
        chart = row_chart(
            f"{task} of {score['model']} by group", rows, scale, percent=True, reference=score["chance"], beside=True
        )
        cards.append(figure(score["model"], chart, caption=group_counts(score)))
    hint = f'<p class="hint">{escape(HINTS["groups"])}</p>'
    return folded(f"{task} · {metric}: all {len(order)} groups", hint, grid(cards))


def _group_row(group: GroupScore, score: Score, colours: dict[str, int]) -> Row:
    return Row(
        group["group"].replace("_", " "),
        point(group),
        colours[score["model"]],
        number(group["value"], True),
        f"{group['group']}: {group['correct']:g} of {group['total']}, {described(point(group), True)}",
        above_chance(group, score["chance"]),
    )


def _score_table(report: Report, by_task: dict[tuple[str, str], list[Score]], colours: dict[str, int]) -> str:
    compared, reference = inline(report.get("comparisons", []), "score")
    sampled = any("runs" in score for own in by_task.values() for score in own)
    head = ["model", "right", "score", "95% interval", *(["sampling alone"] if sampled else []), "verdict"]
    head += ["difference", "p", "adjusted p"] if reference else []
    first_metric: dict[str, str] = {}
    for task, metric in by_task:
        first_metric.setdefault(task, metric)
    rows = []
    for (task, metric), own in by_task.items():
        rows.append(group_row(head, task, f"{metric} · {task_caption(own[0])}"))
        for score in own:
            cells = [count_text(score), f"<b>{number(score['value'], True)}</b>", interval_text(score, True)]
            if sampled:
                cells.append(_runs_cell(score))
            cells.append(verdict_chip(score["verdict"]))
            if reference:
                # Only the first metric of a task is compared between models.
                comparison = compared.get((score["model"], task)) if metric == first_metric[task] else None
                cells += (
                    [comparison_text(comparison, True), p_text(comparison["p_value"]), adjusted_text(comparison)]
                    if comparison
                    else ["–"] * 3
                )
            rows.append(table_row(head, name(score["model"], colours[score["model"]]), cells))
    hint = f"Difference: percentage points from {reference}, paired on the same items." if reference else ""
    return table(head, rows, hint)


def _runs_cell(score: Score) -> str:
    if "runs" not in score:
        return "–"
    bounds = interval_text({"value": score["value"], "low": score["runs_low"], "high": score["runs_high"]}, True)
    return f"{bounds}<small>{len(score['runs'])} runs</small>"
