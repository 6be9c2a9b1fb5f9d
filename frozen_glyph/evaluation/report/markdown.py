"""The report as Markdown tables: the same sections as the page, for a model card, a README or a terminal."""

import re

from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.schema import Comparison, Estimate, Report, Score
from frozen_glyph.evaluation.report.verdict import verdict
from frozen_glyph.evaluation.report.words import (
    CONTAMINATION_HEAD,
    HINTS,
    TERA,
    adjusted_text,
    baselines_text,
    comparison_text,
    contamination_cells,
    count_text,
    effect_text,
    estimate_text,
    group_counts,
    number,
    oriented,
    p_text,
    provenance_rows,
    published_tasks,
    score_label,
    sorted_groups,
    task_label,
    trend_meaning,
    trend_text,
    unique,
)


def _html_text(text: str) -> str:
    """Return a text in one line, with nothing in it that begins a tag or an entity."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", re.sub(r"&(?=[#\w])", "&amp;", " ".join(text.splitlines())))


def _literal(text: str) -> str:
    """Return a text that Markdown shows as it is: names and generated text come from strangers."""
    return re.sub(r"[\\`*~|]|(?<![^\W_])_|_(?![^\W_])|(?<=\])(?=\()", r"\\\g<0>", _html_text(text))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_literal(cell) for cell in line) + " |" for line in lines)


def _section(title: str, head: list[str], rows: list[list[str]], hint: str = "") -> str:
    parts = [f"## {title}", hint, _table(head, rows)]
    return "\n\n".join(part for part in parts if part) if rows else ""


def _estimate(estimate: Estimate | None, percent: bool) -> str:
    return "–" if estimate is None else estimate_text(estimate, percent)


def report_markdown(report: Report) -> str:
    """Return the report as Markdown; charts and pictures are left to the page."""
    report = shown(report)
    scores = report.get("scores", [])
    published = [score for score in scores if score.get("published")]
    likelihood = [score for score in scores if not score.get("published")]
    merge_view, others = oriented(report)
    contamination = [[one["task"], *contamination_cells(one)] for one in report.get("contamination", [])]
    samples = [[sample["prompt"], sample["model"], sample["text"]] for sample in report.get("samples", [])]
    facts = [list(fact) for fact in provenance_rows(report.get("provenance", {}))]
    details = [
        _growth(report),
        _losses(report),
        _scores("Questions and benchmarks", likelihood),
        _scores("Published protocol", published, HINTS["published"]),
        _comparisons("Merged against each expert", merge_view, published_tasks(report)),
        _comparisons("Paired comparisons", others, published_tasks(report)),
        _section("Contamination", CONTAMINATION_HEAD, contamination, HINTS["contamination"]),
        _section("Samples", ["prompt", "model", "generated"], samples),
        _section("Provenance", ["", ""], facts),
    ]
    parts = [
        f"# {_literal(report['title'])}",
        f"> {_literal(report['note'])}" if report.get("note") else "",
        "\n".join(f"* {_literal(line)}" for line in verdict(report)),
        *(["<details><summary>All that was measured</summary>", *details, "</details>"] if any(details) else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _growth(report: Report) -> str:
    tables = []
    for expert, stages in report.get("growth", {}).items():
        texts = unique(text for stage in stages for text in stage["losses"])
        tasks = unique(task for stage in stages for task in stage["scores"])
        counted = all("flops" in stage for stage in stages)
        rows = [
            [
                *(str(stage["stage"]), str(stage["num_hidden_layers"]), f"{stage['trainable_parameters']:,}"),
                *([f"{stage.get('flops', 0) / TERA:.3g}"] if counted else []),
            ]
            + [_estimate(stage["losses"].get(text), percent=False) for text in texts]
            + [_estimate(stage["scores"].get(task), percent=True) for task in tasks]
            for stage in stages
        ]
        labels = [task_label(task, published_tasks(report)) for task in tasks]
        head = ["stage", "layers", "trained parameters", *(["TFLOP"] if counted else []), *texts, *labels]
        tables.append(f"### {_literal(expert)}\n\n{_table(head, rows)}")
    if not tables:
        return ""
    return "\n\n".join(part for part in ("## Growth", *tables, _trends(report)) if part)


def _trends(report: Report) -> str:
    last = {model: stages[-1]["scores"] for model, stages in report.get("growth", {}).items()}
    rows = [
        [
            task_label(trend["name"], published_tasks(report)),
            trend["model"],
            trend_text(trend),
            p_text(trend["p_value"]),
            p_text(trend["adjusted_p"]),
            trend_meaning(trend, last.get(trend["model"], {}).get(trend["name"])),
        ]
        for trend in report.get("trends", [])
    ]
    head = ["text or task", "model", "trend and 95% interval", "p", "adjusted p", "meaning"]
    return "### Trends over depth\n\n" + _table(head, rows) if rows else ""


def _losses(report: Report) -> str:
    losses = report.get("losses", [])
    texts = unique(loss["text"] for loss in losses)
    models = unique(loss["model"] for loss in losses)
    nats: dict[tuple[str, str], Estimate] = {(loss["model"], loss["text"]): loss for loss in losses}
    bits = {(loss["model"], loss["text"]): loss["bits_per_byte"] for loss in losses if "bits_per_byte" in loss}

    def rows(by_cell: dict[tuple[str, str], Estimate]) -> list[list[str]]:
        return [[model, *(_estimate(by_cell.get((model, text)), percent=False) for text in texts)] for model in models]

    loss_table = _section("Held-out loss", ["model", *texts], rows(nats), HINTS["losses"].split(";")[0] + ".")
    return loss_table + (f"\n\nIn bits per byte.\n\n{_table(['model', *texts], rows(bits))}" if bits else "")


def _scores(title: str, scores: list[Score], hint: str = "") -> str:
    sampled = any("runs" in score for score in scores)
    head = ["task", "metric", "model", "right", "score and 95% interval", "chance", "without the question", "verdict"]
    rows = [
        [
            score["task"],
            score["metric"],
            score["model"],
            count_text(score),
            _estimate(score, percent=True),
            "–" if score["chance"] is None else number(score["chance"], True),
            baselines_text(score) or "–",
            score["verdict"] or "–",
            *([_sampling(score)] if sampled else []),
        ]
        for score in scores
    ]
    tables = [_section(title, head + (["sampling alone"] if sampled else []), rows, hint)]
    for task, metric in unique((score["task"], score["metric"]) for score in scores if score.get("groups")):
        own = [score for score in scores if (score["task"], score["metric"]) == (task, metric)]
        tables.append(_groups(f"{task} · {metric}", own))
    return "\n\n".join(part for part in tables if part)


def _sampling(score: Score) -> str:
    if "runs" not in score:
        return "–"
    low, high = number(score["runs_low"], True), number(score["runs_high"], True)
    return f"[{low}, {high}], {len(score['runs'])} runs"


def _groups(title: str, scores: list[Score]) -> str:
    """A row for each group, a column for each model, folded on pages that show Markdown as HTML."""
    by_model = {score_label(score): {group["group"]: group for group in score.get("groups", [])} for score in scores}
    rows = [
        [group, *(_estimate(groups.get(group), percent=True) for groups in by_model.values())]
        for group in sorted_groups(scores)
    ]
    rows.append(["all groups", *(group_counts(score) for score in scores)])
    table = _table(["group", *by_model], rows)
    return f"<details><summary>{_html_text(title)}: all groups</summary>\n\n{table}\n\n</details>"


def _comparisons(title: str, comparisons: list[Comparison], published: set[str]) -> str:
    rows = [
        [
            task_label(comparison["name"], published),
            f"{comparison['second']} − {comparison['first']}",
            comparison_text(comparison, percent=comparison["kind"] == "score"),
            p_text(comparison["p_value"]),
            adjusted_text(comparison),
            effect_text(comparison),
            comparison["test"],
        ]
        for comparison in comparisons
    ]
    head = ["text or task", "models", "difference and 95% interval", "p", "adjusted p", "effect size", "test"]
    return _section(title, head, rows)
