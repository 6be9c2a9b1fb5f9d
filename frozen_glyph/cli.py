"""The command line: parse, import lazily, call one library function, turn errors into one line.

Example: ``frozen-glyph demo --out runs/demo``
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

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
PushTo = Annotated[str | None, typer.Option("--push-to-hub", metavar="USER/NAME", help="Publish it afterwards.")]
Private = Annotated[bool, typer.Option("--private", help="Publish to a repository that others cannot see.")]


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
    "--valid ru.valid.txt --out runs/ru`. The same command resumes a run that was stopped.\n\n"
    "What would it cost? `frozen-glyph grow hub_configs/abs-bvv/growth.yaml --dry-run --flops-per-second 2e14`. "
    "Smaller: `--set training.batch_tokens=8192 --set stages.0.steps=100`."
)
def grow(
    recipe: Annotated[Path, typer.Argument(help="A growth.yaml.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="UTF-8 training text; repeat for several files. Not needed when the recipe names its data."),
    ] = None,
    valid: Annotated[list[Path] | None, typer.Option(help="Held-out text, scored after every stage.")] = None,
    substrate: Annotated[Path | None, typer.Option(help="Substrate folder to dock on.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeat for several."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, tokens, FLOPs and memory of each stage; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    flops_per_second: Annotated[
        float | None, typer.Option(min=1, help="With --dry-run: what the device sustains, to print days.")
    ] = None,
    push_to_hub: PushTo = None,
    private: Private = False,
) -> None:
    """Grow a model stage by stage: train new blocks on top of frozen ones."""
    if out is None and not dry_run:
        raise typer.BadParameter("give the folder to write, or --dry-run", param_hint="--out")

    from frozen_glyph.growth.recipe import load_recipe

    chosen = load_recipe(recipe, settings or [])
    if out is None or dry_run:
        return print_estimate(chosen, as_json, flops_per_second)

    from accelerate import PartialState

    from frozen_glyph.growth.run import grow_from_recipe

    quiet_transformers()
    check_target(push_to_hub)
    provenance = grow_from_recipe(chosen, out, text or [], valid or [], substrate, progress=True)
    for stage in provenance["stages"]:
        losses = "  ".join(f"{name} {loss:.4f}" for name, loss in stage["nats_per_character"].items())
        typer.echo(f"stage {stage['stage']}: {stage['num_hidden_layers']} blocks  nats per character: {losses or '-'}")
    if PartialState().is_main_process:
        publish(out, push_to_hub, private)


def print_estimate(recipe: Any, as_json: bool, flops_per_second: float | None) -> None:
    """Print what ``recipe`` costs, for people or as JSON."""
    import json

    from rich.console import Console

    from frozen_glyph.growth.estimate import estimate, estimate_table, totals

    phases = estimate(recipe)
    if as_json:
        typer.echo(json.dumps({"name": recipe.name, "phases": phases, "totals": totals(phases)}, indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(estimate_table(recipe.name, phases, flops_per_second))


@app.command(
    epilog="Example: `frozen-glyph merge runs/ru@2 runs/zh -o runs/merged --rule posterior`. An expert is "
    "SOURCE, SOURCE@STAGE or SOURCE@STAGE+ADAPTER: a folder or Hub id, its growth stage, a LoRA adapter on it.\n\n"
    "The same from a file: `frozen-glyph merge --config merge.yaml -o runs/merged --set rule=mean`."
)
def merge(
    experts: Annotated[
        list[str] | None, typer.Argument(metavar="EXPERT...", help="Checkpoints on one substrate: folders or Hub ids.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="mean (published, the default), weighted, probability, posterior or evidence."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Comma-separated weight of each expert; for every rule but mean.")
    ] = None,
    names: Annotated[str | None, typer.Option(help="Comma-separated name of each expert.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A merge.yaml with experts, rule, weights, names; options go before it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeat for several."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is shared and what it costs; write and fetch nothing large.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print that as JSON.")] = False,
    push_to_hub: PushTo = None,
    private: Private = False,
) -> None:
    """Merge experts into one checkpoint, without training and without loading a model."""
    if out is None and not dry_run:
        raise typer.BadParameter("give the folder to write, or --dry-run", param_hint="--out")
    if not experts and config is None:
        raise typer.BadParameter("give experts, or a merge.yaml with --config", param_hint="EXPERT...")

    import json

    from rich.console import Console

    from frozen_glyph.merge.plan import plan_merge
    from frozen_glyph.merge.recipe import load_merge_recipe
    from frozen_glyph.merge.report import merge_table
    from frozen_glyph.merge.write import write_merged

    recipe = load_merge_recipe(
        config,
        settings or [],
        experts=experts or None,
        rule=rule,
        weights=numbers("--weights", weights),
        names=names.split(",") if names else None,
    )
    plan = plan_merge(recipe, headers_only=dry_run)
    if out is not None and not dry_run:
        check_target(push_to_hub)
        write_merged(plan, out)
    if as_json:
        typer.echo(json.dumps(plan.report(), ensure_ascii=False, indent=2))
    else:
        Console(soft_wrap=True).print(merge_table(plan.report()))
        if not dry_run:
            typer.echo(f"merged: {out}")
    if out is not None and not dry_run:
        publish(out, push_to_hub, private)


@app.command(epilog="Example: `frozen-glyph extract runs/merged ru -o runs/ru-again`")
def extract(
    merged: Annotated[str, typer.Argument(help="A merged checkpoint: a folder or Hub id.")],
    name: Annotated[str, typer.Argument(help="The expert's name, as `inspect` lists it.")],
    out: Out,
) -> None:
    """Take an expert out of a merged checkpoint again, bit for bit."""
    from frozen_glyph.merge.extract import extract_expert

    typer.echo(f"extracted: {extract_expert(merged, name, out)}")


@app.command(epilog="Example: `frozen-glyph reweigh runs/merged --rule weighted --weights 0.7,0.3`")
def reweigh(
    merged: Annotated[Path, typer.Argument(help="A merged checkpoint folder.")],
    rule: Annotated[str | None, typer.Option(help="The new rule; default: it stays.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Comma-separated weight of each expert; default: they stay.")
    ] = None,
) -> None:
    """Change rule and weights of a merged checkpoint; its shards are not touched."""
    from frozen_glyph.merge.reweigh import reweigh_experts

    typer.echo(f"reweighed: {reweigh_experts(merged, rule, numbers('--weights', weights))}")


def numbers(option: str, text: str | None) -> list[float] | None:
    """Comma-separated numbers of an option."""
    from frozen_glyph.errors import FrozenGlyphError

    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise FrozenGlyphError(f"{option} {text!r} must be numbers separated by commas, such as 0.7,0.3") from None


@app.command(epilog="Example: `frozen-glyph push runs/ru USER/ru --private`. Again sends only what changed.")
def push(
    folder: Annotated[Path, typer.Argument(help="A checkpoint folder: grown, merged or dense.")],
    repo: Annotated[str, typer.Argument(help="Repository of the Hub, user/name; made if needed.")],
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="A branch of the repository; default: main.")] = None,
) -> None:
    """Publish a checkpoint on the Hub in one commit; nothing is seen of one that was interrupted."""
    from frozen_glyph.hub import push

    typer.echo(f"published: {push(folder, repo, private, revision)}")


def check_target(repo: str | None) -> None:
    """Refuse what cannot be published to before the work is done."""
    if repo is not None:
        from frozen_glyph.hub import check_target

        check_target(repo)


def publish(folder: Path, repo: str | None, private: bool) -> None:
    """Publish what a command wrote; when that fails the folder stays, and the error says how to go on."""
    from frozen_glyph.errors import FrozenGlyphError

    if repo is not None:
        from frozen_glyph.hub import push

        try:
            typer.echo(f"published: {push(folder, repo, private)}")
        except FrozenGlyphError as error:
            again = f"frozen-glyph push {folder} {repo}{' --private' if private else ''}"
            raise FrozenGlyphError(f"{error}. {str(folder)!r} is complete; publish it with `{again}`") from error


@app.command(
    "tune-head",
    epilog="Example: `frozen-glyph tune-head runs/merged --text mixture.txt --valid ru.valid.txt --valid zh.valid.txt "
    "-o runs/tuned --tokens 1000000`. The same command resumes a run that was stopped.",
)
def tune_head(
    merged: Annotated[str, typer.Argument(help="A merged checkpoint of rule mean or weighted: a folder or Hub id.")],
    out: Out,
    text: Annotated[
        list[Path] | None, typer.Option(help="UTF-8 training text, best a mixture; repeat for several files.")
    ] = None,
    valid: Annotated[
        list[Path] | None, typer.Option(help="Held-out text, scored under each expert, merged and tuned.")
    ] = None,
    what: Annotated[str | None, typer.Option(help="head (default), low-rank or scales (one per expert).")] = None,
    rank: Annotated[int | None, typer.Option(help="Of low-rank; default: 16.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens to train on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps instead; default: 1000.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; default: 2e-3.")] = None,
    config: Annotated[Path | None, typer.Option(help="A tune.yaml; options go before it.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeat for several."),
    ] = None,
) -> None:
    """Train the joint head of a merged model on a mixture; experts and substrate stay frozen."""
    from frozen_glyph.checkpoint.card import markdown_table
    from frozen_glyph.merge.tune import tune_head as tune
    from frozen_glyph.merge.tune_card import loss_rows
    from frozen_glyph.merge.tune_recipe import load_tune_recipe

    changes = [*(settings or []), *([f"training.learning_rate={learning_rate}"] if learning_rate is not None else [])]
    recipe = load_tune_recipe(config, changes, what=what, rank=rank, tokens=tokens, steps=steps)
    quiet_transformers()
    provenance = tune(merged, out, recipe, text or [], valid or [], progress=True)
    if rows := loss_rows(provenance["nats_per_character"]):
        typer.echo(markdown_table(rows))
    typer.echo(f"tuned: {out}")


@app.command("to-dense", epilog="Example: `frozen-glyph to-dense runs/ru -o runs/ru-dense`")
def to_dense(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder, grown or merged.")],
    out: Out,
    stage: Annotated[int | None, typer.Option(help="Growth stage to export; default: the deepest.")] = None,
    one_head: Annotated[
        bool, typer.Option("--one-head", help="Fold a merged model's heads into one (rules mean, weighted), for vLLM.")
    ] = False,
) -> None:
    """Write a checkpoint with an ordinary embedding table, for servers that know no other; the logits stay the same."""
    from frozen_glyph.checkpoint.dense import export_dense

    quiet_transformers()
    typer.echo(f"dense: {export_dense(model, out, stage, one_head)}")


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
    typer.echo(f"imported: {written}")


@app.command(
    epilog="Example: `frozen-glyph inspect runs/ru`, or a Hub id, whose shards are not downloaded.\n\n"
    "Do its layers learn? `frozen-glyph inspect --health runs/ru --text ru.valid.txt --picture health.png`"
)
def inspect(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, or a Hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything known, as JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its recorded hash.")] = False,
    health: Annotated[
        bool, typer.Option("--health", help="Measure instead whether every layer learns and mixes, on --text.")
    ] = False,
    text: Annotated[Path | None, typer.Option(help="With --health: a UTF-8 text to read.")] = None,
    stage: Annotated[int | None, typer.Option(help="With --health: growth stage; default: the deepest.")] = None,
    picture: Annotated[Path | None, typer.Option(help="With --health: PNG file to write.")] = None,
) -> None:
    """Show the stages or experts of a checkpoint: blocks, parameters, losses, sizes, provenance, state of its files."""
    import json

    from rich.console import Console

    if health:
        return inspect_health(source, text, stage, as_json, picture)

    from frozen_glyph.checkpoint.ladder import describe_checkpoint, ladder_table

    facts = describe_checkpoint(source, verify)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        Console(soft_wrap=True).print(ladder_table(facts))
    if facts["problems"]:
        sys.exit(1)


def inspect_health(source: str, text: Path | None, stage: int | None, as_json: bool, picture: Path | None) -> None:
    """Print the health of every block and Linear, for people or as JSON; exit code 1 if a block is flagged."""
    if text is None:
        raise typer.BadParameter("--health reads a text; name a UTF-8 file", param_hint="--text")
    import json

    from rich.console import Console

    from frozen_glyph.health.checkpoint import measure_health
    from frozen_glyph.health.report import draw_health, health_table

    quiet_transformers()
    report, name = measure_health(source, text, stage), Path(source).resolve().name
    if picture is not None:
        draw_health(name, report, picture)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(health_table(name, report))
    if report["collapsed"]:
        sys.exit(1)


@app.command(
    "eval",
    epilog="Example: `frozen-glyph eval runs/merged runs/ru runs/zh --data DIR -o runs/report`. "
    "The same command resumes one that was stopped.\n\n"
    "The papers' protocol: `frozen-glyph eval runs/ru --suite paper --paper-sampling --data DIR -o runs/paper`. "
    "Any text and no tasks: `frozen-glyph eval runs/ru --suite text --text book.txt -o runs/book`.",
)
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Folders or Hub ids, NAME@STAGE for a growth stage.")],
    out: Out,
    data: Annotated[
        str, typer.Option(help="Folder with text/, mmlu/, squad/, ...; or hub: fetch the datasets.")
    ] = "hub",
    suite: Annotated[str, typer.Option(help="quick, standard, paper (the papers' protocol) or text.")] = "quick",
    tasks: Annotated[str | None, typer.Option(help="lm-eval tasks in place of the suite's, with commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Items of each task (at random) and paragraphs of a text.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Held-out text; repeat for several. Default: text/*.valid.txt of the data."),
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="Rule to score merged models under; repeat for several. Default: its own.")
    ] = None,
    stages: Annotated[bool, typer.Option(help="Measure grown models after every stage, or only the last.")] = True,
    paper_sampling: Annotated[
        bool, typer.Option("--paper-sampling", help="Ten sampled runs of the papers' protocol beside the greedy one.")
    ] = False,
    contamination_text: Annotated[
        list[Path] | None, typer.Option(help="Training text to look for items of the tasks in; repeat for several.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at a time.")] = 16,
    device: Annotated[str | None, typer.Option(help="Such as cuda:1; default: cuda where there is one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap, item choice and sampling.")] = 0,
) -> None:
    """Score models on held-out text and lm-eval tasks, with chance levels and intervals; writes report.html."""
    from frozen_glyph.evaluation.evaluate import evaluate_models

    quiet_transformers()
    evaluate_models(
        models,
        data,
        out,
        suite=suite,
        tasks=[name for name in tasks.split(",") if name] if tasks is not None else None,
        limit=limit,
        texts=text or [],
        rules=rule or [],
        every_stage=stages,
        sampling=paper_sampling,
        training_texts=contamination_text or [],
        seed=seed,
        batch_size=batch_size,
        device=device,
        say=partial(typer.echo, err=True),
    )
    typer.echo(f"report: {out / 'report.html'}")


@app.command(
    epilog="Example: `frozen-glyph mirror DATA -o runs/mirror`, then `lm_eval` with runs/mirror as working folder."
)
def mirror(
    data: Annotated[Path, typer.Argument(help="Folder with mmlu/, squad/, arc/, ... as eval/tasks/README.md says.")],
    out: Out,
) -> None:
    """Write benchmark files in the shape of the Hub's datasets, so that lm-eval's own tasks run without a network."""
    from frozen_glyph.evaluation.tasks.mirror import write_mirror

    written = write_mirror(data, out)
    for remark in written.remarks:
        typer.echo(remark)
    typer.echo(f"mirror: {out}")


@substrate_app.command(
    "build",
    epilog="Example: `frozen-glyph substrate build --vocab 6144 --text en.txt --text ru.txt -o runs/glyphs`. Or: "
    "`frozen-glyph substrate build --tokenizer runs/glyphs --layout binary --width 1024 -o runs/codes`. Or: "
    "`frozen-glyph substrate build --config hub_configs/substrates/bvv241-2-3.yaml --text en.txt -o runs/bvv`",
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
    tokenizer: Annotated[
        str | None, typer.Option(help="Use this tokenizer (a folder or Hub id) instead of learning one.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Length of a token's vector, the model's hidden_size; default: 256.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="grid (default), published, binary, random or float.")] = None,
    bits: Annotated[int | None, typer.Option(help="Bits of a token; default: what suits layout and width.")] = None,
    pca: Annotated[bool | None, typer.Option("--pca", help="Rotate to principal components at full width too.")] = None,
    font: Annotated[str | None, typer.Option(help=".hex, .hex.gz, .otf or .ttf; default: GNU Unifont.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of these options; those given here go first.")] = None,
) -> None:
    """Give every token of a vocabulary its frozen vector: learn or load a tokenizer, draw its tokens."""
    from frozen_glyph.substrate.recipe import SubstrateRecipe, build_from_recipe, load_substrate_recipe

    options = {"vocab": vocab, "max_ngram": max_ngram, "tokenizer": tokenizer, "width": width, "layout": layout}
    options |= {"bits": bits, "pca": pca, "font": font}
    given = {name: value for name, value in options.items() if value is not None}
    fields = load_substrate_recipe(config) if config is not None else {}
    glyphs = build_from_recipe(SubstrateRecipe(**(fields | given)), text or [])
    glyphs.save_pretrained(out)
    met, left = (glyphs.provenance["collisions"][key] for key in ("groups", "remaining"))
    size = f"{glyphs.vocab_size} tokens x {glyphs.width}"
    typer.echo(f"{out}: {size}, {met} look-alike groups, {left} left; {glyphs.fingerprint}")


@substrate_app.command("inspect", epilog="Example: `frozen-glyph substrate inspect runs/glyphs`")
def substrate_inspect(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    collisions: Annotated[bool, typer.Option("--collisions", help="List every group of look-alikes instead.")] = False,
) -> None:
    """Print sizes, fingerprint, font, look-alikes and coverage by script, as JSON."""
    import json

    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import collision_groups, describe

    glyphs = GlyphSubstrate.from_pretrained(folder)
    found = [group._asdict() for group in collision_groups(glyphs)] if collisions else describe(glyphs)
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2))


@substrate_app.command("show", epilog="Example: `frozen-glyph substrate show runs/glyphs 'Москва 北京' -o tokens.png`")
def substrate_show(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    text: Annotated[str, typer.Argument(help="Text whose tokens to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")] = Path("tokens.png"),
) -> None:
    """Draw the tokens of a text as a labelled picture."""
    from frozen_glyph.checkpoint.files import write_atomically
    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import show

    picture = show(GlyphSubstrate.from_pretrained(folder), text)
    write_atomically(out, lambda temporary: picture.save(temporary, format="PNG"))
    typer.echo(f"picture: {out}")


@substrate_app.command("neighbors", epilog="Example: `frozen-glyph substrate neighbors runs/glyphs о`")
def substrate_neighbors(
    folder: Annotated[Path, typer.Argument(help="A substrate or checkpoint folder.")],
    token: Annotated[str, typer.Argument(help="The text of one token.")],
    count: Annotated[int, typer.Option(help="How many to list.")] = 10,
) -> None:
    """List the tokens whose vectors are nearest, by cosine."""
    from frozen_glyph.substrate import GlyphSubstrate
    from frozen_glyph.substrate.inspect import neighbors

    for token_id, text, cosine in neighbors(GlyphSubstrate.from_pretrained(folder), token, count):
        typer.echo(f"{cosine:.4f}  {token_id}  {text!r}")


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
            typer.echo(
                "stopped; `grow`, `tune-head`, `eval` and `demo` go on from the last save when called again", err=True
            )
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
