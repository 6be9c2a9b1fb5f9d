"""The report of the study of SQuAD heads: F1 and exact match by arm, beside one block, no training, and baselines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, interval, intervals_line, loss_cell, signed, table
from eval.studies.squad_heads.runs import CONTROL, UNTRAINED

METRICS = {"f1": "F1", "exact": "exact match"}
BASES = (CONTROL, UNTRAINED)  # that every arm is compared with


def summarise(
    results: Results, scale: Any, arms: Sequence[str], seeds: Sequence[int], without: dict[str, Any]
) -> dict[str, Any]:
    """Scores in percent of each finished arm, and its F1 minus that of ``BASES``; ``without`` is of ``baselines``."""
    runs = finished(results, arms, scale, seeds)
    if not runs:
        raise SystemExit("no arm has finished every seed; run the study first")
    text = {"characters": np.ones(len(without["articles"])), "documents": without["articles"]}

    def percent(arm: str, metric: str) -> np.ndarray:
        """Of each question [seeds, questions]."""
        return 100 * np.array([run["test"][metric] for run in runs[arm]])

    def minus(arm: str, base: str) -> dict[str, Any] | None:
        return None if arm == base else difference_of(percent(base, "f1"), percent(arm, "f1"), text)

    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "train_questions": next(iter(runs.values()))[0]["train_questions"],
        "questions": len(without["articles"]),
        "articles": len(set(without["articles"])),
        "rates": rates_line(results, arms, scale, seeds),
        "arms": {
            arm: {
                "blocks": found[0]["blocks"],
                **{metric: loss_of(percent(arm, metric), text) for metric in METRICS},
                "minus": {base: minus(arm, base) for base in BASES if base in runs},
            }
            for arm, found in runs.items()
        },
        "baselines": {
            name: {metric: loss_of(100 * np.array([found[metric]]), text) for metric in METRICS}
            for name, found in without["scores"].items()
        },
        "cpu_seconds": sum(run["cpu_seconds"] for run in results.values()),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as one table, with the protocol above it."""
    bases = list(next(iter(report["arms"].values()))["minus"])
    rows = [
        [
            arm,
            str(row["blocks"]),
            *(loss_cell(row[metric], 2) for metric in METRICS),
            *("-" if each is None else signed(each, 2) for each in row["minus"].values()),
        ]
        for arm, row in report["arms"].items()
    ]
    for name, found in report["baselines"].items():
        cells = [f"{found[metric]['loss']:.2f} (text {interval(found[metric], 2)})" for metric in METRICS]
        rows.append([name, "-", *cells, *("-" for _ in bases)])
    scale = report["scale"]
    return "\n".join(
        [
            "# A span head on grown models and their controls",
            "",
            f"Models of the emergence study, one for each of {len(report['seeds'])} seeds, fine-tuned whole on "
            f"{report['train_questions']:,} questions of SQuAD v1.1 for {scale['epochs']:g} epochs in batches of "
            f"{scale['batch']}; asked: {report['questions']} questions of {report['articles']} articles of the "
            "official development set (a part of it, and of that what fits the models' positions: scores compare with "
            f"nothing published). Percent. `ARM@K` is the model after stage K; `{UNTRAINED}`: the grown shape with "
            "random weights on the same substrate. "
            f"{intervals_line(report).replace('documents', 'articles')} {report['rates']}",
            "",
            *table(["arm", "blocks", *METRICS.values(), *(f"F1 minus `{base}`" for base in bases)], rows),
            f"{report['cpu_seconds']:.0f} core-seconds. {circumstances_line(report)}",
            "",
        ]
    )
