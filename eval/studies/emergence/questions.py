"""SQuAD as text, and as a choice: the answer of a question beside nine other spans of the same context and kind."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eval.studies.squad_heads.questions import Question, sample

OTHERS = 9
CHANCE = 1 / (1 + OTHERS)
MOST_WORDS = 3
WORD = re.compile(r"\w(?:[\w'’.,-]*\w)?")


@dataclass(frozen=True)
class Choice:
    """A prompt that ends where the answer begins; the first of ``spans`` is the answer, the others are in random
    order."""

    article: str
    prompt: str
    spans: tuple[str, ...]


def excerpt(question: Question, characters: int, generator: random.Random) -> str:
    """So many ``characters`` of the paragraph, cut between words, the answer somewhere in them."""
    paragraph, begin = question.paragraph, question.answer_start
    end = begin + len(question.answers[0])
    spare = max(0, characters - (end - begin))
    start = max(0, min(begin - generator.randint(0, spare), len(paragraph) - characters))
    stop = max(end, min(start + characters, len(paragraph)))
    if start:
        start = min(begin, paragraph.find(" ", start) + 1)
    if stop < len(paragraph):
        stop = max(end, paragraph.rfind(" ", 0, stop))
    return paragraph[start:stop]


def prompt_of(question: Question, context: str) -> str:
    return " ".join(f"Context: {context}".split()) + f"\nQuestion: {question.text.strip()}\nAnswer:"


def documents(questions: Sequence[Question], characters: int, excerpts: int) -> list[str]:
    """Each question ``excerpts`` times as a document, another part of its paragraph each time; in random order."""
    generator = random.Random(0)
    made = [
        f"{prompt_of(question, excerpt(question, characters, generator))} {' '.join(question.answers[0].split())}"
        for question in questions
        for _ in range(excerpts)
    ]
    return sample(made, len(made))


def passages(texts: Sequence[str], characters: int) -> list[str]:
    """``texts`` cut at the ends of paragraphs into documents of so many ``characters`` or a little more, in random
    order: a mixture divides no document."""
    made: list[str] = []
    for text in texts:
        open_passage: list[str] = []
        for paragraph in text.split("\n"):
            open_passage.append(paragraph)
            if sum(map(len, open_passage)) >= characters:
                made.append("\n".join(open_passage))
                open_passage = []
        made += ["\n".join(open_passage)] if open_passage else []
    return sample(made, len(made))


def choices(questions: Sequence[Question], characters: int, count: int) -> list[Choice]:
    """``count`` questions, drawn at random, of those whose context holds nine other spans like the answer."""
    generator, found = random.Random(0), []
    for question in sample(questions, len(questions)):
        context = excerpt(question, characters, generator)
        others = like_answer(question, context)
        if len(others) >= OTHERS and len(found) < count:
            answer = " ".join(words_of(question.answers[0]))
            spans = (answer, *generator.sample(others, OTHERS))
            found.append(Choice(question.article, prompt_of(question, context), spans))
    return found


def words_of(text: str) -> list[str]:
    return WORD.findall(text)


def kind_of(words: Sequence[str]) -> tuple[str, ...]:
    """Of each word whether it is a number, a name, short or long: two spans of one kind could answer one question."""
    return tuple(
        "number"
        if any(map(str.isdigit, word))
        else "name"
        if word[0].isupper()
        else "long"
        if len(word) > 3
        else "short"
        for word in words
    )


def like_answer(question: Question, context: str) -> list[str]:
    """The spans of ``context`` of the answer's kind and number of words, none of which is in an answer or holds one.

    None where the answer has more than three words, or others between them than spaces.
    """
    answer, right = words_of(question.answers[0]), [" ".join(words_of(text)).lower() for text in question.answers]
    spans = set(spans_of(context, len(answer), kind_of(answer))) if 1 <= len(answer) <= MOST_WORDS else set()
    if " ".join(answer) not in spans:
        return []

    def other(span: str) -> bool:
        return not any(span.lower() in known or known in span.lower() for known in right)

    return sorted(filter(other, spans))


def spans_of(context: str, length: int, kind: tuple[str, ...]) -> Iterator[str]:
    """Spans of ``length`` words of ``context`` with nothing but a space between them, of the ``kind``."""
    words = list(WORD.finditer(context))
    for first in range(len(words) - length + 1):
        span = words[first : first + length]
        text = " ".join(word.group() for word in span)
        if context[span[0].start() : span[-1].end()] == text and kind_of([word.group() for word in span]) == kind:
            yield text


# Rankings that read no question: what a model must beat. The lower, the likelier.
BASELINES: dict[str, Callable[[Choice, str], float]] = {
    "first in the context": lambda choice, span: choice.prompt.find(span),
    "last in the context": lambda choice, span: -choice.prompt.find(span),
    "the shortest": lambda choice, span: len(span),
    "the longest": lambda choice, span: -len(span),
}


def rank_of(costs: Sequence[float]) -> float:
    """How many of the others cost less than the answer, which is the first; one that costs as much counts half."""
    return sum((cost < costs[0]) + (cost == costs[0]) / 2 for cost in costs[1:])
