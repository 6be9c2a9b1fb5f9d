"""The report of the study of SQuAD by depth: scores by number of blocks and their slopes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.studies.common.losses import finite, over_seeds
from eval.studies.common.tables import between_seeds, circumstances_line, interval, table
from eval.studies.growth.runs import ARMS
from frozen_glyph.statistics import binomial_interval, bootstrap_interval

METRICS = {"paper_squad": ("hit",), "fg_squad": ("exact_match", "f1")}


def summarise(results: dict[tuple[str, int], dict[str, Any]], arm: str, beside: Sequence[str]) -> dict[str, Any]:
    """For each task and metric the score of ``arm`` by depth, its slope, the scores of those ``beside`` it and the
    differences of the last stages, each with interval and values by seed; of the seeds that all have finished."""
    seeds = [seed for name, seed in results if name == arm and all((other, seed) in results for other in beside)]
    if not seeds:
        raise SystemExit("no seed has finished; name the work folder of the emergence study with --grown")
    runs = {name: [results[name, seed] for seed in seeds] for name in (arm, *beside)}
    grown = runs[arm]

    def estimate(values_SQ: np.ndarray, articles: list[int] | None) -> dict[str, Any]:
        """Mean over seeds and questions; the interval draws articles, or questions of which no two share one."""
        low, high = bootstrap_interval(values_SQ.mean(0), units=articles)
        found = finite({"value": float(values_SQ.mean()), "low": low, "high": high})
        return found | over_seeds(values_SQ.mean(1).tolist())

    first = grown[0]
    depth = np.array(first["blocks"], dtype=float)
    centred = depth - depth.mean()
    tasks: dict[str, Any] = {}
    for task, metrics in METRICS.items():
        tasks[task], articles = {}, first["articles"][task]
        for metric in metrics:
            scores_SDQ = np.array([run["scores"][task][metric] for run in grown])
            last_SQ = {name: np.array([run["scores"][task][metric][-1] for run in runs[name]]) for name in beside}
            tasks[task][metric] = {
                "questions": scores_SDQ.shape[-1],
                "articles": len(set(articles)) if articles else scores_SDQ.shape[-1],
                "by_depth": [estimate(scores_SDQ[:, index], articles) for index in range(len(depth))],
                "slope": estimate(np.einsum("d,sdq->sq", centred, scores_SDQ) / (centred**2).sum(), articles),
                "beside": {name: estimate(own_SQ, articles) for name, own_SQ in last_SQ.items()},
                "minus": {name: estimate(scores_SDQ[:, -1] - own_SQ, articles) for name, own_SQ in last_SQ.items()},
            }
    return {
        "blocks": first["blocks"],
        "arm": arm,
        "beside": list(beside),
        "seeds": seeds,
        "tasks": tasks,
        "cpu_seconds": sum(run["cpu_seconds"] for run in results.values()),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as one table."""

    def cell(entry: dict[str, Any], sign: str = "") -> str:
        points = {key: entry[key] and 100 * entry[key] for key in ("value", "low", "high", "seeds_low", "seeds_high")}
        points["by_seed"] = entry["by_seed"]
        intervals = f"text {interval(points, 2, sign)}; seeds {between_seeds(points, 2, sign)}"
        return f"{points['value']:{sign}.2f} ({intervals})"

    rows = [
        [
            f"{task}, {metric}",
            f"{found['questions']} of {found['articles']} articles",
            *(cell(entry) for entry in found["by_depth"]),
            f"{cell(found['slope'], '+')}; {', '.join(f'{100 * value:+.3f}' for value in found['slope']['by_seed'])}",
            *(cell(entry) for entry in found["beside"].values()),
            *(cell(entry, "+") for entry in found["minus"].values()),
        ]
        for task, metrics in report["tasks"].items()
        for metric, found in metrics.items()
    ]
    fewest = min(found["articles"] for metrics in report["tasks"].values() for found in metrics.values())
    columns = [f"{blocks} block{'s' if blocks > 1 else ''}" for blocks in report["blocks"]]
    return "\n".join(
        [
            "# SQuAD by depth",
            "",
            f"The emergence study's `{report['arm']}`, seeds {', '.join(map(str, report['seeds']))}, zero-shot "
            "and greedy; percent, mean over seeds, with 95% intervals over articles (questions of one depend on each "
            "other) and between seeds. `paper_squad` is the published short-answer protocol, `fg_squad` SQuAD v1.1 as "
            "completion. Slope: percentage points for each block, then seed by seed. Longer prompts than the context "
            "lose their beginning. Beside it what read as many tokens: "
            f"{', '.join(f'`{name}` ({ARMS[name].about})' for name in report['beside'])}. "
            "An interval from 0 to 0 means that no answer was right, not that none could be: none in "
            f"{fewest} articles leaves room for {100 * binomial_interval(0, fewest).high:.1f}% (exact binomial).",
            "",
            *table(
                [
                    "task, metric",
                    "questions",
                    *columns,
                    "slope",
                    *(f"`{name}`" for name in report["beside"]),
                    *(f"minus `{name}`" for name in report["beside"]),
                ],
                rows,
            ),
            f"{report['cpu_seconds']:.0f} core-seconds. {circumstances_line(report)}",
            "",
        ]
    )
