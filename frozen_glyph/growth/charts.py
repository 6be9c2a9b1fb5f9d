"""Charts of a run's page as SVG: lines over a number, and dots on a scale whose unhealthy part is shaded.

Colours come from the page's style through the classes c0..c5. Texts are escaped by ``Markup.format``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

WIDTH, HEIGHT = 430, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 38
COLOURS = 6
said = EngFormatter(sep="", places=None)


@dataclass(frozen=True)
class Line:
    """A line through ``points``; ``kind`` is of the style sheet: thin, line, dots or control."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    kind: str = "line"


@dataclass(frozen=True)
class Dot:
    """A value on a scale, and what a browser shows that hovers over it."""

    value: float
    title: str
    colour: int
    flagged: bool


def line_chart(
    title: str, lines: Sequence[Line], labels: tuple[str, str], limits: tuple[float, float], edges: Sequence[float] = ()
) -> Markup:
    """Lines over x, within the ``limits`` of y; ``edges`` are upright lines, ``labels`` those of x and y."""
    xs = [x for line in lines for x, _ in line.points] or [0.0]
    low, high = limits
    first, last = (0.0 if min(xs) >= 0 else min(xs)), max(xs) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / ((last - first) or 1.0)
        return right, TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(y, low), high)) / ((high - low) or 1.0)

    body = []
    for tick in MaxNLocator(5).tick_values(low, high):
        if low <= tick <= high:
            y = place(0, tick)[1]
            body += [straight(LEFT, y, WIDTH - RIGHT, y, "grid"), text(LEFT - 6, y + 4, f"{tick:.4g}", "end")]
    for tick in MaxNLocator(5, integer=last < 20).tick_values(first, last):
        if first <= tick <= last:
            body.append(text(place(tick, low)[0], HEIGHT - 20, said(tick), "mid"))
    for edge in edges:
        x = place(edge, low)[0]
        body.append(straight(x, TOP, x, HEIGHT - BOTTOM, "edge"))
    for line in lines:
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line.points)
        if line.kind != "dots":
            body.append(Markup('<polyline points="{}" class="{} c{}"/>').format(path, line.kind, line.colour % COLOURS))
        if line.kind != "thin" and len(line.points) <= 60:
            body += [
                dot(*place(x, y), f"{line.name}: {y:.4f} at {said(x)}", line.colour, line.kind == "control")
                for x, y in line.points
            ]
    body.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, labels[0], "mid"))
    return drawing(HEIGHT, f"{title}: {labels[1]} over {labels[0]}", body)


def scale_chart(title: str, dots: Sequence[Dot], low: float, high: float, logarithmic: bool) -> Markup:
    """Dots on one scale; below ``low`` and above ``high``, where they are finite, it is shaded."""
    height, bounds = 62, [bound for bound in (low, high) if math.isfinite(bound)]
    values = [dot.value for dot in dots] + bounds

    def scaled(value: float) -> float:
        return math.log10(max(value, 1e-12)) if logarithmic else value

    ends = [scaled(value) for value in values]
    air = 0.06 * (max(ends) - min(ends)) or 0.5
    first, last = (min(ends) - air, max(ends) + air) if logarithmic else (0.0, max(1.0, *ends))

    def x(value: float) -> float:
        return 10 + (WIDTH - 20) * (scaled(value) - first) / (last - first)

    body = []
    for begin, end in (
        (10.0, x(low) if math.isfinite(low) else 10.0),
        (x(high) if math.isfinite(high) else 0, WIDTH - 10),
    ):
        if end > begin > 0:
            body.append(
                Markup('<rect x="{:.1f}" y="6" width="{:.1f}" height="30" class="ill"/>').format(begin, end - begin)
            )
    body.append(straight(10, 21, WIDTH - 10, 21, "grid"))
    for bound in bounds:
        body += [
            straight(x(bound), 4, x(bound), 38, "bound"),
            text(x(bound), 54, f"{bound:g}", f"{'end' if x(bound) > WIDTH - 30 else 'mid'} strong"),
        ]
    ticks = LogLocator(numticks=5).tick_values(10**first, 10**last) if logarithmic else (0.0, 0.5, 1.0)
    for tick in ticks:
        if 14 <= x(tick) <= WIDTH - 14 and all(abs(x(tick) - x(bound)) > 40 for bound in bounds):
            body.append(text(x(tick), 54, f"{tick:g}", "mid"))
    body += [dot(x(one.value), 21, one.title, one.colour, not one.flagged) for one in dots]
    return drawing(height, title, body)


def dot(x: float, y: float, title: str, colour: int, hollow: bool) -> Markup:
    mark = '<circle cx="{:.1f}" cy="{:.1f}" r="4" class="mark {}c{}"><title>{}</title></circle>'
    return Markup(mark).format(x, y, "hollow " if hollow else "", colour % COLOURS, title)


def straight(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>'
    return Markup(line).format(x1, y1, x2, y2, kind)


def text(x: float, y: float, words: str, kind: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, kind, words)


def drawing(height: float, label: str, body: Sequence[Markup]) -> Markup:
    frame = '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    return Markup(frame).format(WIDTH, height, label, Markup().join(body))
