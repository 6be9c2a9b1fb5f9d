"""Write the questions of `frozen-glyph demo` about its synthetic world.

What a question asks was never read in that form:

- facts: this sentence is held out; the fact was read in other sentences, and the sentence with other facts.
- sums: this sentence with these two numbers is held out; the sum was read in other sentences.
- extraction: the note is new, its names drawn at random, so that the answer can only come from the prompt.
- options: English four-option questions over facts that one expert alone read, and read as prose; the form is known
  from facts of scope "both". The choices are the options' texts after the words that lead to them
  ("Answer: Mira lives in" + " Dorn."), not their letters: a tiny model can know a fact, but not bind letters to it.

Questions are scored by the log-likelihood of each choice, which runs to the end of its sentence. Choices of one
question are similar in length.
"""

import random
from dataclasses import dataclass

from frozen_glyph.demo.documents import (
    EXPERTS,
    LANGUAGES,
    Fact,
    World,
    ask_guard,
    draw_names,
    draw_note,
    options_prompt,
    values_of,
)
from frozen_glyph.demo.world import PHRASES, SUMS


@dataclass(frozen=True)
class Question:
    """One question with its choices, each a literal continuation of the prompt; chance is ``1 / len(choices)``."""

    task: str  # facts, sums, extraction or options
    expert: str  # whose training text held what is needed: ru, zh or both
    language: str  # en, ru or zh
    prompt: str
    choices: tuple[str, ...]
    answer: int


def _place(rng: random.Random, right: str, wrong: list[str], answer: int) -> tuple[str, ...]:
    """Return the choices in random order, the right one at ``answer``."""
    choices = rng.sample(wrong, len(wrong))
    choices.insert(answer, right)
    return tuple(choices)


def _split(sentence: str, gap: str) -> tuple[str, str]:
    """Cut a template before ``gap``; the space between words goes with the second part."""
    before, after = sentence.split(gap)
    return (before[:-1], " " + gap + after) if before.endswith(" ") else (before, gap + after)


def _fact_choices(
    rng: random.Random, fact: Fact, sentence: str, language: str, wrong: list[str], answer: int
) -> tuple[str, tuple[str, ...]]:
    """Cut ``sentence`` about ``fact`` before its value; return the prompt and the choices."""
    before, after = _split(sentence, "{v}")
    right = values_of(language, fact.attribute)[fact.value]
    choices = [after.format(v=word) for word in wrong]
    return before.format(p=fact.names[language]), _place(rng, after.format(v=right), choices, answer)


def _fact_questions(rng: random.Random, world: World) -> list[Question]:
    """Common facts in English, and in Russian and Chinese the facts that their expert read."""
    questions = []
    for language in LANGUAGES:
        scopes = {"both"} if language == "en" else {"both", language}
        facts = [fact for fact in world.facts if fact.scope in scopes]
        for index, fact in enumerate(rng.sample(facts, 70)):
            held_out = world.held_out_closing[language, fact.names["en"], fact.attribute]
            sentence = PHRASES[language][fact.attribute].closing[held_out]
            words = values_of(language, fact.attribute)
            wrong = rng.sample([word for word in words if word != words[fact.value]], 3)
            prompt, choices = _fact_choices(rng, fact, sentence, language, wrong, index % 4)
            expert = "both" if language == "en" else language
            questions.append(Question("facts", expert, language, prompt, choices, index % 4))
    return questions


def _option_questions(rng: random.Random, world: World) -> list[Question]:
    """Every fact that one expert alone read, asked in English."""
    questions = []
    for expert in EXPERTS:
        for index, fact in enumerate(fact for fact in world.facts if fact.scope == expert):
            question, options = options_prompt(rng, fact)
            wrong = [option for option in options if option != values_of("en", fact.attribute)[fact.value]]
            sentence = PHRASES["en"][fact.attribute].answer
            prompt, choices = _fact_choices(rng, fact, sentence, "en", wrong, index % 4)
            questions.append(Question("options", expert, "en", question + prompt, choices, index % 4))
    return questions


def _sum_questions(rng: random.Random, world: World) -> list[Question]:
    questions = []
    for index, (language, form, a, b) in enumerate(sorted(world.held_out_sums)):
        before, after = _split(SUMS[language][form], "{s}")
        # Wrong sums have as many digits as the right one.
        sums = range(2, 10) if a + b < 10 else range(10, 19)
        wrong = [after.format(s=wrong) for wrong in rng.sample([s for s in sums if s != a + b], 3)]
        choices = _place(rng, after.format(s=a + b), wrong, index % 4)
        expert = "both" if language == "en" else language
        questions.append(Question("sums", expert, language, before.format(a=a, b=b), choices, index % 4))
    return questions


def _extraction_questions(rng: random.Random, train: str) -> list[Question]:
    """Notes of two to four people that are not in ``train``, the guard in each place equally often."""
    questions = []
    asked: set[str] = set()
    for language in LANGUAGES:
        before, after = _split(ask_guard(language), "{n}")
        for size in (2, 3, 4):
            for index in range(24):
                place, answer = index % size, (index + index // size) % size  # all pairs in turn
                names = draw_names(rng, language, size)
                note = draw_note(rng, language, names, place)
                while note in asked or note in train:
                    names = draw_names(rng, language, size)
                    note = draw_note(rng, language, names, place)
                asked.add(note)
                wrong = [after.format(n=name) for name in names if name != names[place]]
                choices = _place(rng, after.format(n=names[place]), wrong, answer)
                expert = "both" if language == "en" else language
                questions.append(Question("extraction", expert, language, note + before, choices, answer))
    return questions


def write_questions(rng: random.Random, world: World, train: str) -> list[Question]:
    """Return all questions about ``world`` to models that read ``train``."""
    return [
        *_fact_questions(rng, world),
        *_sum_questions(rng, world),
        *_extraction_questions(rng, train),
        *_option_questions(rng, world),
    ]
