"""Scores of one SQuAD answer after SQuAD's normalisation: exact match, token F1 and containment.

Source of exact match and F1: Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, section 6.1 (lower case, no
punctuation, no articles, single spaces; the best value over the gold answers counts). "Contains" is ours.
"""

import functools
import random
import re
import string
from collections import Counter
from typing import Any

from datasets import Dataset

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


@functools.lru_cache(maxsize=1)  # lm-eval asks anew whenever it reads or counts the questions
def in_fixed_random_order(docs: Dataset) -> Dataset:
    """Shuffle (lm-eval's ``process_docs``), so that ``--limit`` takes a fair sample and not the first articles."""
    shuffled = random.Random(ORDER_SEED).sample(docs.to_list(), len(docs))
    return Dataset.from_list(shuffled, features=docs.features)  # reads many times faster than a selection


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
