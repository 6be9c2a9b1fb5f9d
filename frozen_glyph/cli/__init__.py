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
from frozen_glyph.cli.terminal import fail, start_log
from frozen_glyph.errors import lacking_memory

# Libraries whose errors are no ValueError; of Rust even a panic, which is no Exception.
FOREIGN = {"huggingface_hub", "pyarrow", "pydantic_core", "pyo3_runtime", "safetensors", "sqlite3", "tokenizers"}

LESS_MEMORY = "a smaller --batch-size, a shorter context or text, a model in bfloat16 or another --device needs less"

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
        app()
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C, as typer reports it
            resumed = [word for word in sys.argv[1:2] if word in RESUMED]
            again = "".join(f"; `{word}` goes on from the last save when called again" for word in resumed)
            typer.echo(f"stopped{again}", err=True)
        raise
    except ModuleNotFoundError as error:
        fail(f'{error}; install what the command needs with pip install "frozen-glyph[all]"')
        sys.exit(1)
    except BaseException as error:
        if os.environ.get("FROZEN_GLYPH_DEBUG") or not is_told(error):
            raise
        said = lacking_memory(error)
        said = str(error) or type(error).__name__ if said is None else f"out of memory ({said}); {LESS_MEMORY}"
        fail(" ".join(said.split()))
        sys.exit(1)


def is_told(error: BaseException) -> bool:
    """Whether an error is told in one line: what the user can mend, what a library says of its input, no memory left.

    Anything else is a fault of this package, and shows where it happened.
    """
    library = type(error).__module__.partition(".")[0]
    told = isinstance(error, ValueError | OSError | RecursionError) or library in FOREIGN
    return told or lacking_memory(error) is not None
