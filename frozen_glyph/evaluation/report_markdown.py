"""The report as Markdown tables: the same sections as the page, for a model card, a README or a terminal."""

from frozen_glyph.evaluation.charts import number
from frozen_glyph.evaluation.report_schema import Estimate, Report
from frozen_glyph.evaluation.report_text import (
    HINTS,
    comparison_text,
    count_text,
    interval_text,
    p_text,
    provenance_rows,
    unique,
)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _estimate(estimate: Estimate | None, percent: bool) -> str:
    return "–" if estimate is None else f"{number(estimate['value'], percent)} {interval_text(estimate, percent)}"


def report_markdown(report: Report) -> str:
    """Return the report as Markdown; charts and pictures are left to the page."""
    sections = [f"# {report['title']}"]
    if report.get("note"):
        sections.append(f"> {report['note']}")
    sections += [part for part in (_growth(report), _losses(report), _scores(report), _comparisons(report)) if part]
    samples = report.get("samples", [])
    if samples:
        rows = [[sample["prompt"], sample["model"], sample["text"]] for sample in samples]
        sections.append(f"## Samples\n\n{_table(['prompt', 'model', 'generated'], rows)}")
    facts = provenance_rows(report.get("provenance", {}))
    if facts:
        sections.append("## Provenance\n\n" + _table(["", ""], [list(fact) for fact in facts]))
    return "\n\n".join(sections) + "\n"


def _growth(report: Report) -> str:
    tables = []
    for expert, stages in report.get("growth", {}).items():
        texts = unique(text for stage in stages for text in stage["losses"])
        tasks = unique(task for stage in stages for task in stage["scores"])
        rows = [
            [str(stage["stage"]), str(stage["num_hidden_layers"]), f"{stage['trainable_parameters']:,}"]
            + [_estimate(stage["losses"].get(text), percent=False) for text in texts]
            + [_estimate(stage["scores"].get(task), percent=True) for task in tasks]
            for stage in stages
        ]
        tables.append(f"### {expert}\n\n" + _table(["stage", "layers", "trained parameters", *texts, *tasks], rows))
    return "\n\n".join(["## Growth", *tables]) if tables else ""


def _losses(report: Report) -> str:
    losses = report.get("losses", [])
    if not losses:
        return ""
    texts = unique(loss["text"] for loss in losses)
    by_cell = {(loss["model"], loss["text"]): loss for loss in losses}
    rows = [
        [model, *(_estimate(by_cell.get((model, text)), percent=False) for text in texts)]
        for model in unique(loss["model"] for loss in losses)
    ]
    return f"## Held-out loss\n\n{HINTS['losses'].split(';')[0]}.\n\n" + _table(["model", *texts], rows)


def _scores(report: Report) -> str:
    rows = [
        [
            score["task"],
            score["metric"],
            score["model"],
            count_text(score),
            _estimate(score, percent=True),
            "–" if score["chance"] is None else number(score["chance"], True),
            score["verdict"] or "–",
        ]
        for score in report.get("scores", [])
    ]
    head = ["task", "metric", "model", "right", "score and 95% interval", "chance", "verdict"]
    return "## Questions and benchmarks\n\n" + _table(head, rows) if rows else ""


def _comparisons(report: Report) -> str:
    rows = [
        [
            comparison["name"],
            f"{comparison['second']} − {comparison['first']}",
            comparison_text(comparison, percent=comparison["kind"] == "score"),
            p_text(comparison["p_value"]),
            comparison["test"],
        ]
        for comparison in report.get("comparisons", [])
    ]
    head = ["text or task", "models", "difference and 95% interval", "p", "test"]
    return "## Paired comparisons\n\n" + _table(head, rows) if rows else ""
