"""SQuAD for a span head: questions that fit, the tokens of their answers, the best span of logits, its score.

Shapes: T tokens.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.tasks.squad_scoring import score_answer


@dataclass(frozen=True)
class Question:
    """A question, the paragraph that answers it, and where: ``answer_start`` is of the first of ``answers``."""

    article: str
    text: str
    paragraph: str
    answers: tuple[str, ...]
    answer_start: int


@dataclass(frozen=True)
class Example:
    """A question as the model reads it: ``inputs`` with the tokens of the answer, and the characters of each token.

    Tokens from ``first`` on are of the paragraph, and ``offsets`` [T - first] are theirs in it.
    """

    question: Question
    inputs: dict[str, Any]
    first: int
    offsets: list[tuple[int, int]]


def read_questions(file: Path) -> list[Question]:
    """All questions of a file of SQuAD v1.1."""
    return [
        Question(
            article["title"],
            asked["question"],
            paragraph["context"],
            tuple(answer["text"] for answer in asked["answers"]),
            asked["answers"][0]["answer_start"],
        )
        for article in json.loads(file.read_text("utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


def encode(questions: Sequence[Question], tokenizer: Any, positions: int) -> list[Example]:
    """The question, a line break and the paragraph, of those questions that take at most ``positions`` tokens."""
    examples = []
    for question in questions:
        found = tokenizer(f"{question.text.strip()}\n", question.paragraph, return_offsets_mapping=True)
        if len(found["input_ids"]) > positions:
            continue
        first = found.sequence_ids(0).index(1)
        offsets = [tuple(offset) for offset in found["offset_mapping"][first:]]
        begin, end = question.answer_start, question.answer_start + len(question.answers[0])
        tokens = [number for number, (left, right) in enumerate(offsets) if left < end and right > begin]
        inputs = {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}
        inputs |= {"start_positions": first + tokens[0], "end_positions": first + tokens[-1]}
        examples.append(Example(question, inputs, first, offsets))
    return examples


def sample(questions: Sequence[Any], count: int) -> list[Any]:
    """The same ``count`` of them at every call, in a random order; all where there are fewer."""
    return random.Random(0).sample(list(questions), min(count, len(questions)))


def best_span(start_T: torch.Tensor, end_T: torch.Tensor, longest: int) -> tuple[int, int]:
    """First and last token of the span of at most ``longest`` tokens whose two logits have the largest sum."""
    sums_TT = start_T[:, None] + end_T[None, :]
    allowed = torch.ones_like(sums_TT, dtype=torch.bool).triu().tril(longest - 1)
    first, last = divmod(int(sums_TT.masked_fill(~allowed, -torch.inf).argmax()), len(end_T))
    return first, last


def answer_of(example: Example, start_T: torch.Tensor, end_T: torch.Tensor, longest: int) -> str:
    """The text of the best span of an example's logits, padding behind them or not."""
    length = example.first + len(example.offsets)
    first, last = best_span(start_T[example.first : length], end_T[example.first : length], longest)
    return example.question.paragraph[example.offsets[first][0] : example.offsets[last][1]].strip()


def first_words(questions: Sequence[Question], train: Sequence[Question]) -> tuple[list[dict[str, float]], int]:
    """Scores of answering with the paragraph's first words, and how many: what is best for ``train`` (at most 10)."""

    def score(asked: Sequence[Question], words: int) -> list[dict[str, float]]:
        return [
            score_answer(" ".join(question.paragraph.split()[:words]), list(question.answers)) for question in asked
        ]

    words = max(range(1, 11), key=lambda words: sum(entry["f1"] for entry in score(train, words)))
    return score(questions, words), words


def random_spans(questions: Sequence[Question], train: Sequence[Question], draws: int = 20) -> list[dict[str, float]]:
    """Mean scores of ``draws`` spans at random places, as many words long as an answer drawn from ``train``."""
    generator = random.Random(0)
    lengths = [len(question.answers[0].split()) for question in train]
    scores = []
    for question in questions:
        words, drawn = question.paragraph.split(), []
        for _ in range(draws):
            length = min(generator.choice(lengths), len(words))
            first = generator.randrange(len(words) - length + 1)
            drawn.append(score_answer(" ".join(words[first : first + length]), list(question.answers)))
        scores.append({name: sum(entry[name] for entry in drawn) / draws for name in ("exact", "f1")})
    return scores
