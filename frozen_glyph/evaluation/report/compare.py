"""Compare models, and the growth stages of one model, on the same items: differences, tests, effect sizes, trends."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from frozen_glyph.evaluation.measurements import TaskPart, TextPart
from frozen_glyph.evaluation.report.bleu import RESAMPLES, mean_corpus_bleu, run_counts
from frozen_glyph.evaluation.report.schema import Comparison, Trend
from frozen_glyph.evaluation.report.summarise import is_binary, nats_of
from frozen_glyph.statistics import (
    PairedDifference,
    binomial_interval,
    cohens_d,
    cohens_g,
    holm,
    linear_trend,
    mcnemar_exact,
    paired_bootstrap,
    paired_statistic,
    sums_of_units,
)


def _comparison(kind: str, name: str, first: str, second: str, result: PairedDifference, test: str) -> Comparison:
    return {
        "kind": kind,
        "name": name,
        "first": first,
        "second": second,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p_value": result.p_value,
        "test": test,
    }


def _with_effect(comparison: Comparison, name: str, effect: float) -> Comparison:
    """Add an effect size where it is defined."""
    if np.isfinite(effect):
        comparison["effect"], comparison["effect_name"] = effect, name
    return comparison


def compare_losses(
    text: str, first: tuple[str, TextPart], second: tuple[str, TextPart], seed: int = 0
) -> Comparison | None:
    """Return second minus first in nats per character, or None if blocks are not the same or have no number."""
    (first_model, first_part), (second_model, second_part) = first, second
    if first_part["characters"] != second_part["characters"]:
        return None
    before, after = nats_of(first_part), nats_of(second_part)
    characters = np.asarray(first_part["characters"], np.float64)
    if not np.isfinite([before, after]).all():
        return None
    documents = second_part["documents"]
    result = paired_bootstrap(before, after, characters, units=documents, seed=seed)
    test = f"studentised bootstrap over {_documents(result.units, documents)}"
    comparison = _comparison("loss", text, first_model, second_model, result, test)
    changes, sizes = sums_of_units(documents, after - before, characters)
    return _with_effect(comparison, "Cohen's d", cohens_d(changes / sizes))


def _documents(units: int, documents: Sequence[int]) -> str:
    """What the units of a text are."""
    return f"{units} documents" if len(set(documents)) > 1 else f"{units} passages of one document"


def _items(units: int, clusters: Sequence[int] | None) -> str:
    """What the units of a task are."""
    return f"{units} items" if clusters is None else f"{units} texts that the items are about"


def compare_scores(
    task: str, first: tuple[str, TaskPart], second: tuple[str, TaskPart], seed: int = 0
) -> Comparison | None:
    """Return second minus first of the task's first metric, or None if the two saw different items.

    Items that several share a text with (SQuAD's articles) depend on each other: interval and p-value are then those of
    a studentised bootstrap over texts. Else the bootstrap is over items, and of right-or-wrong ones the p-value is
    McNemar's exact one.
    """
    return compare_runs(task, (first[0], [first[1]]), (second[0], [second[1]]), seed)


def compare_runs(
    task: str, first: tuple[str, Sequence[TaskPart]], second: tuple[str, Sequence[TaskPart]], seed: int = 0
) -> Comparison | None:
    """Return what ``compare_scores`` does, of every item's mean over repeated runs."""
    (first_model, first_runs), (second_model, second_runs) = first, second
    if len({run["items"] for run in [*first_runs, *second_runs]}) != 1:
        return None
    if "translations" in first_runs[0]:
        counts = [run_counts([run["translations"] for run in runs]) for runs in (first_runs, second_runs)]
        result = paired_statistic(counts[0], counts[1], mean_corpus_bleu, resamples=RESAMPLES, seed=seed)
        return _comparison("score", task, first_model, second_model, result, "approximate randomisation of sentences")
    metric = next(iter(first_runs[0]["values"]))
    before, after = (
        np.mean([run["values"][metric] for run in runs], axis=0).tolist() for runs in (first_runs, second_runs)
    )
    clusters = second_runs[0].get("clusters")
    result = paired_bootstrap(before, after, units=clusters, seed=seed)
    test = f"studentised bootstrap over {_items(result.units, clusters)}"
    if not (is_binary(before) and is_binary(after)):
        comparison = _comparison("score", task, first_model, second_model, result, test)
        return _with_effect(comparison, "Cohen's d", cohens_d(np.subtract(after, before)))
    split = mcnemar_exact(before, after)
    if before == after:  # no item of these: how many of others may there be?
        most = binomial_interval(0, result.units).high
        result = replace(result, low=-most, high=most)
    if clusters is None:
        result, test = replace(result, p_value=split.p_value), "exact McNemar test"
    return _with_effect(
        _comparison("score", task, first_model, second_model, result, test), "Cohen's g", cohens_g(split)
    )


def trends(
    model: str,
    depths: Sequence[int],
    texts: Sequence[Mapping[str, TextPart]],
    tasks: Sequence[Mapping[str, TaskPart]] = (),
    seed: int = 0,
) -> list[Trend]:
    """Return the change for one more block over a model's growth stages, of every text and every task; none if no stage
    added a block.

    Args:
        depths: number of blocks at each stage.
        texts, tasks: the parts of each stage; a text or task is left out where a stage lacks it or saw other items, and
            so is BLEU, which has no value for an item.
    """
    if len(set(depths)) < 2:
        return []
    found: list[tuple[str, str, list[list[float]], list[int] | None, list[int] | None]] = []
    for name in texts[0] if texts else ():
        parts = [stage[name] for stage in texts if name in stage]
        same = len(parts) == len(depths) and all(part["characters"] == parts[0]["characters"] for part in parts)
        if same and all(np.isfinite(nats_of(part)).all() for part in parts):
            found.append(
                (
                    "loss",
                    name,
                    [nats_of(part).tolist() for part in parts],
                    parts[0]["characters"],
                    parts[0]["documents"],
                )
            )
    for name in tasks[0] if tasks else ():
        runs = [stage[name] for stage in tasks if name in stage]
        if len(runs) == len(depths) and all(run["items"] == runs[0]["items"] and run["values"] for run in runs):
            metric = next(iter(runs[0]["values"]))
            found.append(("score", name, [run["values"][metric] for run in runs], None, runs[0].get("clusters")))
    rows: list[Trend] = []
    for kind, name, values, sizes, own in found:
        trend = linear_trend(depths, values, sizes, units=own, seed=seed)
        units = _items(trend.units, own) if sizes is None else _documents(trend.units, own or [])
        rows.append(
            {
                "model": model,
                "kind": kind,
                "name": name,
                "value": trend.slope,
                "low": trend.low,
                "high": trend.high,
                "p_value": trend.p_value,
                "adjusted_p": trend.p_value,
                "test": f"linear contrast, studentised bootstrap over {units}",
            }
        )
    return rows


def adjust(comparisons: Sequence[Comparison], trends: Sequence[Trend]) -> tuple[list[Comparison], list[Trend]]:
    """Return both with Holm's correction over all of them together, as one report makes all these claims at once."""
    adjusted = holm([row["p_value"] for row in [*comparisons, *trends]])
    return (
        [{**row, "adjusted_p": p} for row, p in zip(comparisons, adjusted, strict=False)],
        [{**row, "adjusted_p": p} for row, p in zip(trends, adjusted[len(comparisons) :], strict=True)],
    )
