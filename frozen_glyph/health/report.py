"""What ``model_health`` found, as rows of a table and as a picture."""

from pathlib import Path

import numpy as np

from frozen_glyph.checkpoint.files import write_atomically
from frozen_glyph.health.measure import METRICS, HealthReport

WELL, ILL, UNKNOWN, EDGE = "#dfe9f3", "#c8501e", "#f2f2f2", "#ffffff"


def number(value: float | None) -> str:
    """Three digits, or a dash for what does not exist."""
    return "-" if value is None else f"{value:.3g}"


def rows_of(report: HealthReport) -> list[tuple[str, dict[str, float | None]]]:
    """Label and metrics of every block, each followed by its Linears."""
    rows = []
    for block in report["blocks"]:
        rows.append((block["name"], block["metrics"]))
        rows += [(f"  {linear}", values) for linear, values in block["linears"].items()]
    return rows


def draw_health(name: str, report: HealthReport, path: Path) -> None:
    """Write a PNG to ``path``: a row for each block and Linear, a column for each metric, flagged cells dark."""
    from matplotlib.colors import ListedColormap  # of the extra `train`, which the table does without
    from matplotlib.figure import Figure

    rows = rows_of(report)
    colours = np.array([
        [0 if values.get(key) is None else 2 if metric.flags(values[key]) else 1 for key, metric in METRICS.items()]
        for _, values in rows
    ])  # fmt: skip
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colormap = ListedColormap([UNKNOWN, WELL, ILL])
    axes.pcolormesh(colours, cmap=colormap, vmin=0, vmax=2, edgecolors=EDGE, linewidth=1)
    for y, (_, values) in enumerate(rows):
        for x, key in enumerate(METRICS):
            if values.get(key) is not None:
                ink = "white" if colours[y, x] == 2 else "black"
                axes.text(x + 0.5, y + 0.5, number(values[key]), ha="center", va="center", fontsize=7, color=ink)
    titles = [f"{metric.title}\n{metric.unit}" for metric in METRICS.values()]
    axes.set_xticks(np.arange(len(METRICS)) + 0.5, titles, fontsize=7)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [label.strip() for label, _ in rows], fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    figure.suptitle(f"{name}: health of blocks and their Linears (dark: flagged)", fontsize=10, fontweight="bold")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
