"""`frozen-glyph recipes`, with `show` and `copy`, and `frozen-glyph schema`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.terminal import print_json, say, show

app = typer.Typer()
shipped = typer.Typer(help="Recipes that travel with the package: list them, show one, copy one to change it.")

Name = Annotated[str, typer.Argument(help="As `frozen-glyph recipes` lists it.")]


@shipped.callback(
    invoke_without_command=True,
    epilog="Example: `frozen-glyph recipes`, then `frozen-glyph grow tiny-trilingual/growth-ru --dry-run`",
)
def list_recipes(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    flops_per_second: Annotated[
        float, typer.Option(min=1, help="What the device sustains; the default is assumed of one large GPU.")
    ] = 2e14,
) -> None:
    """List every shipped recipe with size, memory and days of training."""
    if context.invoked_subcommand is not None:
        return
    from frozen_glyph.cli.tables import recipes_table
    from frozen_glyph.growth.estimate import estimate
    from frozen_glyph.growth.recipe import load_recipe
    from frozen_glyph.recipes.shipped import shipped_recipes

    costs = {name: estimate(load_recipe(path)) for name, path in shipped_recipes("growth").items()}
    others = {kind: list(shipped_recipes(kind)) for kind in ("merge", "substrate")}
    if as_json:
        print_json({"growth": costs, **others})
    else:
        show(recipes_table(costs, others, flops_per_second))


@shipped.command("show", epilog="Example: `frozen-glyph recipes show tiny-trilingual/growth-ru`")
def show_recipe(name: Name) -> None:
    """Print a shipped recipe as it is written."""
    from frozen_glyph.recipes.shipped import shipped_recipe

    typer.echo(shipped_recipe(name).read_text("utf-8"), nl=False)


@shipped.command("copy", epilog="Example: `frozen-glyph recipes copy tiny-trilingual/growth-ru mine`")
def copy_recipe(name: Name, folder: Annotated[Path, typer.Argument(help="Folder to write into.")]) -> None:
    """Copy a shipped recipe, with what it stands on, into a folder of yours, to be changed."""
    from frozen_glyph.checkpoint.places import check_place
    from frozen_glyph.recipes.shipped import copy_recipe

    check_place(folder)
    for path in copy_recipe(name, folder):
        say(str(path))


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
