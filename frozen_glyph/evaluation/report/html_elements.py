"""The pieces of HTML that the sections of the page are built from. Arguments are plain text unless they say html."""

from html import escape

from frozen_glyph.evaluation.report.charts import Point, icon
from frozen_glyph.evaluation.report.schema import Estimate

_VERDICT_CLASS = {"above chance": "good", "below chance": "bad", "at chance": ""}


def section(title: str, *body_html: str, hint: str = "") -> str:
    """Return a section of the page, with the anchor that the page's list of contents points to."""
    intro = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f'<section id="{anchor(title)}"><h2>{escape(title)}</h2>{intro}{"".join(body_html)}</section>'


def anchor(title: str) -> str:
    """Return the name of a section's anchor."""
    return title.lower().replace(" ", "-")


def figure(title: str, *body_html: str, caption: str = "", tag: str = "") -> str:
    """Return a card with a chart; ``tag`` is a word of warning over the title."""
    label = f'<p class="tag">{escape(tag)}</p>' if tag else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="card">{label}<h3>{escape(title)}</h3>{"".join(body_html)}{below}</figure>'


def grid(cards_html: list[str]) -> str:
    """Return cards side by side where the page is wide enough."""
    kind = " pairs" if len(cards_html) in (1, 2, 4) else ""
    return f'<div class="grid-cards{kind}">{"".join(cards_html)}</div>'


def folded(summary: str, *body_html: str) -> str:
    """Return what a reader sees on demand."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(body_html)}</details>"


def table(head: list[str], rows_html: list[str], hint: str = "") -> str:
    """Return a table on a card; the rows are finished <tr> elements."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows_html)}</tbody></table>"
    intro = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f'<div class="card wide">{intro}{body}</div>'


def table_row(head: list[str], name_html: str, cells_html: list[str], best: list[bool] | None = None) -> str:
    """Return a <tr>; on a phone every cell stands in a line of its own, beside its column's title."""
    columns = "".join(
        f'<td data-label="{escape(title)}"{" class=best" if best and best[index] else ""}><div>{cell}</div></td>'
        for index, (title, cell) in enumerate(zip(head[1:], cells_html, strict=True))
    )
    return f'<tr><th scope="row">{name_html}</th>{columns}</tr>'


def group_row(head: list[str], title: str, detail: str = "") -> str:
    """Return a <tr> that heads the rows after it."""
    extra = f" <span>{escape(detail)}</span>" if detail else ""
    return f'<tr class="group"><th scope="rowgroup" colspan="{len(head)}">{escape(title)}{extra}</th></tr>'


def name(model: str, colour: int) -> str:
    """Return a model's name with its marker."""
    return f'<span class="name">{icon(colour)}<span>{escape(model)}</span></span>'


def verdict_chip(verdict: str | None) -> str:
    """Return a verdict in its colour, or a dash."""
    if verdict is None:
        return "–"
    return f'<span class="chip {_VERDICT_CLASS.get(verdict, "")}">{escape(verdict)}</span>'


def point(estimate: Estimate) -> Point:
    """Return an estimate as charts take it."""
    return Point(estimate["value"], estimate["low"], estimate["high"])
