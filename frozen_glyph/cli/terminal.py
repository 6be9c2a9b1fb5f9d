"""What commands write to the terminal with: for people, for programs, and nothing besides."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frozen_glyph.errors import one_line, printable
from frozen_glyph.formats import finite

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 120  # of what is no terminal and has no COLUMNS


def open_console() -> "Console":
    """Standard output, as wide as COLUMNS or else the terminal."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else None if sys.stdout.isatty() else WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def show(parts: "Sequence[RenderableType]") -> None:
    """Print lines and tables on standard output."""
    console = open_console()
    for part in parts:
        console.print(printable(part) if isinstance(part, str) else part, soft_wrap=True)


def fail(text: str) -> None:
    """Say in one line why a command ends, and in its log file."""
    logging.getLogger("frozen_glyph").error("%s", text)


def say(text: str, err: bool = False) -> None:
    """Print a line on standard output, or on standard error."""
    typer.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Print ``value`` on standard output as JSON; what is no finite number is null."""
    text = json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo(
        "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)
    )


class LineFormatter(logging.Formatter):
    """One printable line of a record; in a file with time and level, on a terminal with the level of what is amiss."""

    def __init__(self, in_file: bool) -> None:
        super().__init__()
        self.in_file = in_file

    def format(self, record: logging.LogRecord) -> str:
        text, level = one_line(record.getMessage()), record.levelname.lower()
        if self.in_file:
            return f"{self.formatTime(record)} {level} {text}"
        return f"{level}: {text}" if record.levelno >= logging.WARNING else text


def start_log(verbose: bool = False, quiet: bool = False, log_file: Path | None = None) -> None:
    """Show the package's log and all warnings, each as one line on standard error, and append it to ``log_file``.

    Lines of progress are shown where there is no terminal, which has bars, or with ``verbose``; with ``quiet`` only
    errors.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    progress = verbose or not sys.stderr.isatty()
    handlers[0].setLevel(logging.ERROR if quiet else logging.INFO if progress else logging.WARNING)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    logger = logging.getLogger("frozen_glyph")
    for handler in [one for one in logger.handlers if isinstance(one.formatter, LineFormatter)]:
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        handler.setFormatter(LineFormatter(isinstance(handler, logging.FileHandler)))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *_: logger.warning("%s", message)


def quiet_transformers() -> None:
    """Leave the terminal to our own progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
