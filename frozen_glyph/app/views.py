"""Growth as a table and samples side by side, as HTML; what comes from files and models is escaped."""

from collections.abc import Sequence
from html import escape

from frozen_glyph.app.glyphs import note
from frozen_glyph.checkpoint.describe import StageFacts


def stages_html(stages: Sequence[StageFacts], chosen: int) -> str:
    """A row for each growth stage with its held-out losses as bars from zero; the ``chosen`` one is marked."""
    texts = list(dict.fromkeys(text for stage in stages for text in stage["nats_per_character"]))
    if not stages:
        return note("This model was not grown in stages.")
    heads = ["stage", "blocks", "trained", *texts]
    rows = []
    for stage in stages:
        trained = stage["trained_parameters"]
        cells = [str(stage["stage"]), str(stage["layers"]), "-" if trained is None else f"{trained:,}"]
        losses = [bar(stage["nats_per_character"].get(text), largest(stages, text)) for text in texts]
        mark = ' class="fg-now"' if stage["stage"] == chosen else ""
        rows.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}{''.join(losses)}</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    told = "Losses are nats per character of held-out text; lower is better." if texts else "No held-out text was read."
    return f'<div class="fg-wide"><table class="fg-table"><tr>{head}</tr>{"".join(rows)}</table></div>{note(told)}'


def largest(stages: Sequence[StageFacts], text: str) -> float:
    """The largest loss of a text over the stages."""
    return max((stage["nats_per_character"].get(text, 0.0) for stage in stages), default=0.0)


def bar(loss: float | None, largest: float) -> str:
    """A cell with a loss and a bar of its length."""
    if loss is None:
        return "<td>-</td>"
    share = 100 * loss / largest if largest > 0 else 0
    return f'<td>{loss:.4f}<div class="fg-bar" style="width:{share:.1f}%"></div></td>'


def samples_html(prompt: str, samples: Sequence[tuple[str, str]]) -> str:
    """Columns, each a label over the prompt and what its model wrote."""
    if not samples:
        return note("Choose who is to write.")
    columns = [
        f'<div class="fg-sample"><h4>{escape(label)}</h4><p><span class="fg-prompt">{escape(prompt)}</span>'
        f"{escape(text)}</p></div>"
        for label, text in samples
    ]
    return f'<div class="fg-samples">{"".join(columns)}</div>'
