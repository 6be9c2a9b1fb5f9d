"""One way of laying out tables: for the width there is, and no number cut."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from frozen_glyph.errors import printable

Cell = str | Text  # a str is plain text, whatever brackets it holds; a Text has a style
ANY_WIDTH = 1_000_000


class FittedTable:
    """Rows under headers. Where they are too wide, several tables below each other that repeat the first column.

    Only what is wider than the terminal beside the first column is broken into lines: long names, not numbers.

    Example: ``Console().print(FittedTable("runs/ru", ["stage", "parameters"], [["1", "4,096"]]))``

    Args:
        totals: one more row, set apart.
    """

    def __init__(
        self, title: str, headers: Sequence[str], rows: Sequence[Sequence[Cell]], totals: Sequence[Cell] = ()
    ) -> None:
        self.title, self.headers = plain(title), [plain(header) for header in headers]
        self.rows = [[plain(cell) for cell in row] for row in rows]
        self.totals = [plain(cell) for cell in totals]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        anywhere = options.update(max_width=ANY_WIDTH)

        def fits(columns: Sequence[int]) -> bool:
            return console.measure(self.table(columns), options=anywhere).maximum <= options.max_width

        tables: list[list[int]] = []
        for column in range(1, len(self.headers)):
            if tables and fits([*tables[-1], column]):
                tables[-1].append(column)
            else:
                tables.append([0, column])
        for number, columns in enumerate(tables):
            if number or self.title:
                yield "" if number else self.title
            yield self.table(columns)

    def table(self, columns: Sequence[int]) -> Table:
        """Some of the columns, whatever their width."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for column in columns:
            cells = [row[column].plain for row in self.rows]
            right = column > 0 and all(cell[:1] in "+-0123456789" for cell in cells)
            table.add_column(self.headers[column], justify="right" if right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(row[column] for column in columns))
        if self.totals:
            table.add_section()
            table.add_row(*(self.totals[column] for column in columns))
        return table


def plain(cell: Cell) -> Text:
    """``cell`` as text that no terminal takes for markup or a command."""
    return cell if isinstance(cell, Text) else Text(printable(cell))
