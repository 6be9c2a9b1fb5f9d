"""`frozen-glyph substrate build`, `inspect`, `show` and `neighbors`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from frozen_glyph.cli.options import Out
from frozen_glyph.cli.terminal import print_json, say

app = typer.Typer(no_args_is_help=True, help="Build and look at substrates: tokenizer plus glyph vectors.")


@app.command(
    "build",
    epilog="Example: `frozen-glyph substrate build --vocab 6144 --text en.txt --text ru.txt -o runs/glyphs`. Or: "
    "`frozen-glyph substrate build --tokenizer runs/glyphs --layout binary --width 1024 -o runs/codes`. Or: "
    "`frozen-glyph substrate build --config substrates/bvv241-2-3 --text en.txt -o runs/bvv`",
)
def substrate_build(
    out: Out,
    text: Annotated[
        list[Path] | None, typer.Option(help="UTF-8 text to learn the vocabulary from; repeat for several.")
    ] = None,
    vocab: Annotated[
        str | None, typer.Option(help="bmp (65,536 ids), wide (131,072), compact (4,096, the default) or a number.")
    ] = None,
    max_ngram: Annotated[int | None, typer.Option(help="Most code points of an n-gram; default: 4 or 16.")] = None,
    reserved: Annotated[
        int | None, typer.Option(help="Ids for chat marks and names to come; default: 64 from 1,025 ids on, else none.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Use this tokenizer (a folder or Hub id) instead of learning one.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Length of a token's vector, the model's hidden_size; default: 256.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="grid (default), published, binary, random or float.")] = None,
    bits: Annotated[int | None, typer.Option(help="Bits of a token; default: what suits layout and width.")] = None,
    pca: Annotated[bool | None, typer.Option("--pca", help="Rotate to principal components at full width too.")] = None,
    whiten: Annotated[
        str | None,
        typer.Option(help="full (default of grid), partial or none: let all directions of the pictures count alike."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Length of a vector; default: sqrt(width) / 4, or 1.")] = None,
    font: Annotated[str | None, typer.Option(help=".hex, .hex.gz, .otf or .ttf; default: GNU Unifont.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of these options, or a name that `recipes` lists; options go before it."),
    ] = None,
) -> None:
    """Give every token of a vocabulary its frozen vector: learn or load a tokenizer, draw its tokens."""
    from frozen_glyph.checkpoint.places import writing
    from frozen_glyph.substrate.drawn import build_from_recipe
    from frozen_glyph.substrate.recipe import load_substrate_recipe

    options: dict[str, Any] = {"vocab_size": vocab, "max_ngram": max_ngram, "tokenizer": tokenizer, "width": width}
    options |= {"layout": layout, "bits": bits, "pca": pca, "whiten": whiten, "scale": scale, "font": font}
    options |= {"reserved": reserved}
    with writing(out):
        glyphs = build_from_recipe(load_substrate_recipe(config, **options), text or [])
        glyphs.save_pretrained(out)
    met, left = (glyphs.provenance["collisions"][key] for key in ("groups", "remaining"))
    size = f"{glyphs.vocab_size} tokens x {glyphs.width}"
    say(f"{out}: {size}, {met} look-alike groups, {left} left; {glyphs.fingerprint}")


@app.command("inspect", epilog="Example: `frozen-glyph substrate inspect runs/glyphs`")
def substrate_inspect(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    collisions: Annotated[bool, typer.Option("--collisions", help="List every group of look-alikes instead.")] = False,
) -> None:
    """Print sizes, fingerprint, font, look-alikes and coverage by script, as JSON."""
    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import collision_groups, describe

    glyphs = GlyphSubstrate.from_pretrained(folder)
    found = [group._asdict() for group in collision_groups(glyphs)] if collisions else describe(glyphs)
    print_json(found)


@app.command(
    "name",
    epilog="Example: `frozen-glyph substrate name runs/ru '<|observation|>' '<|plan|>'=6140`",
)
def substrate_name(
    folder: Annotated[Path, typer.Argument(help="A folder with a tokenizer: a substrate or checkpoint, any stage.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME[=ID]", help="Names, each for the next reserved id or for ID.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Chat marks and chat template for a vocabulary that has none.")
    ] = False,
) -> None:
    """Give reserved token ids their names, in place; vectors and identity stay as they are."""
    from frozen_glyph.substrate.naming import name_tokens, parse_name

    for name, token_id in name_tokens(folder, dict(map(parse_name, names or [])), chat).items():
        say(f"{token_id}  {name}")


@app.command("show", epilog="Example: `frozen-glyph substrate show runs/glyphs 'Москва 北京' -o tokens.png`")
def substrate_show(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    text: Annotated[str, typer.Argument(help="Text whose tokens to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.", dir_okay=False)] = Path("tokens.png"),
) -> None:
    """Draw the tokens of a text as a labelled picture."""
    from frozen_glyph.checkpoint.files import write_atomically
    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import show

    picture = show(GlyphSubstrate.from_pretrained(folder), text)
    write_atomically(out, lambda temporary: picture.save(temporary, format="PNG"))
    say(f"picture: {out}")


@app.command("neighbors", epilog="Example: `frozen-glyph substrate neighbors runs/glyphs о`")
def substrate_neighbors(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    token: Annotated[str, typer.Argument(help="The text of one token.")],
    count: Annotated[int, typer.Option(help="How many to list.")] = 10,
) -> None:
    """List the tokens whose vectors are nearest, by cosine."""
    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import neighbors

    for token_id, text, cosine in neighbors(GlyphSubstrate.from_pretrained(folder), token, count):
        say(f"{cosine:.4f}  {token_id}  {text!r}")
