"""`frozen-glyph demo`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import LogFile, Out, Quiet, Verbose
from frozen_glyph.cli.terminal import quiet_transformers, say, start_log

app = typer.Typer()


@app.command(epilog="Example: `frozen-glyph demo --out runs/demo --seed 0`")
def demo(
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of corpus, initialisation and order.")] = 0,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Grow a Russian and a Chinese expert on a synthetic corpus, merge them, and report: minutes, no input needed."""
    from frozen_glyph.demo.run import run_demo
    from frozen_glyph.evaluation.report.verdict import verdict_in

    start_log(verbose, quiet, log_file)
    quiet_transformers()
    report = run_demo(out, seed=seed, progress=not quiet)
    for line in [*verdict_in(out), f"report: {report}"]:
        say(line)
    say("go on with its runs:")
    for command in next_commands(out):
        say(f"  {command}")


def next_commands(out: Path) -> list[str]:
    """What one can do with the runs of a demo in ``out``, and then with text of one's own."""
    ru, zh, merged = (shlex.quote(str(out / name)) for name in ("ru", "zh", "merged"))
    valid = shlex.quote(str(out / "data" / "ru.valid.txt"))
    return [
        f"frozen-glyph inspect {ru}",
        f"frozen-glyph merge {ru}@2 {zh} --rule posterior -o runs/posterior",
        f"frozen-glyph eval runs/posterior {merged} --suite text --text {valid} -o runs/compared",
        "frozen-glyph data sample data",
        "frozen-glyph grow tiny-trilingual/growth-ru --text data/ru.txt --valid data/ru.valid.txt --out runs/ru",
    ]
