"""``growth.html``: what a run has come to, as one page that opens offline and, while the run trains, renews itself.

Texts of recipes, samples and files pass through the template's autoescape.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import GROWTH_PAGE
from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.growth.charts import Dot, Line, line_chart, scale_chart
from frozen_glyph.growth.history import (
    PhaseCourse,
    Progress,
    ReadRun,
    StagePoint,
    control_points,
    line_of,
    points,
    progress_line,
    progress_of,
    read_phases,
    read_run,
    stage_points,
)
from frozen_glyph.growth.plot import visible_range
from frozen_glyph.health.measure import METRICS
from frozen_glyph.pages import templates_of

REFRESH_SECONDS = 10
MOST_POINTS = 300  # of a line; more could not be told apart
TEMPLATES = templates_of("frozen_glyph.growth")


def write_page(folder: Path, provenance: Mapping[str, Any] | None = None, live: bool = False) -> Path:
    """Write ``growth.html`` into the run folder ``folder``; return its path.

    ``provenance`` is what the folder is about to hold, None: what it holds. ``live``: the run goes on training, so that
    the page says how far it is, and loads itself again. Else the same run gives the same bytes.

    Raises:
        CheckpointError: the folder holds no growth run, or a damaged one.
    """
    run = read_run(folder, provenance)
    phases = read_phases(folder, run)
    write_text(folder / GROWTH_PAGE, page_html(run, phases, control_points(folder), live))
    return folder / GROWTH_PAGE


def page_html(run: ReadRun, phases: list[PhaseCourse], control: Sequence[StagePoint], live: bool) -> str:
    """The page of a run, of the phases that it has metrics of."""
    stages = stage_points(run, phases)
    texts = list(dict.fromkeys(text for stage in stages for text in stage["losses"]))
    beside = {point["stage"]: point["losses"] for point in control}
    controlled = [text for text in texts if any(text in losses for losses in beside.values())]
    return TEMPLATES.get_template("growth.html").render(
        name=run["recipe"]["name"],
        live=live_line(progress_of(run, phases)) if live else None,
        warnings=[
            f"Stage {stage['stage']}, {block['name']}: {flag}"
            for stage in run["stages"]
            for block in (stage.get("health") or {"blocks": []})["blocks"]
            for flag in block["flags"]
        ],
        figures=[*loss_figures(run, phases), *stage_figures(stages, control, texts)],
        head=[
            "stage",
            "blocks",
            "tokens",
            "FLOPs",
            "memory",
            *texts,
            *(f"{text} minus control" for text in controlled),
        ],
        rows=[
            [
                *(str(stage["stage"]), str(stage["blocks"]), f"{stage['tokens']:,}"),
                "–" if stage["flops"] is None else f"{stage['flops']:.3g}",
                "–" if stage["memory"] is None else f"{stage['memory'] / 2**20:,.0f} MiB",
                *(loss_cell(stage["losses"].get(text), before.get(text)) for text in texts),
                *(
                    minus_cell(stage["losses"].get(text), beside.get(stage["stage"], {}).get(text))
                    for text in controlled
                ),
            ]
            for stage, before in zip(stages, [{}, *(stage["losses"] for stage in stages)], strict=False)
        ],
        scales=health_scales(run),
        samples=samples_by_prompt(run),
    )


def loss_cell(loss: float | None, before: float | None) -> str:
    """A loss, in brackets what the stage changed."""
    if loss is None:
        return "–"
    return f"{loss:.4f}" if before is None else f"{loss:.4f} ({loss - before:+.4f})"


def minus_cell(loss: float | None, control: float | None) -> str:
    """A loss minus the control's, where both are known."""
    return "–" if loss is None or control is None else f"{loss - control:+.4f}"


def live_line(progress: Progress) -> dict[str, Any]:
    """How far the run is, for the head of its page."""
    return {
        "line": progress_line(progress),
        "steps": progress["steps"],
        "planned": max(progress["planned"], 1),
        "written": time.strftime("%H:%M:%S"),
        "refresh": REFRESH_SECONDS,
    }


def loss_figures(run: ReadRun, phases: list[PhaseCourse]) -> list[dict[str, Any]]:
    """Losses of training and evaluation over tokens."""
    if not any(phase["entries"] for phase in phases):
        return []
    batch = run["recipe"]["training"]["batch_tokens"]
    trained = [point for phase in phases for point in points(phase, "loss", batch)]
    held_out = [point for phase in phases for point in points(phase, "eval_loss", batch)]
    lines = [Line("training loss", trained[:: len(trained) // MOST_POINTS + 1], 0, "thin")]
    lines += [Line("held-out loss", held_out, 1, "dots")] if held_out else []
    edges = [phase["begin"] for phase in phases[1:]]
    labels = "tokens", "loss, nats per token"
    chart = line_chart("Loss", lines, labels, visible_range(phases, batch), edges)
    return [{"title": "Loss by tokens, nats per token", "chart": chart, "legend": lines}]


def stage_figures(
    stages: Sequence[StagePoint], control: Sequence[StagePoint], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Held-out loss of every text by stage, tokens and FLOPs, with the control's where it was run."""
    figures = []
    for over, label in (("stage", "stage"), ("tokens", "tokens"), ("flops", "training FLOPs, counted")):
        lines = [
            Line(name, drawn, number, kind)
            for number, text in enumerate(texts)
            for own, kind, name in ((stages, "line", text), (control, "control", f"{text}, control"))
            if (drawn := line_of(own, text, over))
        ]
        losses = [loss for line in lines for _, loss in line.points]
        if losses:
            air = 0.06 * (max(losses) - min(losses)) or 0.05
            limits = min(losses) - air, max(losses) + air
            chart = line_chart("Held-out loss", lines, (label, "nats per character"), limits)
            title = f"Held-out loss by {'FLOPs' if over == 'flops' else over}, nats per character"
            figures.append({"title": title, "chart": chart, "legend": lines})
    return figures


def health_scales(run: ReadRun) -> list[dict[str, Any]]:
    """Each metric of health as a scale with its thresholds, with a dot for every block and Linear that has it."""
    measured = [
        (entry["stage"], f"{block['name']} {linear}".strip(), values)
        for entry in run["stages"]
        for block in (entry.get("health") or {"blocks": []})["blocks"]
        for linear, values in {"": block["metrics"], **block["linears"]}.items()
    ]
    scales = []
    for key, metric in METRICS.items():
        dots = [
            Dot(value, f"stage {stage}, {name}: {value:.3g}", stage - 1, metric.flags(value))
            for stage, name, values in measured
            if (value := values.get(key)) is not None
        ]
        if dots:
            title = f"{metric.title}, {metric.unit}"
            chart = scale_chart(title, dots, metric.low, metric.high, metric.unit != "share")
            scales.append({"title": title, "chart": chart})
    return scales


def samples_by_prompt(run: ReadRun) -> dict[str, list[tuple[int, str]]]:
    """What every stage made of each prompt."""
    found: dict[str, list[tuple[int, str]]] = {}
    for stage in run["stages"]:
        for sample in stage.get("samples", []):
            found.setdefault(sample["prompt"], []).append((stage["stage"], sample["text"]))
    return found
