"""What a section of the page is made of, as plain data: figures and tables. The templates give it its form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class LegendEntry:
    """What a marker of a chart stands for; with ``meaning`` also what became of its line, and in ``details`` why."""

    model: str
    colour: int
    meaning: str = ""
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A card with a chart; ``tag`` is a word of warning over the title."""

    title: str
    chart: Markup
    caption: str = ""
    tag: str = ""
    trends: Sequence[LegendEntry] = ()
    legend: Sequence[LegendEntry] = ()


@dataclass(frozen=True)
class Cell:
    """A number or word of a table, with ``notes`` in small lines below it."""

    text: str
    notes: Sequence[str] = ()
    strong: bool = False
    best: bool = False  # of its column
    is_verdict: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table; the name of a model wears the marker of its ``colour``."""

    name: str
    cells: Sequence[Cell]
    colour: int | None = None


@dataclass(frozen=True)
class Group:
    """Rows of a table under a heading, or without one."""

    rows: Sequence[Row]
    title: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table on a card; ``head`` begins with the title of the names' column."""

    head: Sequence[str]
    groups: Sequence[Group]
    hint: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the page: ``content`` is what its ``template`` shows."""

    title: str
    template: str
    content: dict[str, Any]
    hint: str = ""

    @property
    def anchor(self) -> str:
        """What the page's list of contents points to."""
        return self.title.lower().replace(" ", "-")


def plain_cells(texts: Sequence[str]) -> list[Cell]:
    """Return cells that hold nothing but a text."""
    return [Cell(text) for text in texts]
