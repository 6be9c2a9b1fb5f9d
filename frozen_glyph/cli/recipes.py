"""`frozen-glyph schema`."""

from enum import StrEnum
from typing import Annotated

import typer

from frozen_glyph.cli.terminal import print_json

app = typer.Typer()


class Kind(StrEnum):
    """Recipes, as their files are called."""

    growth = "growth"
    merge = "merge"
    tune = "tune"
    substrate = "substrate"


@app.command(
    epilog="Example: `frozen-glyph schema growth`, for an editor. Every field, to read: "
    "`frozen-glyph schema --markdown`"
)
def schema(
    kind: Annotated[Kind | None, typer.Argument(help="The recipe; with --markdown all by default.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A reference of all fields instead.")] = False,
) -> None:
    """Print the JSON schema of a recipe, by which editors complete and check."""
    if kind is None and not markdown:
        raise typer.BadParameter("name a recipe, or give --markdown", param_hint="KIND")

    from frozen_glyph.growth.recipe import GrowthRecipe
    from frozen_glyph.merge.recipe import MergeRecipe
    from frozen_glyph.merge.tune_recipe import TuneRecipe
    from frozen_glyph.recipes.schema import json_schema, reference
    from frozen_glyph.substrate.recipe import SubstrateRecipe

    classes = dict(zip(Kind, (GrowthRecipe, MergeRecipe, TuneRecipe, SubstrateRecipe), strict=True))
    schemas = {name: json_schema(made) for name, made in classes.items() if kind in (None, name)}
    if markdown:
        typer.echo(reference({f"{name}.yaml": found for name, found in schemas.items()}), nl=False)
    elif kind is not None:
        print_json(schemas[kind])
