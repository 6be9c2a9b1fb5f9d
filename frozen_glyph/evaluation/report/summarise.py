"""Turn per-item measurements of one model into losses and scores with intervals, chance levels and verdicts."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from frozen_glyph.evaluation.measurements import TaskPart, TextPart
from frozen_glyph.evaluation.report.bleu import RESAMPLES, mean_corpus_bleu, sentence_counts, signature
from frozen_glyph.evaluation.report.schema import Estimate, GroupScore, Loss, Score, Stage
from frozen_glyph.statistics import (
    MIN_RUNS,
    bootstrap_interval,
    bootstrap_statistic,
    share_interval,
    t_interval,
    verdict,
)

ALL_TEXTS = "all texts"


def pool_texts(parts: Mapping[str, TextPart]) -> dict[str, TextPart]:
    """Return the parts with, where there are several texts, one more that holds the blocks of all of them."""
    if len(parts) < 2:
        return dict(parts)
    offsets = itertools.accumulate((max(part["documents"]) + 1 for part in parts.values()), initial=0)
    pooled: TextPart = {
        "nats": [value for part in parts.values() for value in part["nats"]],
        "characters": [value for part in parts.values() for value in part["characters"]],
        "bytes": [value for part in parts.values() for value in part["bytes"]],
        "documents": [
            first + place
            for first, part in zip(offsets, parts.values(), strict=False)  # after the last one nothing begins
            for place in part["documents"]
        ],
        "tokens": sum(part["tokens"] for part in parts.values()),
    }
    return {**parts, ALL_TEXTS: pooled}


def summarise_loss(model: str, text: str, part: TextPart, seed: int = 0) -> Loss:
    """Return nats per character with an interval over documents."""
    characters = sum(part["characters"])
    return {
        "model": model,
        "text": text,
        **_rate(nats_of(part), part["characters"], part["documents"], seed),
        "tokens": part["tokens"],
        "characters": characters,
        "blocks": len(part["nats"]),
        "documents": len(set(part["documents"])),
        "bits_per_byte": _rate(nats_of(part) / np.log(2), part["bytes"], part["documents"], seed),
    }


def nats_of(part: TextPart) -> NDArray[np.float64]:
    """Nats of every block, NaN where the model gave no number."""
    return np.asarray(part["nats"], np.float64)


def _rate(values: NDArray[np.float64], sizes: Sequence[int], documents: Sequence[int], seed: int) -> Estimate:
    """Their sum over that of ``sizes``; NaN if one of them is none."""
    if not np.isfinite(values).all():
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    low, high = bootstrap_interval(values, sizes, units=documents, seed=seed)
    return {"value": float(sum(values)) / sum(sizes), "low": low, "high": high}


def is_binary(values: Sequence[float]) -> bool:
    """Whether every item is right or wrong, nothing between."""
    return all(value in (0.0, 1.0) for value in values)


def chance_level(options: Sequence[int]) -> float:
    """Return the expected share of right answers of a blind guess: the mean of 1 / options over the items."""
    return float(np.mean(1 / np.asarray(options)))


def _estimate(values: Sequence[float], clusters: Sequence[int] | None, seed: int) -> Estimate:
    """Return a mean with its interval over items, or over the texts that several are about."""
    of = share_interval if is_binary(values) else bootstrap_interval
    low, high = of(values, units=clusters, seed=seed)
    return {"value": sum(values) / len(values), "low": low, "high": high}


def _group_scores(values: Sequence[float], part: TaskPart, seed: int) -> list[GroupScore]:
    places: dict[str, list[int]] = {}
    for place, group in enumerate(part["groups"]):
        places.setdefault(group, []).append(place)
    scores: list[GroupScore] = []
    for group, own in places.items():
        clusters = [part["clusters"][place] for place in own] if "clusters" in part else None
        estimate = _estimate([values[place] for place in own], clusters, seed)
        scores.append({"group": group, "correct": sum(values[place] for place in own), "total": len(own), **estimate})
    return scores


def _finish(score: Score, parts: Sequence[TaskPart], runs: Sequence[float]) -> Score:
    """Add what does not depend on the metric: the verdict, the protocol, and the runs if there were several."""
    part, unscored = parts[0], sum(sum(own.get("unscored", {}).values()) for own in parts)
    if score["chance"] is not None:
        score["verdict"] = verdict((score["low"], score["high"]), score["chance"])
        if part.get("baselines"):
            score["baselines"] = part["baselines"]
            best = max(part["baselines"], key=lambda name: part["baselines"][name])
            if score["verdict"] == "above chance" and score["low"] <= part["baselines"][best]:
                score["verdict"] = f"not above {best}"
    if part.get("published"):
        score["published"] = True
    if unscored:
        score["unscored"] = unscored
    if len(runs) > 1:
        score["runs"] = list(runs)
        low, high = t_interval(runs) if len(runs) >= MIN_RUNS else (0.0, 1.0)
        score["runs_low"], score["runs_high"] = max(0.0, low), min(1.0, high)
    return score


def _check_same_items(task: str, runs: Sequence[TaskPart]) -> None:
    if len({run["items"] for run in runs}) != 1:
        raise ValueError(f"the runs of task {task!r} saw different items; combine runs of one task and limit")


def _bleu_score(model: str, task: str, runs: Sequence[TaskPart], seed: int) -> Score:
    by_run = [sentence_counts(run["translations"]) for run in runs]
    counts = np.concatenate(by_run, axis=1)
    low, high = bootstrap_statistic(counts, mean_corpus_bleu, resamples=RESAMPLES, seed=seed)
    values = [float(mean_corpus_bleu(own.sum(axis=0, keepdims=True))[0]) for own in by_run]
    score: Score = {
        "model": model,
        "task": task,
        "metric": "bleu",
        "correct": None,
        "total": len(counts),
        "value": float(np.mean(values)),
        "low": low,
        "high": high,
        "chance": None,
        "verdict": None,
        "protocol": f"{runs[0]['protocol']}; {signature(runs[0]['translations'])}",
    }
    return _finish(score, runs, values)


def _task_scores(model: str, task: str, runs: Sequence[TaskPart], seed: int) -> list[Score]:
    part = runs[0]
    if "translations" in part:
        return [_bleu_score(model, task, runs, seed)]
    scores = []
    for metric in part["values"]:
        by_run = [run["values"][metric] for run in runs]
        values = by_run[0] if len(runs) == 1 else np.mean(by_run, axis=0).tolist()
        score: Score = {
            "model": model,
            "task": task,
            "metric": metric,
            "correct": sum(values),
            "total": len(values),
            **_estimate(values, part.get("clusters"), seed),
            "chance": chance_level(part["options"]) if part["options"] else None,
            "verdict": None,
            "protocol": part["protocol"],
        }
        if "groups" in part:
            score["groups"] = _group_scores(values, part, seed)
        scores.append(_finish(score, runs, [float(np.mean(run)) for run in by_run]))
    return scores


def summarise_task(model: str, task: str, part: TaskPart, seed: int = 0) -> list[Score]:
    """Return one score for each metric, with its interval over items or over the texts that several are about."""
    return _task_scores(model, task, [part], seed)


def summarise_runs(model: str, task: str, parts: Sequence[TaskPart], seed: int = 0) -> list[Score]:
    """Return one score for each metric of repeated sampled runs over the same items.

    ``low`` and ``high`` are a bootstrap over items of each item's mean over the runs, so they cover the choice of items
    and what sampling noise is left in these means; ``runs_low`` and ``runs_high`` cover sampling noise alone (Student).
    """
    _check_same_items(task, parts)
    return _task_scores(model, task, parts, seed)


def summarise_stage(
    stage: int, num_hidden_layers: int, trainable_parameters: int, losses: Sequence[Loss], scores: Sequence[Score] = ()
) -> Stage:
    """Return what one growth stage is worth: its losses by text and the first metric of each task."""
    first_metrics: dict[str, Score] = {}
    for score in scores:
        first_metrics.setdefault(score["task"], score)
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
