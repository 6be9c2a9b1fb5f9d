"""The command line: parse, import lazily, call one library function, turn errors into one line.

Example: ``frozen-glyph demo --out runs/demo``
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="frozen-glyph",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Language models over a frozen embedding of glyph pictures: **grow** them layer by layer, **merge** experts "
    "without training, **eval**uate what came out.\n\nStart with: `frozen-glyph demo`",
)
substrate_app = typer.Typer(no_args_is_help=True, help="Build and look at substrates: tokenizer plus glyph vectors.")
app.add_typer(substrate_app, name="substrate")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]


@app.command(epilog="Example: `frozen-glyph demo --out runs/demo --seed 0`")
def demo(
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of corpus, initialisation and order.")] = 0,
) -> None:
    """Grow a Russian and a Chinese expert on a synthetic corpus, merge them, and report: minutes, no input needed."""
    from frozen_glyph.demo.run import run_demo

    quiet_transformers()
    report = run_demo(out, seed=seed, progress=True)
    typer.echo(f"report: {report}")


@app.command(
    epilog="Example: `frozen-glyph grow hub_configs/tiny-trilingual/growth-ru.yaml --text ru.txt "
    "--valid ru.valid.txt --out runs/ru`. The same command resumes a run that was stopped."
)
def grow(
    recipe: Annotated[Path, typer.Argument(help="A growth.yaml.")],
    text: Annotated[list[Path], typer.Option(help="UTF-8 training text; repeat for several files.")],
    out: Out,
    valid: Annotated[list[Path] | None, typer.Option(help="Held-out text, scored after every stage.")] = None,
    substrate: Annotated[Path | None, typer.Option(help="Substrate folder to dock on.")] = None,
) -> None:
    """Grow a model stage by stage: train new blocks on top of frozen ones."""
    from frozen_glyph.growth.recipe import load_recipe
    from frozen_glyph.growth.run import grow_from_recipe

    quiet_transformers()
    provenance = grow_from_recipe(load_recipe(recipe), text, out, valid or [], substrate, progress=True)
    for stage in provenance["stages"]:
        losses = "  ".join(f"{name} {loss:.4f}" for name, loss in stage["nats_per_character"].items())
        typer.echo(f"stage {stage['stage']}: {stage['num_hidden_layers']} blocks  nats per character: {losses or '-'}")


@app.command(epilog="Example: `frozen-glyph merge runs/ru runs/zh -o runs/merged --rule posterior`")
def merge(
    experts: Annotated[list[Path], typer.Argument(help="Two or more grown checkpoints on one substrate.")],
    out: Out,
    rule: Annotated[str, typer.Option(help="mean (published: averages logits) or posterior.")] = "mean",
    weights: Annotated[str | None, typer.Option(help="Comma-separated weight of each expert.")] = None,
) -> None:
    """Merge experts into one checkpoint, without training."""
    from frozen_glyph.errors import FrozenGlyphError
    from frozen_glyph.merge.write import merge_experts

    try:
        numbers = [float(part) for part in weights.split(",")] if weights else None
    except ValueError:
        raise FrozenGlyphError(f"--weights {weights!r} must be numbers separated by commas, such as 0.7,0.3") from None
    typer.echo(f"merged: {merge_experts(experts, out, rule, numbers)}")


@app.command("eval", epilog="Example: `frozen-glyph eval runs/merged runs/ru runs/zh --data DIR -o runs/report`")
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints; the first is compared with each of the others.")],
    data: Annotated[Path, typer.Option(help="Folder with text/, mmlu/, squad/, arc/, commonsense_qa/, boolq/.")],
    out: Out,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated lm-eval tasks; default: all of eval/tasks.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Items per task, the same for every model.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap and item choice.")] = 0,
) -> None:
    """Score models on held-out text and benchmarks, with chance levels and intervals; writes report.html."""
    from frozen_glyph.evaluation.evaluate import evaluate_models

    evaluate_models(models, data, out, tasks=tasks.split(",") if tasks else None, limit=limit, seed=seed)
    typer.echo(f"report: {out / 'report.html'}")


@substrate_app.command(
    "build", epilog="Example: `frozen-glyph substrate build --text en.txt --text ru.txt -o runs/glyphs`"
)
def substrate_build(
    text: Annotated[list[Path], typer.Option(help="UTF-8 text to learn the vocabulary from; repeat for several.")],
    out: Out,
    vocab_size: Annotated[int, typer.Option(help="Ids to fill.")] = 4096,
    width: Annotated[int, typer.Option(help="Length of a token's vector: the model's hidden_size.")] = 256,
) -> None:
    """Learn a compact tokenizer and draw each of its tokens."""
    from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
    from frozen_glyph.text.documents import read_text

    tokenizer = build_tokenizer([read_text(path) for path in text], vocab_size)
    glyphs = GlyphSubstrate.build(tokenizer, width)
    glyphs.save_pretrained(out)
    met = glyphs.provenance["collisions"]["groups"]
    typer.echo(f"{out}: {len(tokenizer)} tokens x {width}, {met} look-alike groups separated, {glyphs.fingerprint}")


def quiet_transformers() -> None:
    """Leave the terminal to our own progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def main() -> None:
    """Entry point of ``frozen-glyph``: exit code 0, 1 for an error the user can mend, 2 for wrong usage."""
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C, as typer reports it
            typer.echo("stopped; `grow` and `demo` go on from the last save when called again", err=True)
        raise
    except ModuleNotFoundError as error:
        typer.echo(f'error: {error}; install what the command needs with pip install "frozen-glyph[all]"', err=True)
        sys.exit(1)
    except (ValueError, OSError) as error:
        if os.environ.get("FROZEN_GLYPH_DEBUG"):
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
