"""`frozen-glyph merge`, `extract`, `reweigh` and `tune-head`."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.hub import check_target, push_afterwards
from frozen_glyph.cli.options import (
    ONE_HEAD_RULES,
    ActiveExperts,
    HeldOutText,
    LogFile,
    Out,
    OutUnlessDry,
    Private,
    PushTo,
    Quiet,
    Settings,
    TrainingText,
    Verbose,
    only_with,
    rule_names,
)
from frozen_glyph.cli.terminal import print_json, quiet_transformers, say, show, start_log
from frozen_glyph.model.rules_frozen_glyph import DEFAULT_RULE, RULES, rules_with

RULE_NAMES = [f"{name} (published, the default)" if name == DEFAULT_RULE else name for name in RULES]
WEIGHTLESS = rules_with(weights="none")

app = typer.Typer()


@app.command(
    epilog="Example: `frozen-glyph merge runs/ru@2 runs/zh -o runs/merged --rule posterior`. An expert is "
    "SOURCE, SOURCE@STAGE or SOURCE@STAGE+ADAPTER: a folder or Hub id, its growth stage, a LoRA adapter on it.\n\n"
    "The same from a file: `frozen-glyph merge --config merge.yaml -o runs/merged --set rule=mean`."
)
def merge(
    experts: Annotated[
        list[str] | None, typer.Argument(metavar="EXPERT...", help="Checkpoints on one substrate: folders or Hub ids.")
    ] = None,
    out: OutUnlessDry = None,
    rule: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(RULE_NAMES[:-1])} or {RULE_NAMES[-1]}.", autocompletion=rule_names),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated weight of each expert; for every rule but {' and '.join(WEIGHTLESS)}."),
    ] = None,
    active_experts: ActiveExperts = None,
    names: Annotated[str | None, typer.Option(help="Comma-separated name of each expert.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Convert all numbers: float32, bfloat16 or float16; default: bits stay.")
    ] = None,
    companions: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose chat template and generation config go along; default: the first's."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A merge.yaml, or a name that `recipes` lists, with experts, rule, ...; options go before it."
        ),
    ] = None,
    settings: Settings = None,
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
    only_with("--push-to-hub", push_to_hub is not None, private=private)

    from frozen_glyph.cli.tables import merge_table
    from frozen_glyph.merge.plan import plan_merge
    from frozen_glyph.merge.recipe import load_merge_recipe
    from frozen_glyph.merge.write import write_merged

    recipe = load_merge_recipe(
        config,
        settings or [],
        experts=experts or None,
        rule=rule,
        weights=numbers("--weights", weights),
        active_experts=active_experts,
        names=names.split(",") if names else None,
        dtype=dtype,
        companions=companions,
    )
    plan = plan_merge(recipe, headers_only=dry_run)
    if out is not None and not dry_run:
        check_target(push_to_hub)
        write_merged(plan, out)
    if as_json:
        print_json(plan.report())
    else:
        show(merge_table(plan.report()))
        for file, others in plan.report()["differing"].items():
            kept, differ = plan.companions.name, ", ".join(others)
            say(f"{file}: that of {kept} goes along, not that of {differ}; choose with --companions NAME")
        if not dry_run:
            say(f"merged: {out}")
    if out is not None and not dry_run:
        push_afterwards(out, push_to_hub, private)


@app.command(epilog="Example: `frozen-glyph extract runs/merged ru -o runs/ru-again`")
def extract(
    merged: Annotated[str, typer.Argument(help="A merged checkpoint: a folder or Hub id.")],
    name: Annotated[str, typer.Argument(help="The expert's name, as `inspect` lists it.")],
    out: Out,
) -> None:
    """Take an expert out of a merged checkpoint again, bit for bit."""
    from frozen_glyph.merge.extract import extract_expert

    say(f"extracted: {extract_expert(merged, name, out)}")


@app.command(epilog="Example: `frozen-glyph reweigh runs/merged --rule weighted --weights 0.7,0.3`")
def reweigh(
    merged: Annotated[Path, typer.Argument(help="A merged checkpoint folder.")],
    rule: Annotated[
        str | None, typer.Option(help="The new rule; default: it stays.", autocompletion=rule_names)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Comma-separated weight of each expert; default: they stay.")
    ] = None,
) -> None:
    """Change rule and weights of a merged checkpoint; its shards are not touched."""
    from frozen_glyph.merge.reweigh import reweigh_experts

    say(f"reweighed: {reweigh_experts(merged, rule, numbers('--weights', weights))}")


@app.command(
    "tune-head",
    epilog="Example: `frozen-glyph tune-head runs/merged --text mixture.txt --valid ru.valid.txt --valid zh.valid.txt "
    "-o runs/tuned --tokens 1000000`. The same command resumes a run that was stopped.",
)
def tune_head(
    merged: Annotated[
        str,
        typer.Argument(help=f"A merged checkpoint of rule {' or '.join(ONE_HEAD_RULES)}: a folder or Hub id."),
    ],
    out: Out,
    text: TrainingText = None,
    valid: HeldOutText = None,
    what: Annotated[str | None, typer.Option(help="head (default), low-rank or scales (one per expert).")] = None,
    rank: Annotated[int | None, typer.Option(help="Of low-rank; default: 16.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens to train on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps instead; default: 1000.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; default: 2e-3.")] = None,
    config: Annotated[Path | None, typer.Option(help="A tune.yaml; options go before it.")] = None,
    settings: Settings = None,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train the joint head of a merged model, best on a mixture; experts and substrate stay frozen."""
    from frozen_glyph.cli.tables import loss_table
    from frozen_glyph.merge.tune import tune_head as tune
    from frozen_glyph.merge.tune_recipe import load_tune_recipe

    changes = [*(settings or []), *([f"training.learning_rate={learning_rate}"] if learning_rate is not None else [])]
    recipe = load_tune_recipe(config, changes, what=what, rank=rank, tokens=tokens, steps=steps)
    start_log(verbose, quiet, log_file)
    quiet_transformers()
    provenance = tune(merged, out, recipe, text or [], valid or [], progress=not quiet)
    show(loss_table(provenance["nats_per_character"]))
    say(f"tuned: {out}")


def numbers(option: str, text: str | None) -> list[float] | None:
    """Comma-separated numbers of an option."""
    from frozen_glyph.errors import FrozenGlyphError

    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise FrozenGlyphError(f"{option} {text!r} must be numbers separated by commas, such as 0.7,0.3") from None
