"""`frozen-glyph watch`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frozen_glyph.cli.terminal import open_console, show

if TYPE_CHECKING:
    from frozen_glyph.cli.tables import Parts

app = typer.Typer()
AT_REST = 600  # seconds without a new line of metrics after which a run may be taken for stopped


@app.command(epilog="Example: `frozen-glyph watch runs/ru`, in another terminal than the one that grows it")
def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a growth run.")],
    once: Annotated[bool, typer.Option("--once", help="Show it once, as where there is no terminal.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, help="How often to look.")] = 2.0,
) -> None:
    """Follow a growth run that trains: stages, losses, time left; it reads its folder and touches nothing."""
    console = open_console()
    if once or not console.is_terminal:
        return show(course(folder)[0])

    from rich.console import Group
    from rich.live import Live

    parts, complete = course(folder)
    with Live(Group(*parts), console=console, auto_refresh=False) as view:
        while not complete:
            time.sleep(seconds)
            parts, complete = course(folder)
            view.update(Group(*parts), refresh=True)


def course(folder: Path) -> "tuple[Parts, bool]":
    """How far the run in ``folder`` is, for a terminal, and whether it is complete."""
    from frozen_glyph.cli.layout import FittedTable
    from frozen_glyph.growth.history import progress_line, progress_of, read_phases, read_run, stage_points

    run = read_run(folder)
    phases = read_phases(folder, run)
    stages, progress = stage_points(run, phases), progress_of(run, phases)
    texts = list(dict.fromkeys(text for stage in stages for text in stage["losses"]))
    rows = [
        [
            *(str(stage["stage"]), str(stage["blocks"]), f"{stage['tokens']:,}"),
            *(f"{stage['losses'][text]:.4f}" if text in stage["losses"] else "-" for text in texts),
        ]
        for stage in stages
    ]
    parts: Parts = [FittedTable(run["recipe"]["name"], ["stage", "blocks", "tokens", *texts], rows)] if rows else []
    complete = progress["steps"] >= progress["planned"] and len(phases) > 0
    age = time.time() - max((path.stat().st_mtime for path in folder.glob("metrics-*.jsonl")), default=time.time())
    parts.append("complete" if complete else progress_line(progress))
    if not complete and age > AT_REST:
        parts.append(f"nothing new for {age / 60:.0f} min; the command that grows it goes on where it was stopped")
    flagged = [
        f"stage {stage['stage']}: {block['name']} {'; '.join(block['flags'])}"
        for stage in run["stages"]
        for block in (stage.get("health") or {"blocks": []})["blocks"]
        if block["flags"]
    ]
    return [*parts, *flagged], complete
