"""`frozen-glyph inspect`, `to-dense`, `to-gguf`: look at a checkpoint; write it for programs that know no glyphs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import ONE_HEAD_RULES, Out, only_with
from frozen_glyph.cli.terminal import print_json, quiet_transformers, say, show

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="A checkpoint, grown or merged: a folder or Hub id, or NAME@STAGE.")]


@app.command(
    epilog="Example: `frozen-glyph inspect runs/ru`, or a Hub id, whose shards are not downloaded.\n\n"
    "Do its layers learn? `frozen-glyph inspect runs/ru@2 --health --text ru.valid.txt --picture health.png`"
)
def inspect(
    source: Annotated[str, typer.Argument(help="A checkpoint folder or a Hub id, NAME@STAGE for a growth stage.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything known, as JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its recorded hash.")] = False,
    health: Annotated[
        bool, typer.Option("--health", help="Measure instead whether every layer learns and mixes, on --text.")
    ] = False,
    text: Annotated[Path | None, typer.Option(help="With --health: a UTF-8 text to read.")] = None,
    picture: Annotated[Path | None, typer.Option(help="With --health: PNG file to write.", dir_okay=False)] = None,
) -> None:
    """Show the stages or experts of a checkpoint: blocks, parameters, losses, sizes, provenance, state of its files."""
    only_with("--health", health, text=text, picture=picture)
    if health:
        return inspect_health(source, text, as_json, picture)

    from frozen_glyph.checkpoint.describe import describe_checkpoint
    from frozen_glyph.cli.tables import checkpoint_table

    facts = describe_checkpoint(source, verify)
    if as_json:
        print_json(facts)
    else:
        show(checkpoint_table(facts))
    if facts["problems"]:
        sys.exit(1)


def inspect_health(source: str, text: Path | None, as_json: bool, picture: Path | None) -> None:
    """Print the health of every block and Linear, for people or as JSON; exit code 1 if a block is flagged."""
    if text is None:
        raise typer.BadParameter("--health reads a text; name a UTF-8 file", param_hint="--text")
    from frozen_glyph.cli.tables import health_table
    from frozen_glyph.health.checkpoint import measure_health
    from frozen_glyph.health.report import draw_health

    quiet_transformers()
    report, name = measure_health(source, text), Path(source).resolve().name
    if picture is not None:
        draw_health(name, report, picture)
    if as_json:
        print_json(report)
    else:
        show(health_table(name, report))
    if report["collapsed"]:
        sys.exit(1)


@app.command(
    "to-dense",
    epilog="Example: `frozen-glyph to-dense runs/ru -o runs/ru-dense`\n\n"
    "For programs that know StarCoder2: `frozen-glyph to-dense runs/ru -o runs/ru-starcoder2 --starcoder2`",
)
def to_dense(
    model: Model,
    out: Out,
    one_head: Annotated[
        bool,
        typer.Option(
            "--one-head", help=f"Fold a merged model's heads into one (rules {', '.join(ONE_HEAD_RULES)}), for vLLM."
        ),
    ] = False,
    starcoder2: Annotated[
        bool,
        typer.Option("--starcoder2", help="Write a grown model as a StarCoder2, which needs no code of this package."),
    ] = False,
) -> None:
    """Write a checkpoint with an ordinary embedding table, for servers that know no other; the logits stay the same."""
    from frozen_glyph.export.dense import export_dense

    quiet_transformers()
    say(f"dense: {export_dense(model, out, one_head, starcoder2)}")


@app.command("to-gguf", epilog="Example: `frozen-glyph to-gguf runs/ru -o ru.gguf`, then `llama-cli -m ru.gguf`")
def to_gguf(model: Model, out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")]) -> None:
    """Write a grown model and its tokenizer as a file for llama.cpp and what is built on it."""
    from frozen_glyph.export.gguf import export_gguf

    quiet_transformers()
    say(f"gguf: {export_gguf(model, out)}")
