"""What the runs of the substrate study say together: which embedding has the lower held-out loss, and how sure is it?

A run is the plain JSON data that the study wrote of it.
"""

import os
import platform
from typing import Any

import numpy as np

from eval.studies.common.losses import difference_of
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.statistics import holm

BASELINES = ("trainable", "grid")
ALPHA = 0.05

JsonRun = dict[str, Any]


def losses(run: JsonRun) -> dict[str, float]:
    """Nats per character by language."""
    return {language: sum(text["nats"]) / sum(text["characters"]) for language, text in run["texts"].items()}


def compare(kinds: dict[str, list[JsonRun]]) -> list[dict[str, Any]]:
    """Every kind minus each baseline, by language; a verdict needs a small corrected p over the text, and an interval
    between seeds that lies on the same side."""
    rows: list[dict[str, Any]] = []
    for number, base in enumerate(BASELINES, start=1):
        for kind in kinds if base in kinds else ():
            if kind in BASELINES[:number]:  # itself, or compared before
                continue
            for language, text in kinds[kind][0]["texts"].items():
                first, second = ([run["texts"][language]["nats"] for run in kinds[name]] for name in (base, kind))
                row = {"kind": kind, "baseline": base, "language": language}
                rows.append(row | difference_of(first, second, text))
    for row, p_holm in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
        row["verdict"] = verdict_of(row)
    return rows


def verdict_of(row: dict[str, Any]) -> str:
    """``lower``, ``higher`` or ``undecided``."""
    over_text = row["p_holm"] is not None and row["p_holm"] < ALPHA
    over_seeds = row["seeds_low"] is not None and row["seeds_low"] * row["seeds_high"] > 0
    if not (over_text and over_seeds and row["seeds_low"] * row["difference"] > 0):
        return "undecided"
    return "lower" if row["difference"] < 0 else "higher"


def check_equal_starts(runs: list[JsonRun]) -> None:
    """Raise ``FrozenGlyphError`` unless runs of one seed had the same initial blocks and head and the same batches."""
    for key in ("initial_blocks_and_head", "batch_order"):
        for seed in {run["seed"] for run in runs}:
            if len({run[key] for run in runs if run["seed"] == seed}) > 1:
                raise FrozenGlyphError(f"runs of seed {seed} differ in {key}; delete the work folder and run again")


def summarise(
    runs: list[JsonRun],
    settings: dict[str, Any],
    rate: float,
    chance: dict[str, Any],
    dimensions: dict[str, float],
    texts: dict[str, str],
) -> dict[str, Any]:
    """Everything measured, as plain JSON data; runs at another learning rate than ``rate`` only check the rate."""
    check_equal_starts(runs)
    kinds: dict[str, list[JsonRun]] = {}
    for run in runs:
        if run["learning_rate"] == rate:
            kinds.setdefault(run["kind"], []).append(run)
    seeds = [run["seed"] for run in next(iter(kinds.values()))]
    checked = {run["kind"] for run in runs if run["learning_rate"] != rate}
    return {
        "settings": settings | {"learning_rate": rate, "seeds": seeds},
        "precision": runs[0]["precision"],
        "texts": texts,
        "held_out": {
            language: {
                "characters": int(sum(text["characters"])),
                "tokens": text["tokens"],
                "documents": len(set(text["documents"])),
            }
            for language, text in runs[0]["texts"].items()
        },
        "chance": chance,
        "kinds": {
            kind: summary_of(chosen) | {"effective_dimensions": dimensions[kind]} for kind, chosen in kinds.items()
        },
        "comparisons": compare(kinds),
        "rates": [
            {"kind": run["kind"], "learning_rate": run["learning_rate"], **losses(run)}
            for run in sorted(runs, key=lambda run: (run["kind"], run["learning_rate"]))
            if run["seed"] == seeds[0] and run["kind"] in checked
        ],
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "versions": versions(),
    }


def summary_of(runs: list[JsonRun]) -> dict[str, Any]:
    """The runs of one kind, one run a seed."""
    by_seed = {language: [losses(run)[language] for run in runs] for language in runs[0]["texts"]}
    return {
        "nats_per_character": {language: float(np.mean(values)) for language, values in by_seed.items()},
        "by_seed": by_seed,
        "curve": [
            {key: float(np.mean([point[key] for point in points])) for key in points[0]}
            for points in zip(*[run["curve"] for run in runs], strict=True)
        ],
        **{key: runs[0][key] for key in ("trainable_parameters", "embedding_norm", "substrate")},
        "seconds": [round(run["seconds"]) for run in runs],
        "cpu_seconds": [round(run["cpu_seconds"]) for run in runs],
    }
