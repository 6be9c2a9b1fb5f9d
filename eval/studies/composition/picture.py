"""The composition study as a picture: what a token costs under each rule over each set, and what it loses (Pareto)."""

import itertools
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from eval.studies.composition.report import on_front
from frozen_glyph.checkpoint.files import write_atomically

MARKS = {"single": "*", "two": "v", "three": "^", "six": "h"}
TEXTS = {"pure": "texts of one language", "mixed": "text that switches with every paragraph"}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of ``report`` (what ``summarise`` returns) to the PNG file ``path``."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    points = report["points"]
    rules = dict.fromkeys(point["rule"] for point in points)
    colours = dict(zip(rules, itertools.cycle(colormaps["Paired"].colors), strict=False))  # type: ignore[attr-defined]
    panels = figure.subplots(1, 2)
    for axes, (loss, title) in zip(panels, TEXTS.items(), strict=True):
        for point in points:
            mark, colour = MARKS[point["set"]], colours[point["rule"]]
            axes.plot(point["cost"], point[loss], mark, color=colour, markersize=8, markeredgecolor="#333333")
        front = sorted((point for point in points if on_front(point, points, loss)), key=lambda point: point["cost"])
        axes.step(*zip(*((point["cost"], point[loss]) for point in front), strict=True), where="post", color="#999999")
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 3, 4, 6, 8])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("time of a token over one expert's")
        axes.set_ylabel("nats per character")
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for rule, colour in colours.items():
        panels[0].plot([], [], "s", color=colour, label=rule)
    for name, mark in MARKS.items():
        panels[0].plot([], [], mark, color="#666666", label="one model" if name == "single" else f"{name} experts")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=6)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
