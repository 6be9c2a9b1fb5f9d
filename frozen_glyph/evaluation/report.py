"""Write a report: ``report_html`` (one self-contained page), ``report_json`` and the sibling's ``report_markdown``.

All are pure functions of a ``Report`` (report_schema.py); ``write_report`` puts the three files into a folder.
"""

import base64
import json
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.evaluation.charts import Point, Series, forest_chart, icon, legend, line_chart, number
from frozen_glyph.evaluation.report_markdown import report_markdown
from frozen_glyph.evaluation.report_schema import Comparison, Estimate, Loss, Picture, Provenance, Report, Score, Stage
from frozen_glyph.evaluation.report_text import (
    HINTS,
    comparison_text,
    count_text,
    interval_text,
    model_order,
    p_text,
    provenance_rows,
    unique,
)

_VERDICT_CLASS = {"above chance": "good", "below chance": "bad", "at chance": ""}


def report_json(report: Report) -> str:
    """Return the report as JSON; picture bytes become base64 text."""
    return json.dumps(report, ensure_ascii=False, indent=1, default=_base64) + "\n"


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a report holds JSON values and PNG bytes, not {type(value).__name__}")


def write_report(report: Report, out_dir: Path) -> None:
    """Write report.json, report.md and report.html into ``out_dir``."""
    writers: dict[str, Callable[[Report], str]] = {
        "report.json": report_json,
        "report.md": report_markdown,
        "report.html": report_html,
    }
    for name, writer in writers.items():
        write_text(out_dir / name, writer(report))


def report_html(report: Report) -> str:
    """Return the report as one page that needs no other file and no script."""
    style = files("frozen_glyph.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    provenance = report.get("provenance", {})
    lead = " · ".join(
        part
        for part in (
            provenance.get("created", ""),
            "95% intervals in brackets",
            "losses in nats per character, lower is better" if report.get("losses") or report.get("growth") else "",
        )
        if part
    )
    sections = [
        _growth(report),
        _losses(report),
        _scores(report),
        _comparisons(report.get("comparisons", [])),
        _pictures(report.get("pictures", [])),
        _samples(report),
        _provenance(provenance),
    ]
    note = f'<p class="note" role="note">{escape(report["note"])}</p>' if report.get("note") else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report['title'])}</title>\n<style>\n{style}</style></head>\n<body><main>"
        f'<header><h1>{escape(report["title"])}</h1><p class="lead">{escape(lead)}</p>{note}</header>\n'
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _section(title: str, *body: str, hint: str = "") -> str:
    intro = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{''.join(body)}</section>"


def _figure(title: str, *body: str, caption: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="card"><h3>{escape(title)}</h3>{"".join(body)}{below}</figure>'


def _grid(cards: list[str]) -> str:
    kind = "pairs" if len(cards) in (1, 2, 4) else ""
    return f'<div class="grid-cards {kind}">{"".join(cards)}</div>'


def _table(head: list[str], rows: list[str]) -> str:
    """``head`` holds plain texts, ``rows`` finished <tr> elements."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(head: list[str], name: str, cells: list[str], best: list[bool] | None = None) -> str:
    """Return a <tr>; on a phone every cell stands in a line of its own, beside its column's title."""
    columns = "".join(
        f'<td data-label="{escape(title)}"{" class=best" if best and best[index] else ""}><div>{cell}</div></td>'
        for index, (title, cell) in enumerate(zip(head[1:], cells, strict=True))
    )
    return f'<tr><th scope="row">{name}</th>{columns}</tr>'


def _point(estimate: Estimate) -> Point:
    return Point(estimate["value"], estimate["low"], estimate["high"])


# Growth


def _growth(report: Report) -> str:
    growth = report.get("growth", {})
    cards = []
    for expert, stages in growth.items():
        labels = [f"stage {stage['stage']}" for stage in stages]
        texts = unique(text for stage in stages for text in stage["losses"])
        tasks = unique(task for stage in stages for task in stage["scores"])
        if texts:
            lines = [
                Series(text, [_point(stage["losses"][text]) for stage in stages], colour)
                for colour, text in enumerate(texts)
                if all(text in stage["losses"] for stage in stages)
            ]
            cards.append(_line_figure(f"{expert}: loss by stage", lines, labels, percent=False))
        if tasks:
            lines = [
                Series(
                    task,
                    [_point(stage["scores"][task]) for stage in stages],
                    colour,
                    stages[-1]["scores"][task]["chance"],
                )
                for colour, task in enumerate(tasks)
                if all(task in stage["scores"] for stage in stages)
            ]
            cards.append(_line_figure(f"{expert}: ability by stage", lines, labels, percent=True))
    if not cards:
        return ""
    tables = "".join(_stage_table(expert, stages) for expert, stages in growth.items())
    details = f"<details><summary>All numbers by stage</summary>{tables}</details>"
    return _section("Growth", f'<div class="grid-cards pairs">{"".join(cards)}</div>', details, hint=HINTS["growth"])


def _line_figure(title: str, lines: list[Series], labels: list[str], percent: bool) -> str:
    chart = line_chart(title, lines, labels, percent)
    return _figure(title, chart, legend([line.name for line in lines], [line.colour for line in lines]))


def _stage_table(expert: str, stages: list[Stage]) -> str:
    texts = unique(text for stage in stages for text in stage["losses"])
    tasks = unique(task for stage in stages for task in stage["scores"])
    head = [expert, "layers", "trained parameters", *texts, *tasks]
    rows = []
    for stage in stages:
        cells = [str(stage["num_hidden_layers"]), f"{stage['trainable_parameters']:,}"]
        cells += [_estimate_cell(stage["losses"].get(text), percent=False) for text in texts]
        cells += [_estimate_cell(stage["scores"].get(task), percent=True) for task in tasks]
        rows.append(_row(head, f"stage {stage['stage']}", cells))
    return f'<div class="card wide">{_table(head, rows)}</div>'


def _estimate_cell(estimate: Estimate | None, percent: bool) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate['value'], percent)}<small>{interval_text(estimate, percent)}</small>"


# Paired comparisons


def _inline(comparisons: list[Comparison], kind: str) -> tuple[dict[tuple[str, str], Comparison], str | None]:
    """Comparisons by (model, text or task) and their reference, if all of them have one and the same reference."""
    own = [comparison for comparison in comparisons if comparison["kind"] == kind]
    references = unique(comparison["first"] for comparison in own)
    if len(references) != 1:
        return {}, None
    return {(comparison["second"], comparison["name"]): comparison for comparison in own}, references[0]


def _comparisons(comparisons: list[Comparison]) -> str:
    if not comparisons:
        return ""
    head = ["on", "difference", "95% interval", "p"]
    rows = []
    for first, second in unique((comparison["first"], comparison["second"]) for comparison in comparisons):
        rows.append(
            f'<tr class="group"><th scope="rowgroup" colspan="{len(head)}">{escape(second)} − {escape(first)}</th></tr>'
        )
        for comparison in comparisons:
            if (comparison["first"], comparison["second"]) == (first, second):
                percent = comparison["kind"] == "score"
                difference, interval = comparison_text(comparison, percent).split(" ", 1)
                cells = [f"<b>{difference}</b>", interval, p_text(comparison["p_value"])]
                rows.append(_row(head, escape(comparison["name"]), cells))
    table = f'<div class="card wide">{_table(head, rows)}</div>'
    details = f"<details><summary>All {len(comparisons)} comparisons</summary>{table}</details>"
    return _section("Paired comparisons", details, hint=HINTS["comparisons"])


# Losses


def _losses(report: Report) -> str:
    losses = report.get("losses", [])
    if not losses:
        return ""
    models, texts = unique(loss["model"] for loss in losses), unique(loss["text"] for loss in losses)
    by_cell = {(loss["model"], loss["text"]): loss for loss in losses}
    best = {text: min((loss["value"], loss["model"]) for loss in losses if loss["text"] == text)[1] for text in texts}
    compared, reference = _inline(report.get("comparisons", []), "loss")
    head, rows = ["model", *texts], []
    for colour, model in enumerate(models):
        cells = [_loss_cell(by_cell.get((model, text)), compared.get((model, text))) for text in texts]
        best_texts = [best[text] == model and len(models) > 1 for text in texts]
        rows.append(_row(head, _name(model, colour), cells, best_texts))
    table = f'<div class="card wide">{_table(head, rows)}</div>'
    cards = []
    for text in texts:
        rows_of_text = [
            Series(model, [_point(by_cell[model, text])], colour)
            for colour, model in enumerate(models)
            if (model, text) in by_cell
        ]
        highest = max(row.points[0].high for row in rows_of_text)
        lowest = min(row.points[0].low for row in rows_of_text)
        margin = 0.08 * (highest - lowest or 1.0)
        scale = (max(0.0, lowest - margin), highest + margin)
        cards.append(_figure(text, forest_chart(f"loss on {text}", rows_of_text, scale, percent=False)))
    hint = HINTS["losses"] + (f" Δ: paired difference from {reference}, on the same blocks." if reference else "")
    return _section("Held-out loss", table, _grid(cards), hint=hint)


def _loss_cell(loss: Loss | None, comparison: Comparison | None) -> str:
    if loss is None:
        return "–"
    difference = f"<small>Δ {escape(comparison_text(comparison, False))}</small>" if comparison else ""
    return f"<b>{number(loss['value'], False)}</b><small>{interval_text(loss, False)}</small>{difference}"


def _name(model: str, colour: int) -> str:
    return f'<span class="name">{icon(colour)}{escape(model)}</span>'


# Scores


def _scores(report: Report) -> str:
    scores = report.get("scores", [])
    if not scores:
        return ""
    models = unique(score["model"] for score in scores)
    groups = unique((score["task"], score["metric"]) for score in scores)
    ceiling = max(max(score["high"], score["chance"] or 0.0) for score in scores)
    scale = (0.0, min(1.0, max(0.2, ceiling * 1.05)))
    cards = []
    for task, metric in groups:
        own = [score for score in scores if (score["task"], score["metric"]) == (task, metric)]
        rows = [Series(s["model"], [_point(s)], models.index(s["model"]), s["chance"]) for s in own]
        caption = _task_caption(own[0])
        chart = forest_chart(f"{task}, {metric}", rows, scale, percent=True)
        cards.append(_figure(f"{task} · {metric}", chart, caption=caption))
    table = _score_table(scores, report.get("comparisons", []), models)
    return _section("Questions and benchmarks", _grid(cards), table, hint=HINTS["scores"])


def _task_caption(score: Score, dashed: str = "dashed: ") -> str:
    chance = (
        "no chance level (free text)" if score["chance"] is None else f"{dashed}chance {number(score['chance'], True)}"
    )
    return f"{score['total']:,} items; {chance}"


def _score_table(scores: list[Score], comparisons: list[Comparison], models: list[str]) -> str:
    compared, reference = _inline(comparisons, "score")
    head = ["model", "right", "score", "95% interval", "verdict", "difference", "p"]
    first_metric: dict[str, str] = {}
    for score in scores:
        first_metric.setdefault(score["task"], score["metric"])
    rows = []
    for task, metric in unique((score["task"], score["metric"]) for score in scores):
        own = [score for score in scores if (score["task"], score["metric"]) == (task, metric)]
        rows.append(
            f'<tr class="group"><th scope="rowgroup" colspan="{len(head)}">{escape(task)} '
            f"<span>{escape(metric)} · {escape(_task_caption(own[0], ''))}</span></th></tr>"
        )
        for score in own:
            # Only the first metric of a task is compared between models.
            comparison = compared.get((score["model"], task)) if metric == first_metric[task] else None
            cells = [
                count_text(score),
                f"<b>{number(score['value'], True)}</b>",
                interval_text(score, True),
                _verdict_chip(score["verdict"]),
                comparison_text(comparison, percent=True) if comparison else "–",
                p_text(comparison["p_value"]) if comparison else "–",
            ]
            rows.append(_row(head, _name(score["model"], models.index(score["model"])), cells))
    hint = (
        f'<p class="hint">Difference: percentage points from {escape(reference)}, paired on the same items.</p>'
        if reference
        else ""
    )
    return f'<div class="card wide">{hint}{_table(head, rows)}</div>'


def _verdict_chip(verdict: str | None) -> str:
    if verdict is None:
        return "–"
    return f'<span class="chip {_VERDICT_CLASS.get(verdict, "")}">{escape(verdict)}</span>'


# Pictures, samples, provenance


def _pictures(pictures: list[Picture]) -> str:
    if not pictures:
        return ""
    cards = [
        f'<figure class="card wide"><h3>{escape(picture["title"])}</h3><img alt="{escape(picture["title"])}" '
        f'src="data:image/png;base64,{base64.b64encode(picture["png"]).decode("ascii")}">'
        f"<figcaption>{escape(picture['caption'])}</figcaption></figure>"
        for picture in pictures
    ]
    return _section("Substrate", *cards)


def _samples(report: Report) -> str:
    samples = report.get("samples", [])
    if not samples:
        return ""
    order = model_order(report)
    blocks = []
    for prompt in unique(sample["prompt"] for sample in samples):
        own = "".join(
            f'<div class="generated c{order.index(sample["model"]) % 6}"><p class="small">{escape(sample["model"])}</p>'
            f"<blockquote>{escape(sample['text'])}</blockquote></div>"
            for sample in samples
            if sample["prompt"] == prompt
        )
        blocks.append(
            f'<article class="card wide"><p class="small prompt">{escape(prompt)}</p>'
            f'<div class="grid-cards">{own}</div></article>'
        )
    return _section("Samples", *blocks, hint=HINTS["samples"])


def _provenance(provenance: Provenance) -> str:
    rows = provenance_rows(provenance)
    if not rows:
        return ""
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return _section("Provenance", f'<div class="card wide"><dl>{entries}</dl></div>')
