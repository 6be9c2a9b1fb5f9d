"""What commands write to the terminal with: for people, for programs, and nothing besides."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from frozen_glyph.errors import printable
from frozen_glyph.formats import finite

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 120  # of what is no terminal and has no COLUMNS


def show(parts: "Sequence[RenderableType]") -> None:
    """Print lines and tables on standard output, as wide as COLUMNS or else the terminal."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    for part in parts:
        console.print(printable(part) if isinstance(part, str) else part, soft_wrap=True)


def say(text: str, err: bool = False) -> None:
    """Print a line on standard output, or on standard error."""
    typer.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Print ``value`` on standard output as JSON; what is no finite number is null."""
    text = json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo(
        "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)
    )


def quiet_transformers() -> None:
    """Leave the terminal to our own progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
