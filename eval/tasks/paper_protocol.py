"""The published evaluation protocol: letters after multiple-choice questions, short SQuAD answers, and BLEU.

Source: arXiv 2507.07129 and its model cards. Answers are generated, never scored by likelihood. The publication drew
ten samples; these tasks are greedy unless ``--gen_kwargs do_sample=true,temperature=1.0,top_k=0`` makes them one
sampled run.
"""

import functools
import random
import string
from typing import Any

import sacrebleu
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

ORDER_SEED = 0
SQUAD_QUESTIONS = 256
SQUAD_SEED = 42
SQUAD_ANSWER_CHARACTERS = 8


def _lettered(doc: dict[str, Any]) -> dict[str, Any]:
    """Give MMLU, ARC and CommonsenseQA one form; options are lettered anew, because ARC has keys 1 to 4 as well."""
    choices = doc["choices"]
    if isinstance(choices, dict):
        options, answer = choices["text"], choices["label"].index(doc["answerKey"])
    else:
        options, answer = choices, doc["answer"]
    return {
        "id": doc.get("id", ""),
        "subject": doc.get("subject", ""),
        "question": doc["question"].strip(),
        "options": list(options),
        "answer": string.ascii_uppercase[answer],
    }


@functools.lru_cache(maxsize=64)  # lm-eval asks anew whenever it reads or counts the questions, of 57 subjects here
def lettered_questions(docs: Dataset) -> Dataset:
    """Return the questions in one form and one fixed random order, so that ``--limit`` takes a fair sample."""
    return Dataset.from_list(random.Random(ORDER_SEED).sample([_lettered(doc) for doc in docs.to_list()], len(docs)))


def score_first_letter(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Right if the first letter of the completion, in either case, is the answer's."""
    first = next((character for character in results[0] if character.isalpha()), "")
    return {"first_letter": float(first.upper() == doc["answer"])}


@functools.lru_cache(maxsize=1)
def short_answers(docs: Dataset) -> Dataset:
    """Choose 256 random answerable questions of SQuAD v2 whose first gold answer has at most 8 characters."""
    golds = [(index, answers["text"][0]) for index, answers in enumerate(docs["answers"]) if answers["text"]]
    short = [index for index, gold in golds if len(gold) <= SQUAD_ANSWER_CHARACTERS]
    return docs.select(random.Random(SQUAD_SEED).sample(short, min(SQUAD_QUESTIONS, len(short))))


class ShortAnswerSquad(ConfigurableTask):
    """``paper_squad``: an ordinary YAML task, but every question has a token budget of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        # "class" names this class in the YAML and is no field of a task configuration.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """Build the request and give it as many new tokens as its gold answer has characters."""
        request = super().construct_requests(doc, ctx, **kwargs)
        prompt, generation = request.args
        request.arguments = (prompt, {**generation, "max_gen_toks": len(doc["answers"]["text"][0])})
        return request


def score_substring(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Hit if the gold answer is a case-insensitive substring of the completion."""
    return {"hit": float(doc["answers"]["text"][0].lower() in results[0].lower())}


def chinese_bleu(items: list[tuple[str, str]]) -> float:
    """Corpus BLEU of (reference, hypothesis) pairs with sacrebleu's Chinese tokenizer, on the scale from 0 to 100."""
    references, hypotheses = zip(*items, strict=True)
    return sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score
