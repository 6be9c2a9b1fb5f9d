"""What models say, shown while they say it: as one text, or side by side in columns."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from frozen_glyph.errors import printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from frozen_glyph.talk.speaking import Piece

KEPT = "\n\t"


def write(text: str) -> None:
    """Put ``text`` on standard output at once; a terminal gets nothing that commands it, a file what was written."""
    sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def shown(text: str) -> str:
    """``text`` with escapes in place of what would command a terminal; lines and tabs stay.

    >>> shown("a\\tb\\n\\x1b[2J")
    'a\\tb\\n\\\\x1b[2J'
    """
    return "".join(letter if letter in KEPT else printable(letter) for letter in text)


def coloured(piece: "Piece") -> "Text":
    """What was said in the colour of who speaks, where that is known."""
    from rich.text import Text

    if piece.heard is None:
        return Text(shown(piece.text))
    from frozen_glyph.evaluation.colours import terminal_text

    return terminal_text(piece.heard)


def draw(text: "Text", end: str = "\n") -> None:
    """Put a coloured text on the terminal at once."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False).print(text, end=end, soft_wrap=True)


class Stream:
    """One answer as a text that grows; a line ends it."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.spoken: Piece | None = None

    def __enter__(self) -> "Stream":
        return self

    def add(self, number: int, piece: "Piece") -> None:
        self.spoken = piece
        if piece.heard is None:
            write(piece.text)
        else:
            draw(coloured(piece), end="")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.spoken is None or kind is not None:
            return
        write("\n")
        if self.spoken.heard is not None:
            from frozen_glyph.evaluation.colours import terminal_legend

            draw(terminal_legend(self.spoken.heard))


class Columns:
    """Several answers side by side where there is a terminal, else one below the other, each behind its label."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.pieces: list[list[Piece]] = [[] for _ in labels]
        self.live: Live | None = None

    def __enter__(self) -> "Columns":
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(auto_refresh=False, vertical_overflow="visible")
            self.live.start()
        return self

    def add(self, number: int, piece: "Piece") -> None:
        self.pieces[number].append(piece)
        if self.live is not None:
            self.live.update(self.table(), refresh=True)

    def table(self) -> "Table":
        """All that was said so far."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, expand=True, padding=(0, 2, 0, 0))
        for label in self.labels:
            table.add_column(Text(label), ratio=1)
        table.add_row(*(Text.assemble(*map(coloured, pieces)) for pieces in self.pieces))
        return table

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
        elif any(self.pieces):
            for label, pieces in zip(self.labels, self.pieces, strict=True):
                write(f"{label}: {''.join(piece.text for piece in pieces)}\n")
