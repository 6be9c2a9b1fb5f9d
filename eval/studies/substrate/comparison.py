"""What the runs of the substrate study say together: which embedding has the lower held-out loss, and how sure is it?

A run is the plain JSON data that the study wrote of it. Every arm is read at its best learning rate.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.studies.common.arms import chosen_rates
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.substrate.data import Scale
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.statistics import holm

PAIRS = (  # first minus second: what the study asks
    ("grid-whitened", "grid"),
    ("grid-whitened", "trainable"),
    ("grid-whitened", "random-long"),
    ("grid-whitened", "random-trained"),
    ("grid-whitened", "grid-partial"),
    ("grid-whitened", "published-whitened"),
    ("grid-by-text", "grid-whitened"),
    ("grid-by-script", "grid-whitened"),
    ("published-whitened", "published"),
    ("published-48", "published-whitened"),
    ("published-64", "published-whitened"),
    ("grid", "trainable"),
    ("random-long", "trainable"),
    ("published", "trainable"),
    ("random", "trainable"),
    ("binary", "trainable"),
    ("random-long", "random"),
)
ALPHA = 0.05

JsonRun = dict[str, Any]
Arms = dict[str, dict[int, JsonRun]]  # runs at an arm's best rate, by seed


def arms_of(results: Results, kinds: Sequence[str], scale: Scale) -> Arms:
    """The runs of each arm that has tried its rates, at the best one."""
    return runs_at(chosen_rates(results, kinds, scale), results)


def runs_at(rates: dict[str, float], results: Results) -> Arms:
    """The runs of each arm at its rate."""
    return {
        kind: {seed: run for (name, tried, seed), run in sorted(results.items()) if (name, tried) == (kind, rate)}
        for kind, rate in rates.items()
    }


def compare(arms: Arms, pairs: Sequence[tuple[str, str]] = PAIRS) -> list[dict[str, Any]]:
    """Each of ``pairs`` by text, at the seeds that both have.

    A verdict needs a small corrected p over the text, and an interval between seeds that lies on the same side.
    """
    rows: list[dict[str, Any]] = []
    for kind, base in pairs:
        seeds = sorted(arms.get(kind, {}).keys() & arms.get(base, {}).keys())
        for language in arms[kind][seeds[0]]["texts"] if seeds else ():
            first, second = ([arms[name][seed]["texts"][language] for seed in seeds] for name in (base, kind))
            row = {"kind": kind, "baseline": base, "language": language, "seeds": seeds}
            rows.append(row | difference_of([t["nats"] for t in first], [t["nats"] for t in second], first[0]))
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


def check_equal_starts(results: Results) -> None:
    """Raise ``FrozenGlyphError`` unless runs of one seed had the same initial blocks and head and the same batches."""
    for key in ("initial_blocks_and_head", "batch_order"):
        for seed in {seed for *_, seed in results}:
            if len({run[key] for (*_, other), run in results.items() if other == seed}) > 1:
                raise FrozenGlyphError(f"runs of seed {seed} differ in {key}; delete the work folder and run again")


def summarise(
    results: Results,
    kinds: Sequence[str],
    scale: Scale,
    chance: dict[str, Any],
    dimensions: dict[str, float],
    texts: dict[str, str],
    rare: list[dict[str, Any]],
) -> dict[str, Any]:
    """Everything measured, as plain JSON data."""
    check_equal_starts(results)
    arms, rates = arms_of(results, kinds, scale), chosen_rates(results, kinds, scale)
    runs = list(results.values())
    return {
        "settings": scale.settings(),
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
            kind: {"learning_rate": rates[kind]} | summary_of(by_seed) | {"effective_dimensions": dimensions[kind]}
            for kind, by_seed in arms.items()
        },
        "comparisons": compare(arms),
        "rare": rare,
        "rates": [
            {
                "kind": kind,
                "learning_rate": rate,
                "chosen": rate == rates.get(kind),
                **{name: value for name, value in run["curve"][-1].items() if name != "step"},
            }
            for (kind, rate, seed), run in sorted(results.items())
            if seed == 0
        ],
        "cpu_seconds": [round(min(run["cpu_seconds"] for run in runs)), round(max(run["cpu_seconds"] for run in runs))],
    }


def summary_of(by_seed: dict[int, JsonRun]) -> dict[str, Any]:
    """The runs of one arm."""
    runs = list(by_seed.values())
    losses = {
        language: loss_of([run["texts"][language]["nats"] for run in runs], text)
        for language, text in runs[0]["texts"].items()
    }
    return {
        "seeds": list(by_seed),
        "losses": losses,
        "nats_per_character": {language: entry["loss"] for language, entry in losses.items()},
        "curve": [
            {key: float(np.mean([point[key] for point in points])) for key in points[0]}
            for points in zip(*[run["curve"] for run in runs], strict=True)
        ],
        **{key: runs[0][key] for key in ("trainable_parameters", "embedding_norm", "substrate")},
    }
