"""Turn per-item measurements into losses, scores and paired comparisons with intervals, chance levels and verdicts."""

from collections.abc import Mapping, Sequence

import numpy as np

from frozen_glyph.evaluation.measure import TaskPart, TextPart
from frozen_glyph.evaluation.report_schema import Comparison, Loss, Score, Stage
from frozen_glyph.statistics import (
    Interval,
    binomial_interval,
    bootstrap_interval,
    mcnemar_exact,
    paired_bootstrap,
    verdict,
)

ALL_TEXTS = "all texts"


def pool_texts(parts: Mapping[str, TextPart]) -> dict[str, TextPart]:
    """Return the parts with, where there are several texts, one more that holds the blocks of all of them."""
    if len(parts) < 2:
        return dict(parts)
    pooled: TextPart = {
        "nats": [value for part in parts.values() for value in part["nats"]],
        "characters": [value for part in parts.values() for value in part["characters"]],
        "bytes": [value for part in parts.values() for value in part["bytes"]],
        "tokens": sum(part["tokens"] for part in parts.values()),
    }
    return {**parts, ALL_TEXTS: pooled}


def summarise_loss(model: str, text: str, part: TextPart, seed: int = 0) -> Loss:
    """Return nats per character with a bootstrap interval over blocks."""
    low, high = bootstrap_interval(part["nats"], part["characters"], seed=seed)
    characters = sum(part["characters"])
    return {
        "model": model,
        "text": text,
        "value": sum(part["nats"]) / characters,
        "low": low,
        "high": high,
        "tokens": part["tokens"],
        "characters": characters,
        "blocks": len(part["nats"]),
    }


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def chance_level(options: Sequence[int]) -> float:
    """Return the expected share of right answers of a blind guess: the mean of 1 / options over the items."""
    return float(np.mean(1 / np.asarray(options)))


def summarise_task(model: str, task: str, part: TaskPart, seed: int = 0) -> list[Score]:
    """Return one score for each metric: exact binomial interval if items are right or wrong, else bootstrap."""
    chance = chance_level(part["options"]) if part["options"] else None
    scores: list[Score] = []
    for metric, values in part["values"].items():
        interval: Interval
        if _is_binary(values):
            interval = binomial_interval(round(sum(values)), len(values))
        else:
            interval = bootstrap_interval(values, seed=seed)
        scores.append(
            {
                "model": model,
                "task": task,
                "metric": metric,
                "correct": sum(values),
                "total": len(values),
                "value": sum(values) / len(values),
                "low": interval.low,
                "high": interval.high,
                "chance": chance,
                "verdict": None if chance is None else verdict(interval, chance),
                "protocol": part["protocol"],
            }
        )
    return scores


def compare_losses(
    text: str, first: tuple[str, TextPart], second: tuple[str, TextPart], seed: int = 0
) -> Comparison | None:
    """Return second minus first in nats per character, or None if the two were not cut into the same blocks."""
    (first_model, first_part), (second_model, second_part) = first, second
    if first_part["characters"] != second_part["characters"]:
        return None
    result = paired_bootstrap(first_part["nats"], second_part["nats"], first_part["characters"], seed=seed)
    return {
        "kind": "loss",
        "name": text,
        "first": first_model,
        "second": second_model,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p_value": result.p_value,
        "test": "paired bootstrap over blocks",
    }


def compare_scores(
    task: str, first: tuple[str, TaskPart], second: tuple[str, TaskPart], seed: int = 0
) -> Comparison | None:
    """Return second minus first of the task's first metric, or None if the two saw different items.

    The interval is a paired bootstrap over items; the p-value is McNemar's exact test where items are right or wrong.
    """
    (first_model, first_part), (second_model, second_part) = first, second
    if first_part["items"] != second_part["items"]:
        return None
    metric = next(iter(first_part["values"]))
    first_values, second_values = first_part["values"][metric], second_part["values"][metric]
    result = paired_bootstrap(first_values, second_values, seed=seed)
    binary = _is_binary(first_values) and _is_binary(second_values)
    return {
        "kind": "score",
        "name": task,
        "first": first_model,
        "second": second_model,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p_value": mcnemar_exact(first_values, second_values).p_value if binary else result.p_value,
        "test": "exact McNemar test" if binary else "paired bootstrap over items",
    }


def summarise_stage(
    stage: int, num_hidden_layers: int, trainable_parameters: int, losses: Sequence[Loss], scores: Sequence[Score] = ()
) -> Stage:
    """Return what one growth stage is worth: its losses by text and the first metric of each task."""
    first_metrics = {score["task"]: score for score in reversed(scores)}
    return {
        "stage": stage,
        "num_hidden_layers": num_hidden_layers,
        "trainable_parameters": trainable_parameters,
        "losses": {loss["text"]: {"value": loss["value"], "low": loss["low"], "high": loss["high"]} for loss in losses},
        "scores": {
            task: {
                "value": score["value"],
                "low": score["low"],
                "high": score["high"],
                "correct": score["correct"],
                "total": score["total"],
                "chance": score["chance"],
            }
            for task, score in first_metrics.items()
        },
    }
