"""One picture of a whole growth: losses over tokens, phase after phase; held-out loss by stage and by FLOPs.

Command: ``python -c "from frozen_glyph.growth.plot import plot_growth; plot_growth('runs/ru')"``
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from frozen_glyph.checkpoint.contract import GROWTH_PICTURE
from frozen_glyph.checkpoint.files import CheckpointError, write_atomically
from frozen_glyph.growth.history import (
    PhaseCourse,
    StagePoint,
    control_points,
    line_of,
    points,
    read_phases,
    read_run,
    stage_points,
)

RAW, SMOOTH, HELD_OUT, EDGE, LORA = "#b9c7d8", "#1f4e79", "#c8501e", "#8a8f96", "#f3ead3"
TEXTS = ("#1f5fbf", "#c4510b", "#0b806a", "#8437b3", "#94680a", "#b52a63")
MOST_NAMED = 6  # stages of which the picture tells what each took
SMOOTHING = 50  # a smoothed point is the mean of about 1/50 of its phase


def plot_growth(folder: str | Path, provenance: Mapping[str, Any] | None = None) -> Path:
    """Draw ``growth.png`` into the run folder ``folder`` from its metrics files and provenance; return its path.

    ``provenance`` is what the folder is about to hold; None: what it holds.

    Raises:
        CheckpointError: the folder holds no growth run, or no metrics yet, or damaged ones.
    """
    folder = Path(folder)
    run = read_run(folder, provenance)
    phases = read_phases(folder, run)
    if not any(phase["entries"] for phase in phases):
        raise CheckpointError(f"folder {str(folder)!r} has no metrics-1.jsonl or later; train a stage first")
    stages, control = stage_points(run, phases), control_points(folder)
    figure = draw(run["recipe"]["name"], phases, run["recipe"]["training"]["batch_tokens"], stages, control)
    write_atomically(folder / GROWTH_PICTURE, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return folder / GROWTH_PICTURE


def smooth(losses: np.ndarray) -> np.ndarray:
    """Centred mean over a window that shrinks at both ends, so that the jump at a stage's start is not smeared."""
    half = len(losses) // (2 * SMOOTHING) + 1
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    at = np.arange(len(losses))
    reach = np.minimum(half, np.minimum(at, len(losses) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def draw(
    name: str,
    phases: Sequence[PhaseCourse],
    batch_tokens: int,
    stages: Sequence[StagePoint] = (),
    control: Sequence[StagePoint] = (),
) -> Figure:
    """The picture; without held-out losses of stages the upper half alone."""
    scored = any(stage["losses"] for stage in stages)
    figure = Figure(figsize=(9, 8 if scored else 4.5), layout="constrained")
    figure.suptitle(name, fontsize=11, fontweight="bold")
    places: Any = figure.subfigures(2, 1, height_ratios=(1.2, 1)) if scored else [figure]
    draw_losses(places[0].subplots(), phases, batch_tokens)
    if scored:
        by_stage, by_flops = places[1].subplots(1, 2, sharey=True)
        draw_stages(by_stage, stages, control, "stage")
        draw_stages(by_flops, stages, control, "flops")
        by_stage.set(xlabel=name_stages(by_stage, stages), ylabel="held-out loss, nats per character")
        by_flops.xaxis.set_major_formatter(EngFormatter(sep=""))
        by_flops.set(xlabel="training FLOPs, counted")
        by_stage.legend(frameon=False, fontsize=8)
    return figure


def name_stages(axes: Any, stages: Sequence[StagePoint]) -> str:
    """Under the number of each stage the FLOPs up to it and its memory; numbers alone where there are many stages, or
    an earlier version trained one. Returns what the axis shows."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    amount = EngFormatter(places=0, sep="")
    named = [
        f"{stage['stage']}\n{amount(flops)}\n{amount(memory)}B"
        for stage in stages
        if (flops := stage["flops"]) is not None and (memory := stage["memory"]) is not None
    ]
    if len(named) < len(stages) or len(stages) > MOST_NAMED:
        return "stage"
    axes.set_xticks([stage["stage"] for stage in stages], named)
    return "stage, training FLOPs up to it, memory"


def draw_losses(axes: Any, phases: Sequence[PhaseCourse], batch_tokens: int) -> None:
    """Losses over tokens; the axis leaves out the fall from the untrained loss, or nothing else could be seen."""
    seen = set()

    def once(label: str) -> str | None:
        """``label`` the first time, for the legend."""
        new = label not in seen
        seen.add(label)
        return label if new else None

    for phase in phases:
        if phase["kind"] == "lora":
            axes.axvspan(phase["begin"], phase["end"], color=LORA, zorder=0, label=once("LoRA phase"))
        elif phase["begin"]:
            axes.axvline(phase["begin"], color=EDGE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        if trained := points(phase, "loss", batch_tokens):
            tokens, losses = np.array(trained, float).T
            axes.plot(tokens, losses, color=RAW, linewidth=0.8, label=once("training loss"))
            axes.plot(tokens, smooth(losses), color=SMOOTH, linewidth=1.6, label=once("smoothed"))
        if held_out := points(phase, "eval_loss", batch_tokens):
            tokens, losses = np.array(held_out, float).T
            label = once("held-out loss")
            axes.plot(tokens, losses, "o", color=HELD_OUT, markersize=3.5, clip_on=False, label=label, zorder=4)
        middle = (phase["begin"] + phase["end"]) / 2
        axes.annotate(
            phase["title"], (middle, 1), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
            ha="center", va="bottom", fontsize=8, color="#444444",
        )  # fmt: skip
    axes.set(xlim=(0, max(phases[-1]["end"], 1)), ylim=visible_range(phases, batch_tokens))
    axes.set(xlabel="tokens", ylabel="loss, nats per token")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def draw_stages(axes: Any, stages: Sequence[StagePoint], control: Sequence[StagePoint], over: str) -> None:
    """Held-out loss of each text over a number of a stage; that of the control dashed."""
    texts = list(dict.fromkeys(text for stage in stages for text in stage["losses"]))
    for number, text in enumerate(texts):
        colour = TEXTS[number % len(TEXTS)]
        for own, style, label in ((stages, "o-", text), (control, "o--", f"{text}, control")):
            if drawn := line_of(own, text, over):
                fill = colour if own is stages else "white"
                x, losses = np.array(drawn, float).T
                axes.plot(
                    x, losses, style, color=colour, markersize=4, linewidth=1.4, label=label, markerfacecolor=fill
                )
    plain(axes)


def plain(axes: Any) -> None:
    """Axes of few lines."""
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def visible_range(phases: Sequence[PhaseCourse], batch_tokens: int) -> tuple[float, float]:
    """Limits of a loss axis, with a little air: all held-out losses, and of training losses neither those of the first
    tenth of the first phase nor the highest fortieth of the others."""
    trained, held_out = [], []
    for phase in phases:
        losses = [loss for _, loss in points(phase, "loss", batch_tokens)]
        trained += losses[len(losses) // 10 if phase is phases[0] else 0 :]
        held_out += [loss for _, loss in points(phase, "eval_loss", batch_tokens)]
    values = [*held_out, *(sorted(trained)[: -(len(trained) // 40) or None])] or [0.0]
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or 0.1
    return low - air, high + air
