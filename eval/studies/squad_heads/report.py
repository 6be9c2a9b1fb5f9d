"""The report of the study of SQuAD heads: F1 and exact match by stage, beside controls and baselines, and a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, interval, intervals_line, loss_cell, signed, table
from frozen_glyph.checkpoint.files import write_atomically

COLOURS = {"grown": "#1f4e79", "random": "#c8501e", "grown-thawed": "#5d8fbf", "random-thawed": "#e3a17f"}


def summarise(
    results: dict[tuple[str, int, float, int], dict[str, Any]], without: dict[str, Any], scale: Any, model: str
) -> dict[str, Any]:
    """Scores in percent of each arm and stage at the rate that was best for the kept questions, and differences.

    ``without`` is what ``baselines`` found.
    """
    if not results:
        raise SystemExit("no run has finished; run the study first")
    text = {"characters": np.ones(len(without["articles"])), "documents": without["articles"]}

    def percent(runs: list[dict[str, Any]], part: str, metric: str) -> np.ndarray:
        return 100 * np.array([run[part][metric] for run in runs])

    def scores(values: dict[str, np.ndarray]) -> dict[str, Any]:
        return {metric: loss_of(values[metric], text) for metric in ("f1", "exact")}

    rows, best = [], {}
    for arm, stage in dict.fromkeys((arm, stage) for arm, stage, *_ in results):
        by_rate: dict[float, dict[int, dict[str, Any]]] = {}
        for (name, number, rate, seed), run in results.items():
            if (name, number) == (arm, stage):
                by_rate.setdefault(rate, {})[seed] = run
        most = max(map(len, by_rate.values()))
        kept = {r: percent([*runs.values()], "kept", "f1").mean() for r, runs in by_rate.items() if len(runs) == most}
        rate = max(kept, key=lambda r: kept[r])
        best[arm, stage] = by_rate[rate]
        runs = [*by_rate[rate].values()]
        rows.append(
            {
                "arm": arm,
                "stage": stage,
                "blocks": runs[0]["blocks"],
                "trainable_parameters": runs[0]["trainable_parameters"],
                "train_questions": runs[0]["train_questions"],
                "rate": rate,
                "kept_f1": {str(r): float(value) for r, value in kept.items()},
                **scores({metric: percent(runs, "test", metric) for metric in ("f1", "exact")}),
            }
        )
    for row in rows:
        own, control = best[row["arm"], row["stage"]], best.get((row["arm"].replace("grown", "random"), row["stage"]))
        seeds = sorted(set(own) & set(control or {}))
        if row["arm"].startswith("grown") and seeds:
            pair = [percent([runs[seed] for seed in seeds], "test", "f1") for runs in (control or {}, own)]
            row["against_random"] = difference_of(*pair, text)
    return {
        "model": model,
        "scale": asdict(scale),
        "seeds": len({seed for *_, seed in results}),
        "questions": len(without["articles"]),
        "articles": len(set(without["articles"])),
        "arms": sorted(rows, key=lambda row: (list(COLOURS).index(row["arm"]), row["stage"])),
        "baselines": {
            name: scores({metric: 100 * np.array([found[metric]]) for metric in found})
            for name, found in without["scores"].items()
        },
        "cpu_seconds": sum(run["cpu_seconds"] for run in results.values()),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as one table."""
    rows = [
        [
            row["arm"],
            str(row["stage"]),
            str(row["blocks"]),
            f"{row['trainable_parameters']:,}",
            f"{row['rate']:g}",
            loss_cell(row["f1"], 2),
            f"{row['exact']['loss']:.2f}",
            signed(row["against_random"], 2) if "against_random" in row else "-",
        ]
        for row in report["arms"]
    ]
    for name, found in report["baselines"].items():
        f1 = f"{found['f1']['loss']:.2f} (text {interval(found['f1'], 2)})"
        rows.append([name, "-", "-", "-", "-", f1, f"{found['exact']['loss']:.2f}", "-"])
    scale, first = report["scale"], report["arms"][0]
    return "\n".join(
        [
            "# A span head on every growth stage",
            "",
            f"`{report['model']}`, fine-tuned on {first['train_questions']:,} questions of SQuAD v1.1 for "
            f"{scale['epochs']:g} epochs in batches of {scale['batch']}, {report['seeds']} seeds; asked: "
            f"{report['questions']} questions of {report['articles']} articles of the official development set (a part "
            "of it, and of that what fits the model's positions: scores compare with nothing published). Percent. Each "
            "arm at its best learning rate for articles kept from training. `random` is the control: the same blocks "
            "with random weights on the same substrate, the same of them trained. "
            f"{intervals_line(report).replace('documents', 'articles')}",
            "",
            *table(["arm", "stage", "blocks", "trained", "rate", "F1", "exact match", "F1 minus random"], rows),
            f"{report['cpu_seconds']:.0f} core-seconds. {circumstances_line(report)}",
            "",
        ]
    )


def draw(report: dict[str, Any], path: Path) -> None:
    """F1 by blocks of every arm, with intervals over articles, and the baselines as lines."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for arm, colour in COLOURS.items():
        rows = [row for row in report["arms"] if row["arm"] == arm]
        if not rows:
            continue
        blocks, f1 = [row["blocks"] for row in rows], [row["f1"] for row in rows]
        axes.plot(blocks, [entry["loss"] for entry in f1], "o-", color=colour, label=arm)
        bounded = [(place, entry) for place, entry in zip(blocks, f1, strict=True) if entry["low"] is not None]
        axes.vlines(
            [place for place, _ in bounded],
            *([e[end] for _, e in bounded] for end in ("low", "high")),
            color=colour,
            alpha=0.4,
        )
    for (name, found), style in zip(report["baselines"].items(), ("--", ":"), strict=True):
        axes.axhline(found["f1"]["loss"], color="#8a8f96", linestyle=style, label=name)
    axes.set(
        xlabel="blocks", ylabel="F1, percent", title=f"SQuAD v1.1 by growth stage: {report['model']}", ylim=(0, None)
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
