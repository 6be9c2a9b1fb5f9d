"""The metric of SQuAD v2 as a module of ``evaluate``, for stock squadv2 without a network.

A mirror holds it as ``squad_v2/squad_v2.py``, where ``evaluate.load("squad_v2")`` looks first. Source of the
definition: Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822, and its evaluation script, whose names and
percentages it keeps.
"""

from typing import Any

import datasets
import evaluate

# ``evaluate`` reads import lines to fetch the files beside: one import a line, and no comment on it.
from .squad_scoring import score_answer


def best_threshold(items: list[tuple[float, float, bool, bool]]) -> tuple[float, float]:
    """Return the best mean score that a no-answer threshold can reach, and that threshold.

    ``items`` are (no-answer probability, score, the question has an answer, the prediction is not empty). Questions are
    answered in the order of their probability: one more with an answer gains its score, one more without loses a point.
    """
    total = best = float(sum(not has_answer for _, _, has_answer, _ in items))
    threshold = 0.0
    for probability, score, has_answer, is_answered in sorted(items, key=lambda item: item[0]):
        total += score if has_answer else -float(is_answered)
        if total > best:
            best, threshold = total, probability
    return best / len(items), threshold


def _mean(values: list[float]) -> float:
    return 100 * sum(values) / len(values)


class SquadV2(evaluate.Metric):
    """The metric of SQuAD v2 under the names of its evaluation script; scores are percentages."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        prediction = {"id": text, "prediction_text": text, "no_answer_probability": datasets.Value("float32")}
        answers = {"text": datasets.Sequence(text), "answer_start": datasets.Sequence(datasets.Value("int32"))}
        features = datasets.Features({"predictions": prediction, "references": {"id": text, "answers": answers}})
        return evaluate.MetricInfo(description=__doc__, citation="arXiv:1806.03822", features=features)

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[dict[str, Any]], no_answer_threshold: float = 1.0
    ) -> dict[str, float]:
        """Score predictions, matched with references by id; above the threshold a question counts as not answered."""
        by_id = {prediction["id"]: prediction for prediction in predictions}
        scores: dict[str, list[float]] = {}
        items: dict[str, list[tuple[float, float, bool, bool]]] = {"exact": [], "f1": []}
        for reference in references:
            prediction, golds = by_id[reference["id"]], reference["answers"]["text"]
            text, probability = prediction["prediction_text"], prediction["no_answer_probability"]
            for name, score in score_answer(text, golds).items():
                items[name].append((probability, score, bool(golds), bool(text)))
                counted = score if probability <= no_answer_threshold else float(not golds)
                for group in ("", "HasAns_" if golds else "NoAns_"):
                    scores.setdefault(f"{group}{name}", []).append(counted)
        result = {name: _mean(values) for name, values in scores.items()}
        result |= {name.replace("exact", "total"): len(values) for name, values in scores.items() if "exact" in name}
        for name, own in items.items():
            best, result[f"best_{name}_thresh"] = best_threshold(own)
            result[f"best_{name}"] = 100 * best
        return result
