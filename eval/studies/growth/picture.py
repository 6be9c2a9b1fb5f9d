"""The growth study as a picture: the loss of every arm against its peak memory, its FLOPs and the tokens it read."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from frozen_glyph.checkpoint.files import write_atomically

Points = list[tuple[float, float]]
MARKS = "os^Dv<>Pp*Xh"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of ``report`` (what ``summarise`` returns) to the PNG file ``path``."""
    figure = figure_of(report)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def figure_of(report: dict[str, Any]) -> Figure:
    """One panel for each of ``series``, and a legend of all arms."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (label, found) in zip(panels, series(report), strict=True):
        looks = zip(itertools.cycle(MARKS), itertools.cycle(colormaps["tab20"].colors), strict=False)  # type: ignore[attr-defined]
        for (mark, colour), (arm, points) in zip(looks, found.items(), strict=False):
            if points:
                axes.plot(*zip(*points, strict=True), marker=mark, color=colour, markersize=6, linewidth=1, label=arm)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("nats per character")
    figure.legend(
        *panels[1].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=6
    )
    return figure


def series(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Points]]]:
    """Of each panel its label and the points of each arm; over tokens one for each stage."""
    arms = report["arms"]
    memory = {arm: row["peak_mebibytes"] or row["foretold_mebibytes"] for arm, row in arms.items()}
    yield "peak memory, bytes", {arm: [(2**20 * memory[arm], row["loss"])] for arm, row in arms.items()}
    yield "FLOPs", {arm: [(row["flops"], row["loss"])] for arm, row in arms.items()}
    yield (
        "tokens",
        {arm: [(stage["tokens"], stage["loss"]) for stage in row["by_stage"]] for arm, row in arms.items()},
    )
