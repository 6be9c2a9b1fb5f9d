"""The held-out loss section of the page: a table of models by texts and a forest plot for every text."""

from frozen_glyph.evaluation.report.page.charts import ChartRow, row_chart
from frozen_glyph.evaluation.report.page.elements import Cell, Figure, Group, Row, Section, Table
from frozen_glyph.evaluation.report.schema import Comparison, Loss, Report
from frozen_glyph.evaluation.report.words import (
    HINTS,
    NO_NUMBER,
    comparison_text,
    ends,
    estimate_text,
    inline,
    interval_text,
    is_number,
    model_colours,
    number,
    unique,
)


def losses_section(report: Report) -> Section | None:
    """Return the section, or nothing if there are no losses."""
    losses = report.get("losses", [])
    if not losses:
        return None
    colours = model_colours(report)
    models, texts = unique(loss["model"] for loss in losses), unique(loss["text"] for loss in losses)
    by_cell = {(loss["model"], loss["text"]): loss for loss in losses}
    measured = {text: [loss for loss in losses if loss["text"] == text and is_number(loss)] for text in texts}
    lowest = {text: min((loss["value"], loss["model"]) for loss in own)[1] for text, own in measured.items() if own}
    compared, reference = inline(report.get("comparisons", []), "loss")
    rows = []
    for model in models:
        best = [lowest.get(text) == model and len(models) > 1 for text in texts]
        cells = [
            _cell(by_cell.get((model, text)), compared.get((model, text)), own)
            for text, own in zip(texts, best, strict=True)
        ]
        rows.append(Row(model, cells, colours[model]))
    figures = [_forest(text, own, colours) for text, own in measured.items() if own]
    hint = HINTS["losses"] + (f" Δ: paired difference from {reference}, on the same documents." if reference else "")
    content = {"table": Table(["model", *texts], [Group(rows)]), "figures": figures}
    return Section("Held-out loss", "losses.html", content, hint)


def _cell(loss: Loss | None, comparison: Comparison | None, best: bool) -> Cell:
    if loss is None:
        return Cell("–", best=best)
    if not is_number(loss):
        return Cell(NO_NUMBER)
    notes = [interval_text(loss, False)]
    if "bits_per_byte" in loss:
        bits = loss["bits_per_byte"]
        notes.append(f"{number(bits['value'], False)} bits/byte {interval_text(bits, False)}")
    if comparison:
        notes.append(f"Δ {comparison_text(comparison, False)}")
    return Cell(number(loss["value"], False), notes, strong=True, best=best)


def _forest(text: str, losses: list[Loss], colours: dict[str, int]) -> Figure:
    rows = [
        ChartRow(
            loss["model"],
            loss,
            colours[loss["model"]],
            number(loss["value"], False),
            f"{loss['model']}: {estimate_text(loss, False)}",
        )
        for loss in losses
    ]
    lowest, highest = min(ends(loss)[0] for loss in losses), max(ends(loss)[1] for loss in losses)
    margin = 0.08 * (highest - lowest or 1.0)
    scale = (max(0.0, lowest - margin), highest + margin)
    caption = f"{losses[0]['characters']:,} characters in {losses[0]['documents']:,} documents"
    return Figure(text, row_chart(f"loss on {text}", rows, scale, percent=False), caption)
