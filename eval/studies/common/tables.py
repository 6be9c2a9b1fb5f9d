"""What every report is made of: Markdown tables, values with intervals, machine and versions; its two files."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.processes import commit
from frozen_glyph.checkpoint.files import write_json, write_text
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.statistics import MIN_RUNS
from frozen_glyph.training.precision import uses_bf16


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table and an empty one behind it."""
    lines = [header, ["---"] * len(header), *rows]
    return ["|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in lines] + [""]


def interval(entry: dict[str, Any], digits: int = 3, sign: str = "") -> str:
    """``low to high``; None: there is none, as of too few units."""
    if entry["low"] is None:
        return "none"
    return f"{entry['low']:{sign}.{digits}f} to {entry['high']:{sign}.{digits}f}"


def between_seeds(entry: dict[str, Any], digits: int = 3, sign: str = "") -> str:
    """``low to high`` of Student's interval between seeds, or how many more seeds one needs."""
    if entry["seeds_low"] is None:
        return f"{MIN_RUNS} seeds needed, {len(entry['by_seed'])} run"
    return f"{entry['seeds_low']:{sign}.{digits}f} to {entry['seeds_high']:{sign}.{digits}f}"


INTERVALS = (
    "Intervals are 95%: `text` is of other documents for these models (studentised bootstrap over documents of the "
    "mean over seeds, differences paired), `seeds` of other seeds on this text (Student's); neither covers the other."
)


def intervals_line(report: dict[str, Any]) -> str:
    """What the intervals of a report are, or why some were taken back."""
    return str(report.get("withdrawn", INTERVALS))


def loss_cell(entry: dict[str, Any], digits: int = 3) -> str:
    """A loss with its intervals over text and between seeds."""
    return f"{entry['loss']:.{digits}f} (text {interval(entry, digits)}; seeds {between_seeds(entry, digits)})"


def signed(entry: dict[str, Any], digits: int = 3, seeds: bool = False) -> str:
    """A difference with its intervals over text and between seeds, and with ``seeds`` its values seed by seed."""
    by_seed = f": {', '.join(f'{value:+.{digits}f}' for value in entry['by_seed'])}" if seeds else ""
    text, runs = interval(entry, digits, "+"), between_seeds(entry, digits, "+")
    return f"{entry['difference']:+.{digits}f} (text {text}; seeds {runs}{by_seed})"


def made_by() -> dict[str, str]:
    """Of what and where a run is made: ``commit``, ``precision`` (of a recipe that leaves it open) and ``machine``."""
    return {
        "commit": commit(),
        "precision": "bf16" if uses_bf16("auto") else "fp32",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread a run",
    }


def circumstances(made: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What ``made`` the runs of a report, each once, and the ``versions``; ``circumstances_line`` reads them."""
    return {name: sorted({own[name] for own in made}) for name in made_by()} | {"versions": versions()}


def versions_line(report: dict[str, Any]) -> str:
    return f"Versions: {', '.join(f'{name} {version}' for name, version in report['versions'].items())}."


def circumstances_line(report: dict[str, Any]) -> str:
    made = [f"{name.capitalize()}: {'; '.join(report[name])}." for name in made_by() if report[name]]
    return f"{' '.join(made)} {versions_line(report)}"


def write_report(out: Path, report: dict[str, Any], text: str) -> None:
    """Write ``report`` as OUT.json and ``text`` as OUT.md, and print the latter."""
    write_json(out.with_suffix(".json"), report)
    write_text(out.with_suffix(".md"), text)
    print(text)
