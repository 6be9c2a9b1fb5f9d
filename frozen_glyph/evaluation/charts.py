"""Charts as hand-made SVG strings: lines by stage with intervals, and dots with intervals on a common axis.

A chart is drawn about as wide as a phone and laid out in a grid by the page, so its letters stay readable.
Colours and markers come from the page's style sheet through the classes c0..c5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 6
_WIDTH = 340


@dataclass(frozen=True)
class Point:
    """An estimate with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line or one row: ``colour`` picks the class and the marker; ``chance`` draws a dashed level."""

    name: str
    points: Sequence[Point]
    colour: int
    chance: float | None = None


def number(value: float, percent: bool) -> str:
    """Format an estimate: a share as per cent, anything else with three decimals."""
    return f"{100 * value:.1f}%" if percent else f"{value:.3f}"


def described(point: Point, percent: bool) -> str:
    """Return ``value [low, high]``."""
    return f"{number(point.value, percent)} [{number(point.low, percent)}, {number(point.high, percent)}]"


def marker(colour: int, x: float, y: float, size: float = 4.5) -> str:
    """Return a dot, square, diamond or triangle, so that series differ without colour too."""
    kind = colour % 4
    if kind == 0:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"'
    elif kind == 1:
        shape = f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}"'
    else:
        r = size * 1.3
        corners = [(0, -r), (r, 0), (0, r), (-r, 0)] if kind == 2 else [(0, -r), (r, r * 0.8), (-r, r * 0.8)]
        shape = '<polygon points="' + " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners) + '"'
    return f'{shape} class="mark c{colour % COLOURS}"/>'


def icon(colour: int) -> str:
    """Return a series' marker as a small picture of its own."""
    return f'<svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{marker(colour, 7, 7)}</svg>'


def legend(names: Sequence[str], colours: Sequence[int]) -> str:
    """Return an HTML list of the markers and what they stand for."""
    items = "".join(f"<li>{icon(colour)}{escape(name)}</li>" for name, colour in zip(names, colours, strict=True))
    return f'<ul class="legend">{items}</ul>'


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers (steps of 1, 2 or 5 times a power of ten) that cover ``low``..``high``."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / wanted))
    step = min((m * magnitude for m in (1, 2, 5, 10)), key=lambda size: abs(span / size - wanted))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _svg(height: float, label: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(body)
        + "</svg>"
    )


def _tick_label(value: float, step: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f}%"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def line_chart(title: str, series: Sequence[Series], labels: Sequence[str], percent: bool) -> str:
    """Return one line per series over ``labels``, with an interval at every point and dashed chance levels."""
    left, right, top, bottom, height = 46, 14, 10, 26, 210
    points = [point for line in series for point in line.points]
    levels = [line.chance for line in series if line.chance is not None]
    marks = ticks(min([p.low for p in points] + levels), max([p.high for p in points] + levels))
    if percent:
        marks = [mark for mark in marks if 0 <= mark <= 1]
    # Points may leave the outermost tick only where that tick is a bound of the scale.
    low, high = min(marks[0], *(p.low for p in points)), max(marks[-1], *(p.high for p in points))

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    def x(index: int, line: int = 0) -> float:
        inner = _WIDTH - left - right - 44
        apart = (line - (len(series) - 1) / 2) * min(6.0, 30 / max(1, len(series)))
        return left + 22 + (inner * index / (len(labels) - 1) if len(labels) > 1 else inner / 2) + apart

    body = []
    for mark in marks:
        body.append(f'<line x1="{left}" x2="{_WIDTH - right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" class="grid"/>')
        text = _tick_label(mark, marks[1] - marks[0], percent)
        body.append(f'<text x="{left - 6}" y="{y(mark) + 4:.1f}" class="tick end">{text}</text>')
    middle = (len(series) - 1) / 2
    for index, label in enumerate(labels):
        centre = x(index) + middle * min(6.0, 30 / max(1, len(series)))
        body.append(f'<text x="{centre:.1f}" y="{height - 7}" class="tick mid">{escape(label)}</text>')
    for line in series:
        if line.chance is not None:
            level = y(line.chance)
            body.append(
                f'<line x1="{left}" x2="{_WIDTH - right}" y1="{level:.1f}" y2="{level:.1f}" '
                f'class="chance c{line.colour % COLOURS}"><title>chance of {escape(line.name)}: '
                f"{number(line.chance, percent)}</title></line>"
            )
    for row, line in enumerate(series):
        path = " ".join(f"{x(i, row):.1f},{y(p.value):.1f}" for i, p in enumerate(line.points))
        body.append(f'<polyline points="{path}" class="line c{line.colour % COLOURS}"/>')
        for index, point in enumerate(line.points):
            at = x(index, row)
            body.append(
                f"<g><title>{escape(line.name)}, {escape(labels[index])}: {described(point, percent)}</title>"
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(point.low):.1f}" y2="{y(point.high):.1f}" '
                f'class="interval c{line.colour % COLOURS}"/>{marker(line.colour, at, y(point.value))}</g>'
            )
    return _svg(height, f"{title}: " + "; ".join(line.name for line in series), body)


def forest_chart(title: str, rows: Sequence[Series], scale: tuple[float, float], percent: bool) -> str:
    """Return one row per model, a marker with its interval, on the axis ``scale``; dashed: the first row's chance."""
    left, right, top, line_height = 12, 12, 4, 38
    height = top + line_height * len(rows) + 22
    marks = [mark for mark in ticks(*scale) if scale[0] - 1e-9 <= mark <= scale[1] + 1e-9]

    def x(value: float) -> float:
        return left + (_WIDTH - left - right) * (value - scale[0]) / (scale[1] - scale[0])

    body = []
    base = top + line_height * len(rows)
    for mark in marks:
        body.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top}" y2="{base}" class="grid"/>')
        text = _tick_label(mark, marks[1] - marks[0], percent) if len(marks) > 1 else number(mark, percent)
        place = "start" if x(mark) < left + 12 else "end" if x(mark) > _WIDTH - right - 12 else "mid"
        body.append(f'<text x="{x(mark):.1f}" y="{base + 16}" class="tick {place}">{text}</text>')
    if rows[0].chance is not None:
        at = x(rows[0].chance)
        body.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{base}" class="chance plain"/>')
    for index, row in enumerate(rows):
        point = row.points[0]
        y = top + line_height * index + 27
        body.append(
            f'<text x="{left}" y="{y - 12}" class="row">{escape(row.name)}</text>'
            f'<text x="{_WIDTH - right}" y="{y - 12}" class="row end strong">{number(point.value, percent)}</text>'
            f"<g><title>{escape(row.name)}: {described(point, percent)}</title>"
            f'<line x1="{x(point.low):.1f}" x2="{x(point.high):.1f}" y1="{y}" y2="{y}" '
            f'class="interval c{row.colour % COLOURS}"/>{marker(row.colour, x(point.value), y)}</g>'
        )
    return _svg(height, title, body)
