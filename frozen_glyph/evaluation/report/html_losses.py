"""The held-out loss section of the page: a table of models by texts and a forest plot for every text."""

from html import escape

from frozen_glyph.evaluation.report.charts import Row, described, number, row_chart
from frozen_glyph.evaluation.report.html_elements import figure, grid, name, point, section, table, table_row
from frozen_glyph.evaluation.report.schema import Comparison, Loss, Report
from frozen_glyph.evaluation.report.words import HINTS, comparison_text, inline, interval_text, model_order, unique


def losses_section(report: Report) -> str:
    """Return the section, or nothing if there are no losses."""
    losses = report.get("losses", [])
    if not losses:
        return ""
    colours = {model: colour for colour, model in enumerate(model_order(report))}
    models, texts = unique(loss["model"] for loss in losses), unique(loss["text"] for loss in losses)
    by_cell = {(loss["model"], loss["text"]): loss for loss in losses}
    best = {text: min((loss["value"], loss["model"]) for loss in losses if loss["text"] == text)[1] for text in texts}
    compared, reference = inline(report.get("comparisons", []), "loss")
    head, rows = ["model", *texts], []
    for model in models:
        cells = [_cell(by_cell.get((model, text)), compared.get((model, text))) for text in texts]
        lowest = [best[text] == model and len(models) > 1 for text in texts]
        rows.append(table_row(head, name(model, colours[model]), cells, lowest))
    hint = HINTS["losses"] + (f" Δ: paired difference from {reference}, on the same blocks." if reference else "")
    cards = [
        _forest(text, [loss for model in models if (loss := by_cell.get((model, text)))], colours) for text in texts
    ]
    return section("Held-out loss", table(head, rows), grid(cards), hint=hint)


def _cell(loss: Loss | None, comparison: Comparison | None) -> str:
    if loss is None:
        return "–"
    lines = [f"<b>{number(loss['value'], False)}</b><small>{interval_text(loss, False)}</small>"]
    if "bits_per_byte" in loss:
        bits = loss["bits_per_byte"]
        lines.append(f"<small>{number(bits['value'], False)} bits/byte {interval_text(bits, False)}</small>")
    if comparison:
        lines.append(f"<small>Δ {escape(comparison_text(comparison, False))}</small>")
    return "".join(lines)


def _forest(text: str, losses: list[Loss], colours: dict[str, int]) -> str:
    rows = [
        Row(
            loss["model"],
            point(loss),
            colours[loss["model"]],
            number(loss["value"], False),
            f"{loss['model']}: {described(point(loss), False)}",
        )
        for loss in losses
    ]
    lowest, highest = min(loss["low"] for loss in losses), max(loss["high"] for loss in losses)
    margin = 0.08 * (highest - lowest or 1.0)
    scale = (max(0.0, lowest - margin), highest + margin)
    caption = f"{losses[0]['characters']:,} characters in {losses[0]['blocks']:,} blocks"
    return figure(text, row_chart(f"loss on {text}", rows, scale, percent=False), caption=caption)
