"""`frozen-glyph import-published`."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import Out
from frozen_glyph.cli.terminal import quiet_transformers, say

app = typer.Typer()


@app.command(
    "import-published",
    epilog="Example: `frozen-glyph import-published Bochkov/best_bvv_ru -o runs/best-bvv-ru`. "
    "Tensors with unknown names: `--keys keys.yaml`, see frozen_glyph/published/names.py.",
)
def import_published(
    source: Annotated[str, typer.Argument(help="A folder or Hub id with config.json and weights.")],
    out: Out,
    keys: Annotated[Path | None, typer.Option(help="YAML: names of tensors, fields of the configuration.")] = None,
    rotary: Annotated[
        str | None,
        typer.Option(help="Pairs that rotation turns: half (k, k + K/2; the default) or interleaved (2k, 2k + 1)."),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="File of the token table, for weights without one.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id, for a source without tokenizer.")] = None,
) -> None:
    """Convert a published checkpoint (Bochkov/*) into this package's classes, without running its code."""
    from frozen_glyph.published import importing
    from frozen_glyph.published.names import load_keys

    quiet_transformers()
    written = importing.import_published(source, out, load_keys(keys, rotary), table, tokenizer)
    say(f"imported: {written}")
