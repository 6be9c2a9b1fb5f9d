"""Draw an attribution: a text in which every piece has the colour of who speaks there, for a terminal and as HTML."""

import colorsys
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from frozen_glyph.errors import printable
from frozen_glyph.evaluation.attribution import Attribution

if TYPE_CHECKING:
    from rich.text import Text

Colour = tuple[float, float, float]  # red, green, blue from 0 to 1

# Backgrounds of black letters. For kinds, those that most eyes tell apart (jfly.uni-koeln.de/color), paler.
KINDS = ("#8cc8f0", "#f5c766", "#7ccfb4", "#e6b3d0", "#f2a97e", "#f4ec8c")
SHALLOW, DEEP = "#fff3c4", "#a98bd8"  # the first and the last of steps


def terminal_text(attribution: Attribution) -> "Text":
    """The text in colours; what would command a terminal is shown as escapes, lines stay lines."""
    from rich.text import Text

    colours, drawn = palette(attribution), Text()
    for piece, shares in zip(attribution.pieces, attribution.shares, strict=True):
        shown = "\n".join(map(printable, piece.split("\n")))
        drawn.append(shown, style=f"black on {mixed(shares, colours)}" if shares else None)
    return drawn


def terminal_legend(attribution: Attribution) -> "Text":
    """The names in their colours."""
    from rich.text import Text

    legend = Text(f"{printable(attribution.title)}: ")
    for name, colour in zip(attribution.names, palette(attribution), strict=True):
        legend.append(f" {printable(name)} ", style=f"black on {hex_of(colour)}").append(" ")
    return legend


def fragment_html(attribution: Attribution) -> str:
    """Legend and coloured text, to stand in a page; over each piece the pointer shows the shares. All is escaped."""
    return rendered("attribution.html", attribution)


def page_html(attribution: Attribution) -> str:
    """The same as a page that needs no other file and no script."""
    return rendered("attribution-page.html", attribution)


def rendered(template: str, attribution: Attribution) -> str:
    """One of the templates beside this file."""
    from frozen_glyph.pages import templates_of

    environment = templates_of("frozen_glyph.evaluation")
    colours = palette(attribution)
    pieces = [
        {"text": piece, "colour": mixed(shares, colours) if shares else None, "told": told(shares, attribution)}
        for piece, shares in zip(attribution.pieces, attribution.shares, strict=True)
    ]
    legend = [
        {"name": name, "colour": hex_of(colour), "mean": f"{mean:.1%}", "leading": leading}
        for (name, leading, mean), colour in zip(attribution.summary(), colours, strict=True)
    ]
    return environment.get_template(template).render(
        title=attribution.title, legend=legend, pieces=pieces, ordered=attribution.ordered
    )


def told(shares: Sequence[float], attribution: Attribution) -> str:
    """The shares of a piece in words, the largest first."""
    known = sorted(zip(shares, attribution.names, strict=False), reverse=True)
    if attribution.ordered:
        return ", ".join(name for share, name in known[:1] if share)
    return ", ".join(f"{name} {share:.2f}" for share, name in known)


def palette(attribution: Attribution) -> list[Colour]:
    """A colour for each name."""
    count = len(attribution.names)
    if attribution.ordered:
        return [mix([1 - place, place], [rgb(SHALLOW), rgb(DEEP)]) for place in steps(count)]
    if count <= len(KINDS):
        return [rgb(colour) for colour in KINDS[:count]]
    return [colorsys.hls_to_rgb(number / count, 0.75, 0.7) for number in range(count)]


def steps(count: int) -> list[float]:
    return [number / max(1, count - 1) for number in range(count)]


def mixed(shares: Sequence[float], colours: Sequence[Colour]) -> str:
    return hex_of(mix(shares, colours))


def mix(shares: Sequence[float], colours: Sequence[Colour]) -> Colour:
    """The mean of the colours by their shares; a negative one counts nothing."""
    positive = [max(0.0, share) for share in shares]
    total = sum(positive) or 1.0
    red, green, blue = (
        sum(share * colour[part] for share, colour in zip(positive, colours, strict=True)) / total for part in range(3)
    )
    return red, green, blue


@functools.cache
def rgb(colour: str) -> Colour:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def hex_of(colour: Colour) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)
