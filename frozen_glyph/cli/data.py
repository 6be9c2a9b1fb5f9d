"""`frozen-glyph data sample`."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.terminal import say

app = typer.Typer(no_args_is_help=True, help="Text to grow on, for whoever has none at hand.")


@app.callback()
def group() -> None:
    """Keeps `sample` a command of its own."""


@app.command(epilog="Example: `frozen-glyph data sample data`. Without a network: `--synthetic`.")
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")],
    language: Annotated[
        list[str] | None, typer.Option(help="Wikipedia's code of a language; repeat for several. Default: en, ru, zh.")
    ] = None,
    megabytes: Annotated[float, typer.Option(min=0.1, help="Of training text in each language, at most.")] = 6.0,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Write the demo's synthetic text, without a network.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of synthetic text.")] = 0,
) -> None:
    """Write LANGUAGE.txt and LANGUAGE.valid.txt: articles of Wikipedia, fetched from the Hub, or synthetic text."""
    from frozen_glyph.cli.tables import size
    from frozen_glyph.demo.sample import LANGUAGES, write_sample

    for path in write_sample(folder, language or LANGUAGES, megabytes, synthetic, seed):
        say(f"{path}  {size(path.stat().st_size)}")
