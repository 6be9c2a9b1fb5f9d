"""The command line, a file for each room: parse, import lazily, call one library function; errors become one line.

Example: ``frozen-glyph demo --out runs/demo``
"""

import os
import sys
from typing import Annotated

import typer

import frozen_glyph
from frozen_glyph.cli import (
    checkpoint,
    data,
    demo,
    evaluation,
    growth,
    hub,
    merge,
    published,
    recipes,
    substrate,
    talk,
    watch,
)
from frozen_glyph.cli.failures import told
from frozen_glyph.cli.terminal import fail, start_log

RESUMED = ("grow", "tune-head", "eval", "demo")  # the same command goes on where it was stopped

app = typer.Typer(
    name="frozen-glyph",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Language models over a frozen embedding of glyph pictures: **grow** them layer by layer, **merge** experts "
    "without training, **eval**uate what came out.\n\nStart with: `frozen-glyph demo`",
)
for room in (demo, growth, watch, merge, talk, evaluation, checkpoint, hub, published, recipes):
    app.add_typer(room.app)
app.add_typer(substrate.app, name="substrate")
app.add_typer(recipes.shipped, name="recipes")
app.add_typer(data.app, name="data")


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frozen-glyph {frozen_glyph.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What can be said before a command."""


def main() -> None:
    """Entry point of ``frozen-glyph``: exit code 0, 1 for an error the user can mend, 2 for wrong usage."""
    start_log()
    try:
        code = app(prog_name="frozen-glyph", standalone_mode=False) or 0
    except SystemExit:
        raise
    except BaseException as error:
        code = failed(error)
    if code == 130:  # Ctrl-C, as typer reports it
        resumed = [word for word in sys.argv[1:2] if word in RESUMED]
        again = "".join(f"; `{word}` goes on from the last save when called again" for word in resumed)
        typer.echo(f"stopped{again}", err=True)
    sys.exit(code)


def failed(error: BaseException) -> int:
    """Say in one line why a command ended; its exit code. A fault of this package is raised again."""
    if type(error).__name__ == "NoArgsIsHelpError":  # which has shown the help instead
        return 2
    said = told(error)
    if said is None or os.environ.get("FROZEN_GLYPH_DEBUG"):
        raise error
    fail(" ".join(said.split()))
    return getattr(error, "exit_code", 1)
