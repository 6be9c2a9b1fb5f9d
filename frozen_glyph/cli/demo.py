"""`frozen-glyph demo`."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import Out
from frozen_glyph.cli.terminal import quiet_transformers, say

app = typer.Typer()


@app.command(epilog="Example: `frozen-glyph demo --out runs/demo --seed 0`")
def demo(
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of corpus, initialisation and order.")] = 0,
) -> None:
    """Grow a Russian and a Chinese expert on a synthetic corpus, merge them, and report: minutes, no input needed."""
    from frozen_glyph.demo.run import run_demo

    quiet_transformers()
    report = run_demo(out, seed=seed, progress=True)
    say(f"report: {report}")
