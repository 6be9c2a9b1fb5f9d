"""One picture of a whole growth: losses over tokens, stage after stage, with LoRA phases shaded.

Command: ``python -c "from frozen_glyph.growth.plot import plot_growth; plot_growth('runs/ru')"``
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from frozen_glyph.checkpoint.contract import GROWTH_PICTURE, METRICS, PROVENANCE_FILE, metrics_file, pattern
from frozen_glyph.checkpoint.files import CheckpointError, check_record, write_atomically
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.checkpoint.records import GrowthRecord
from frozen_glyph.formats import FormatError, check_type, parse_json

RAW, SMOOTH, HELD_OUT, EDGE, LORA = "#b9c7d8", "#1f4e79", "#c8501e", "#8a8f96", "#f3ead3"
SMOOTHING = 50  # a smoothed point is the mean of about 1/50 of its phase


class PlottedTraining(TypedDict):
    batch_tokens: int


class PlottedRecipe(TypedDict):
    name: str
    training: PlottedTraining


class PlottedStage(TypedDict):
    stage: int
    num_hidden_layers: int


class PlottedRun(TypedDict):
    """What is read of a run's provenance."""

    recipe: PlottedRecipe
    stages: list[PlottedStage]


class PlottedStep(TypedDict):
    """What is read of a line of its metrics."""

    step: int
    loss: NotRequired[float | None]
    eval_loss: NotRequired[float | None]


def plot_growth(folder: str | Path, provenance: GrowthRecord | None = None) -> Path:
    """Draw ``growth.png`` into the run folder ``folder`` from its metrics files and provenance; return its path.

    ``provenance`` is what the folder is about to hold; None: what it holds.

    Raises:
        CheckpointError: the folder holds no growth run, or no metrics yet, or damaged ones.
    """
    folder = Path(folder)
    stored = provenance or check_record(read_provenance(folder), PlottedRun, folder / PROVENANCE_FILE)
    record: Mapping[str, Any] = stored
    phases = read_phases(folder, record)
    if not phases:
        raise CheckpointError(f"folder {str(folder)!r} has no metrics-1.jsonl or later; train a stage first")
    figure = draw(record["recipe"]["name"], phases)
    write_atomically(folder / GROWTH_PICTURE, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return folder / GROWTH_PICTURE


def read_phases(folder: Path, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title, kind, tokens at both ends, and points (tokens, loss) of each phase that has metrics, in order."""
    batch = provenance["recipe"]["training"]["batch_tokens"]
    blocks = {entry["stage"]: entry["num_hidden_layers"] for entry in provenance["stages"]}
    phases: list[dict[str, Any]] = []
    begin = 0
    names = [path.name for path in folder.iterdir()]
    found = (
        (int(match[1]), kind)
        for kind, name in METRICS.items()
        for match in map(pattern(name).fullmatch, names)
        if match
    )
    for stage, kind in sorted(found):
        lora = kind == "lora"
        entries = read_metrics(folder / metrics_file(stage, kind))
        end = begin + max((entry["step"] for entry in entries), default=0) * batch
        phase = {"lora": lora, "begin": begin, "end": end, "title": "LoRA" if lora else f"stage {stage}"}
        if not lora and stage in blocks:
            phase["title"] += f"\n{blocks[stage]} block{'s' if blocks[stage] > 1 else ''}"
        for name in ("loss", "eval_loss"):
            points = [(begin + entry["step"] * batch, entry[name]) for entry in entries if entry.get(name) is not None]
            phase[name] = np.array(points, float).reshape(-1, 2)
        phases.append(phase)
        begin = end
    return phases


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """What was logged, a JSON object in each line; ``CheckpointError`` names a line that cannot be drawn."""
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = parse_json(line)
            check_type(entry, PlottedStep)
            if not all(math.isfinite(entry.get(name) or 0.0) for name in ("loss", "eval_loss")):
                raise FormatError("a loss is not finite")
        except FormatError as error:
            raise CheckpointError(f"{str(path)!r} line {number} is damaged: {error}; remove the line") from None
        entries.append(entry)
    return entries


def smooth(losses: np.ndarray) -> np.ndarray:
    """Centred mean over a window that shrinks at both ends, so that the jump at a stage's start is not smeared."""
    half = len(losses) // (2 * SMOOTHING) + 1
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    at = np.arange(len(losses))
    reach = np.minimum(half, np.minimum(at, len(losses) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def draw(name: str, phases: list[dict[str, Any]]) -> Figure:
    """The picture; the loss axis leaves out the fall from the untrained loss, or nothing else could be seen."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    seen = set()

    def once(label: str) -> str | None:
        """``label`` the first time, for the legend."""
        new = label not in seen
        seen.add(label)
        return label if new else None

    for phase in phases:
        if phase["lora"]:
            axes.axvspan(phase["begin"], phase["end"], color=LORA, zorder=0, label=once("LoRA phase"))
        elif phase["begin"]:
            axes.axvline(phase["begin"], color=EDGE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        if len(phase["loss"]):
            tokens, losses = phase["loss"].T
            axes.plot(tokens, losses, color=RAW, linewidth=0.8, label=once("training loss"))
            axes.plot(tokens, smooth(losses), color=SMOOTH, linewidth=1.6, label=once("smoothed"))
        if len(phase["eval_loss"]):
            tokens, losses = phase["eval_loss"].T
            axes.plot(
                tokens,
                losses,
                "o",
                color=HELD_OUT,
                markersize=3.5,
                clip_on=False,
                label=once("held-out loss"),
                zorder=4,
            )
        middle = (phase["begin"] + phase["end"]) / 2
        axes.annotate(
            phase["title"], (middle, 1), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
            ha="center", va="bottom", fontsize=8, color="#444444",
        )  # fmt: skip
    low, high = visible_range(phases)
    axes.set(xlim=(0, phases[-1]["end"]), ylim=(low, high), xlabel="tokens", ylabel="loss, nats per token")
    figure.suptitle(name, fontsize=11, fontweight="bold")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def visible_range(phases: list[dict[str, Any]]) -> tuple[float, float]:
    """Limits of the loss axis: everything but the first tenth of the first phase, with a little air."""
    first = phases[0]["loss"][:, 1]
    settled = [first[len(first) // 10 :], *(phase["loss"][:, 1] for phase in phases[1:])]
    values = np.concatenate([*settled, *(phase["eval_loss"][:, 1] for phase in phases)])
    air = 0.05 * (values.max() - values.min()) or 0.1
    return values.min() - air, values.max() + air
