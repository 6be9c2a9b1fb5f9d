"""Charts as SVG: lines by stage with intervals, and dots with intervals on a common axis.

A chart is drawn about as wide as a phone and laid out in a grid by the page, so its letters stay readable.
Colours and markers come from the page's style sheet through the classes c0..c5. Texts are escaped by Markup.format.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import east_asian_width

from markupsafe import Markup

from frozen_glyph.evaluation.report.schema import Estimate
from frozen_glyph.evaluation.report.words import ends, estimate_text

COLOURS = 6
_WIDTH = 340
_LETTERS, _SMALL = 12, 11  # sizes, as in the style sheet


@dataclass(frozen=True)
class Series:
    """One line: ``colour`` picks the class and the marker; a point that is not ``filled`` is drawn hollow."""

    name: str
    positions: Sequence[float]
    points: Sequence[Estimate]
    colour: int
    filled: Sequence[bool]


@dataclass(frozen=True)
class ChartRow:
    """One row of a row chart: a name, a marker with its interval, and ``text`` at the right.

    Without a point it is a heading. ``inner`` is a second, narrower source of uncertainty, drawn as a thick line.
    """

    name: str
    point: Estimate | None = None
    colour: int = 0
    text: str = ""
    title: str = ""  # shown by a browser that hovers over the row
    filled: bool = True
    inner: tuple[float, float] | None = None


def fit(text: str, width: float, size: float = _LETTERS) -> str:
    """Return ``text``, cut with an ellipsis where it would be wider than ``width`` pixels at a letter ``size``."""
    if _letters_width(text, size) <= width:
        return text
    while text and _letters_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def _letters_width(text: str, size: float) -> float:
    # Latin and Cyrillic letters are about half as wide as high, CJK as wide as high.
    return sum(size * (1.0 if east_asian_width(letter) in "WF" else 0.54) for letter in text)


def colour_class(colour: int) -> str:
    """Return the style sheet's name of a colour."""
    return f"c{colour % COLOURS}"


def marker(colour: int, x: float, y: float, size: float = 4.5, filled: bool = True) -> Markup:
    """Return a dot, square, diamond or triangle, so that series differ without colour too."""
    kind = colour % 4
    if kind == 0:
        shape = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}"').format(x, y, size)
    elif kind == 1:
        rectangle = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"')
        shape = rectangle.format(x - size, y - size, 2 * size, 2 * size)
    else:
        r = size * 1.3
        corners = [(0, -r), (r, 0), (0, r), (-r, 0)] if kind == 2 else [(0, -r), (r, r * 0.8), (-r, r * 0.8)]
        path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        shape = Markup('<polygon points="{}"').format(path)
    return shape + Markup(' class="mark {}{}"/>').format("" if filled else "hollow ", colour_class(colour))


def icon(colour: int) -> Markup:
    """Return a series' marker as a small picture of its own."""
    picture = Markup('<svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{}</svg>')
    return picture.format(marker(colour, 7, 7))


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers (steps of 1, 2 or 5 times a power of ten) that cover ``low``..``high``."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / wanted))
    step = min((m * magnitude for m in (1, 2, 5, 10)), key=lambda size: abs(span / size - wanted))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _svg(height: float, label: str, body: Sequence[Markup]) -> Markup:
    frame = Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return frame.format(_WIDTH, height, label, Markup().join(body))


def _tick_label(value: float, step: float, percent: bool, signed: bool = False) -> str:
    if percent:
        value, step = 100 * value, 100 * step
    text = f"{abs(value):.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    sign = "" if float(text) == 0 else "−" if value < 0 else "+" if signed else ""
    return f"{sign}{text}{'%' if percent and not signed else ''}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" class="{}"/>')
    return line.format(x1, x2, y1, y2, kind)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, kind, text)


def _titled(title: str, *parts: Markup) -> Markup:
    """Return parts that show ``title`` when a browser hovers over them."""
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup().join(parts))


def line_chart(title: str, series: Sequence[Series], unit: str, percent: bool, chance: float | None = None) -> Markup:
    """Return one line per series over positions in ``unit``, an interval at every point and chance as a dashed line."""
    left, right, top, bottom, height = 46, 14, 10, 40, 220
    points = [point for line in series for point in line.points]
    bounds = [end for point in points for end in ends(point)]
    levels = [] if chance is None else [chance]
    marks = ticks(min(bounds + levels), max(bounds + levels))
    if percent:
        marks = [mark for mark in marks if 0 <= mark <= 1]
    # Points may leave the outermost tick only where that tick is a bound of the scale.
    low, high = min(marks[0], *bounds), max(marks[-1], *bounds)
    positions = sorted({position for line in series for position in line.positions})
    span = positions[-1] - positions[0]

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    def x(position: float) -> float:
        inner = _WIDTH - left - right - 44
        return left + 22 + (inner * (position - positions[0]) / span if span else inner / 2)

    # Lines stand a little apart, so that their intervals do not hide each other.
    nearest = min((x(after) - x(before) for before, after in pairwise(positions)), default=60.0)
    apart = min(6.0, 0.5 * nearest / len(series))
    body = []
    for mark in marks:
        body.append(_line(left, y(mark), _WIDTH - right, y(mark), "grid"))
        body.append(_text(left - 6, y(mark) + 4, _tick_label(mark, marks[1] - marks[0], percent), "tick end"))
    shown = -math.inf
    for position in positions:
        if x(position) - shown >= 18:
            shown = x(position)
            body.append(_text(shown, height - 22, f"{position:g}", "tick mid"))
    body.append(_text((left + _WIDTH - right) / 2, height - 6, unit, "tick mid"))
    if chance is not None:
        body.append(_line(left, y(chance), _WIDTH - right, y(chance), "chance"))
    for index, line in enumerate(series):
        kind = colour_class(line.colour)
        at = [x(position) + apart * (index - (len(series) - 1) / 2) for position in line.positions]
        path = " ".join(f"{place:.1f},{y(point['value']):.1f}" for place, point in zip(at, line.points, strict=True))
        body.append(Markup('<polyline points="{}" class="line {}"/>').format(path, kind))
        for place, position, point, filled in zip(at, line.positions, line.points, line.filled, strict=True):
            body.append(
                _titled(
                    f"{line.name}, {position:g} {unit}: {estimate_text(point, percent)}",
                    _line(place, y(ends(point)[0]), place, y(ends(point)[1]), f"interval {kind}"),
                    marker(line.colour, place, y(point["value"]), filled=filled),
                )
            )
    return _svg(height, f"{title}: " + "; ".join(line.name for line in series), body)


def row_chart(
    title: str,
    rows: Sequence[ChartRow],
    scale: tuple[float, float],
    percent: bool,
    *,
    reference: float | None = None,
    signed: bool = False,
    beside: bool = False,
) -> Markup:
    """Return one row per estimate on a common axis: a forest plot.

    Args:
        scale: ends of the axis.
        percent: values are shares, shown as per cent.
        reference: draw a dashed line here (chance, or zero); with ``beside`` also a bar from it to each value.
        signed: values are differences, shares in percentage points.
        beside: write names at the left of the markers, closely spaced, and not above them.
    """
    longest = max((_letters_width(row.name, _SMALL) for row in rows if row.point), default=0.0)
    left, right, pitch = (min(196.0, longest + 16), 50, 21) if beside else (0.0, 8, 38)
    top = 4
    base = top + pitch * len(rows)
    wanted = max(2, round((_WIDTH - left - right) / 75))
    marks = [mark for mark in ticks(*scale, wanted) if scale[0] <= mark + 1e-9 <= scale[1] + 2e-9]

    def x(value: float) -> float:
        return left + (_WIDTH - left - right) * (value - scale[0]) / (scale[1] - scale[0])

    body = []
    for mark in marks:
        body.append(_line(x(mark), top, x(mark), base, "grid"))
        step = marks[1] - marks[0] if len(marks) > 1 else abs(mark) or 1.0
        at_edge = "start" if x(mark) < 24 else "end" if x(mark) > _WIDTH - 24 else "mid"
        body.append(_text(x(mark), base + 16, _tick_label(mark, step, percent, signed), f"tick {at_edge}"))
    if reference is not None:
        body.append(_line(x(reference), top, x(reference), base, "chance"))
    for index, row in enumerate(rows):
        y = top + pitch * index + (11 if beside else 27)
        if row.point is None:
            body.append(_text(0 if beside else left, y + 5, fit(row.name, _WIDTH, 1.2 * _LETTERS), "row strong"))
            continue
        kind = colour_class(row.colour)
        value = x(row.point["value"])
        name_y = y + 4 if beside else y - 12
        room = left - 10 if beside else _WIDTH - left - right - 16 - _letters_width(row.text, _LETTERS)
        parts = [
            _text(0, name_y, fit(row.name, room, _SMALL), "row small")
            if beside
            else _text(left, name_y, fit(row.name, room, _LETTERS), "row"),
            _text(_WIDTH, name_y, row.text, f"row end {'strong' if row.filled else 'soft'}"),
        ]
        if beside and reference is not None:
            edges = sorted((x(reference), value))
            bar = Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="12" class="bar {}"/>')
            parts.append(bar.format(edges[0], y - 6, edges[1] - edges[0], kind if row.filled else ""))
        low, high = ends(row.point)
        parts.append(_line(x(low), y, x(high), y, f"interval {kind}"))
        if row.inner is not None:
            parts.append(_line(x(row.inner[0]), y, x(row.inner[1]), y, f"inner {kind}"))
        parts.append(marker(row.colour, value, y, 3.6 if beside else 4.5, row.filled))
        body.append(_titled(row.title or row.name, *parts))
    return _svg(base + 22, title, body)
