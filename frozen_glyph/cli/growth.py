"""`frozen-glyph grow`, and with `--dry-run` what it would cost."""

from pathlib import Path
from typing import Annotated, Any

import typer

from frozen_glyph.cli.hub import check_target, push_afterwards
from frozen_glyph.cli.options import (
    HeldOutText,
    LogFile,
    OutUnlessDry,
    Private,
    PushTo,
    Quiet,
    Settings,
    TrainingText,
    Verbose,
    only_with,
)
from frozen_glyph.cli.terminal import print_json, quiet_transformers, say, show, start_log

app = typer.Typer()


@app.command(
    epilog="Example: `frozen-glyph grow tiny-trilingual/growth-ru --text ru.txt "
    "--valid ru.valid.txt --out runs/ru`. The same command resumes a run that was stopped.\n\n"
    "What would it cost? `frozen-glyph grow abs-bvv/growth --dry-run --flops-per-second 2e14`. "
    "Smaller: `--set training.batch_tokens=8192 --set stages.0.steps=100`. How would it train on a small device? "
    "`--dry-run --memory 8GB`."
)
def grow(
    recipe: Annotated[Path, typer.Argument(help="A growth.yaml, or a name that `recipes` lists.")],
    out: OutUnlessDry = None,
    text: TrainingText = None,
    valid: HeldOutText = None,
    substrate: Annotated[Path | None, typer.Option(help="Substrate folder to dock on.")] = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, tokens, FLOPs and memory of each stage; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    flops_per_second: Annotated[
        float | None, typer.Option(min=1, help="With --dry-run: what the device sustains, to print days.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="With --dry-run: of the device, such as 8GB; prints how the same blocks could train in it."),
    ] = None,
    control: Annotated[
        bool,
        typer.Option("--control", help="Train the control in OUT-control: the same budget without any new blocks."),
    ] = False,
    push_to_hub: PushTo = None,
    private: Private = False,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Grow a model stage by stage: train new blocks on top of frozen ones. `watch`, or growth.html, shows it."""
    if out is None and not dry_run:
        raise typer.BadParameter("give the folder to write, or --dry-run", param_hint="--out")

    only_with("--dry-run", dry_run, memory=memory, json=as_json, flops_per_second=flops_per_second)
    only_with("--push-to-hub", push_to_hub is not None, private=private)

    from frozen_glyph.growth.recipe import load_recipe

    chosen = load_recipe(recipe, settings or [])
    if control:
        from frozen_glyph.checkpoint.contract import control_folder
        from frozen_glyph.growth.control import control_recipe

        chosen, out = control_recipe(chosen), None if out is None else control_folder(out)
    if memory is not None:
        return print_proposals(chosen, memory, as_json, flops_per_second)
    if out is None or dry_run:
        return print_estimate(chosen, as_json, flops_per_second)

    from accelerate import PartialState

    from frozen_glyph.growth.run import grow_from_recipe

    start_log(verbose, quiet, log_file)
    quiet_transformers()
    check_target(push_to_hub)
    provenance = grow_from_recipe(chosen, out, text or [], valid or [], substrate, progress=not quiet)
    for stage in provenance["stages"]:
        losses = "  ".join(f"{name} {loss:.4f}" for name, loss in stage["nats_per_character"].items())
        blocks = stage["num_hidden_layers"]
        named = f"{blocks} block{'s' if blocks > 1 else ''}"
        say(f"stage {stage['stage']}: {named}  nats per character: {losses or '-'}")
    if PartialState().is_main_process:
        push_afterwards(out, push_to_hub, private)


def print_estimate(recipe: Any, as_json: bool, flops_per_second: float | None) -> None:
    """Print what ``recipe`` costs, for people or as JSON."""
    from frozen_glyph.cli.tables import estimate_table
    from frozen_glyph.growth.estimate import estimate, totals

    phases = estimate(recipe)
    if as_json:
        print_json({"name": recipe.name, "phases": phases, "totals": totals(phases)})
    else:
        show(estimate_table(recipe.name, phases, flops_per_second))
        if any(stage.patience for stage in recipe.stages):
            say("steps, tokens, FLOPs: at most, a stage may end sooner by its patience")


def print_proposals(recipe: Any, memory: str, as_json: bool, flops_per_second: float | None) -> None:
    """Print how the blocks of ``recipe`` could train in ``memory``, for people or as JSON."""
    from frozen_glyph.cli.tables import proposals_table
    from frozen_glyph.growth.propose import memory_of, propose

    budget = memory_of(memory)
    found = propose(recipe, budget)
    if as_json:
        print_json({"name": recipe.name, "memory_bytes": budget, "proposals": found})
    else:
        show(proposals_table(recipe.name, budget, found, flops_per_second))
