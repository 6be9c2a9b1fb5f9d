"""Scores of SQuAD answers: exact match, token F1 and containment, and the metric ``squad_v2`` for ``evaluate.load``.

Exact match and F1 after SQuAD's normalisation: Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, section 6.1
(lower case, no punctuation, no articles, single spaces; the best value over the gold answers counts). Questions without
an answer and the best no-answer threshold: Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822, and its evaluation
script. "Contains" is ours. A mirror holds this file as ``squad_v2/squad_v2.py``, which is where stock squadv2 finds it.
"""

import random
import re
import string
from collections import Counter
from typing import Any

import datasets
import evaluate

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
ORDER_SEED = 0


def normalise(text: str) -> str:
    """Lower case, drop punctuation and English articles, and collapse white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def f1_score(prediction: str, gold: str) -> float:
    """Return the F1 of the two normalised texts as bags of words; of two empty ones it is 1."""
    predicted_words, gold_words = normalise(prediction).split(), normalise(gold).split()
    shared = sum((Counter(predicted_words) & Counter(gold_words)).values())
    if not predicted_words or not gold_words:
        return float(predicted_words == gold_words)
    return 2 * shared / (len(predicted_words) + len(gold_words))


def contains(prediction: str, gold: str) -> bool:
    """Tell whether the normalised gold answer occurs in the normalised prediction; an empty gold never does."""
    wanted = normalise(gold)
    return bool(wanted) and wanted in normalise(prediction)


def in_fixed_random_order(docs: datasets.Dataset) -> datasets.Dataset:
    """Shuffle (lm-eval's ``process_docs``), so that ``--limit`` takes a fair sample and not the first articles."""
    return docs.select(random.Random(ORDER_SEED).sample(range(len(docs)), len(docs)))


def score_completion(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Score one greedy completion (lm-eval's ``process_results``) against all gold answers."""
    prediction, golds = results[0], doc["answers"]["text"]
    return {
        "exact_match": float(any(normalise(prediction) == normalise(gold) for gold in golds)),
        "f1": max(f1_score(prediction, gold) for gold in golds),
        "contains": float(any(contains(prediction, gold) for gold in golds)),
    }


def score_answer(prediction: str, golds: list[str]) -> dict[str, float]:
    """Return exact match and F1 of SQuAD v2; without a gold answer, the right prediction is the empty one."""
    wanted = [gold for gold in golds if normalise(gold)] or [""]
    return {
        "exact": float(any(normalise(prediction) == normalise(gold) for gold in wanted)),
        "f1": max(f1_score(prediction, gold) for gold in wanted),
    }


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
