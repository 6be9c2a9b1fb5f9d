"""`frozen-glyph eval`, `show-experts` and `mirror`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import Out, rule_names
from frozen_glyph.cli.terminal import quiet_transformers, say, show

app = typer.Typer()


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
    include: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="lm-eval tasks of your own; repeat for several.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Items of each task (at random) and paragraphs of a text.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Held-out text; repeat for several. Default: text/*.valid.txt of the data."),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="Rule to score merged models under; repeat for several. Default: its own.", autocompletion=rule_names
        ),
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
    from frozen_glyph.evaluation.report.verdict import verdict_in

    quiet_transformers()
    evaluate_models(
        models,
        data,
        out,
        suite=suite,
        tasks=[name for name in tasks.split(",") if name] if tasks is not None else None,
        task_folders=include or [],
        limit=limit,
        texts=text or [],
        rules=rule or [],
        every_stage=stages,
        sampling=paper_sampling,
        training_texts=contamination_text or [],
        seed=seed,
        batch_size=batch_size,
        device=device,
        say=partial(say, err=True),
    )
    for line in [*verdict_in(out), f"report: {out / 'report.html'}"]:
        say(line)


@app.command(
    "show-experts", epilog="Example: `frozen-glyph show-experts runs/merged 'Москва 北京 London' -o experts.html`"
)
def show_experts(
    model: Annotated[str, typer.Argument(help="A merged or grown model: folder or Hub id, NAME@STAGE.")],
    text: Annotated[str, typer.Argument(help="Text to read.")],
    rule: Annotated[
        str | None,
        typer.Option(
            help="Rule to read under. Default: its own, or evidence where that weighs all tokens alike.",
            autocompletion=rule_names,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="HTML page to write.", dir_okay=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:1; default: cuda where there is one.")] = None,
) -> None:
    """Colour a text by the expert that predicts each token or, of a grown model, by the depth at which it settles."""
    from frozen_glyph.checkpoint.files import write_text
    from frozen_glyph.cli.layout import FittedTable
    from frozen_glyph.evaluation.attribution import attribute_checkpoint
    from frozen_glyph.evaluation.colours import page_html, terminal_legend, terminal_text

    quiet_transformers()
    found = attribute_checkpoint(model, text, rule, device)
    rows = [[name, str(leading), f"{mean:.1%}"] for name, leading, mean in found.summary()]
    table = FittedTable("", ["", "tokens", "mean share"], rows)
    show([terminal_legend(found), "", terminal_text(found), "", table])
    if out is not None:
        write_text(out, page_html(found))
        say(f"page: {out}")


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
        say(remark)
    say(f"mirror: {out}")
