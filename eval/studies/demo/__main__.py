"""Put the reports of several demo runs side by side: does every stage help, and is the merged model worth it?

Command: ``for s in 0 1 2; do frozen-glyph demo --out runs/demo-$s --seed $s; done``
then ``python -m eval.studies.demo runs/demo-0 runs/demo-1 runs/demo-2 --out eval/results/demo``
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.studies.common.losses import over_seeds
from eval.studies.common.tables import between_seeds, write_report
from frozen_glyph.checkpoint.card import markdown_table
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.evaluation.report.labels import shown


def interval(entry: dict[str, Any], digits: int = 3, sign: str = "") -> str:
    """``value [low, high]``."""
    value = entry.get("value", entry.get("difference"))
    if entry["low"] is None:
        return f"{value:{sign}.{digits}f} [too few units]"
    return f"{value:{sign}.{digits}f} [{entry['low']:{sign}.{digits}f}, {entry['high']:{sign}.{digits}f}]"


def losses_by_stage(reports: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One row per seed, expert and text, and for both texts together: each stage's loss, and whether it always fell."""
    rows = []
    for seed, report in reports.items():
        characters = {loss["text"]: loss["characters"] for loss in report["losses"]}
        for expert, stages in report["growth"].items():
            texts = list(stages[0]["losses"])
            by_text = {text: [stage["losses"][text]["value"] for stage in stages] for text in texts}
            total = sum(characters[text] for text in texts)
            by_text[" + ".join(texts)] = [
                sum(by_text[text][index] * characters[text] for text in texts) / total for index in range(len(stages))
            ]
            for text, values in by_text.items():
                falls = all(after < before for before, after in pairwise(values))
                row = {"seed": seed, "expert": expert, "text": text}
                row |= {f"stage {number}": f"{value:.4f}" for number, value in enumerate(values, start=1)}
                rows.append({**row, "falls at every stage": "yes" if falls else "no"})
    return rows


def abilities(reports: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One row per seed, expert and task: first and last stage against chance, and the paired difference."""
    rows = []
    for seed, report in reports.items():
        for expert, stages in report["growth"].items():
            first, last = stages[0]["scores"], stages[-1]["scores"]
            added = stages[-1]["num_hidden_layers"] - stages[0]["num_hidden_layers"]
            trends = {row["name"]: row for row in report["trends"] if row["model"] == expert}
            for task, score in last.items():
                # With three stages the trend, which is for one block, is half of last minus first.
                paired = {end: added * trends[task][end] for end in ("value", "low", "high")}
                rows.append(
                    {
                        "seed": seed,
                        "expert": expert,
                        "task": task,
                        "items": str(score["total"]),
                        "chance": f"{score['chance']:.3f}",
                        "stage 1": interval(first[task]),
                        f"stage {len(stages)}": interval(score),
                        "difference": interval(paired, sign="+"),
                    }
                )
    return rows


def merged_losses(reports: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One row per seed, rule and text: the merged model's loss and its paired difference from each expert."""
    rows = []
    for seed, report in reports.items():
        for loss in report["losses"]:
            if not loss["model"].startswith("merged"):
                continue
            row = {"seed": seed, "model": loss["model"], "text": loss["text"], "loss": interval(loss)}
            for comparison in report["comparisons"]:
                if (comparison["second"], comparison["name"]) == (loss["model"], loss["text"]):
                    row[f"minus {comparison['first']}"] = interval(comparison, sign="+")
            rows.append(row)
    return rows


def between_all_seeds(reports: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Over all seeds, each of which has text and questions of its own: what the tables above say seed by seed.

    Ability is the last stage minus the first, over all experts of a task and, in the first row, over all cells alike.
    """
    gains: dict[str, dict[str, list[float]]] = {}
    merged: dict[tuple[str, str, str], dict[str, float]] = {}
    for seed, report in reports.items():
        for stages in report["growth"].values():
            for task, score in stages[-1]["scores"].items():
                gain = score["value"] - stages[0]["scores"][task]["value"]
                for name in ("all cells", task):
                    gains.setdefault(name, {}).setdefault(seed, []).append(gain)
        for row in report["comparisons"]:
            if row["kind"] == "loss":
                merged.setdefault((row["second"], row["first"], row["name"]), {})[seed] = row["difference"]
    found = {
        f"ability, {name}: last stage minus first": [fmean(cells) for cells in by_seed.values()]
        for name, by_seed in sorted(gains.items(), key=lambda entry: entry[0] != "all cells")
    }
    found |= {
        f"loss on {text}: {second} minus {first}": [*own.values()] for (second, first, text), own in merged.items()
    }
    return [
        {
            "difference": name,
            "mean": f"{fmean(values):+.3f}",
            "95% interval between seeds": between_seeds(over_seeds(values), 3, "+"),
            "by seed": ", ".join(f"{value:+.3f}" for value in values),
        }
        for name, values in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", type=Path, help="folders that `frozen-glyph demo` wrote")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    arguments = parser.parse_args()
    loaded: list[Any] = [shown(json.loads((folder / "report.json").read_text("utf-8"))) for folder in arguments.demos]
    reports = {str(report["provenance"]["seed"]): report for report in loaded}
    tables = {
        "Held-out loss by growth stage (nats per character)": losses_by_stage(reports),
        "Ability, first and last stage (share right)": abilities(reports),
        "Merged model against its experts (nats per character)": merged_losses(reports),
        "All seeds": between_all_seeds(reports),
    }
    note = loaded[0]["note"]
    settings = {seed: report["provenance"]["settings"] for seed, report in reports.items()}
    report = {"note": note, "settings": settings, "versions": versions(), **tables}
    parts = [f"# Demo, seeds {', '.join(reports)}", note, "95% intervals; differences are paired."]
    parts += [f"## {title}\n\n{markdown_table(rows)}" for title, rows in tables.items()]
    write_report(arguments.out, report, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
