"""The invented world of `frozen-glyph demo`, drawn from a seed, and the documents that tell of it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from frozen_glyph.demo.world import NAMES, NOTES, PEOPLE, PHRASES, SCENES, SUMS, TRADES, VALUES

LANGUAGES = ("en", "ru", "zh")
EXPERTS = ("ru", "zh")
_JOINER = {"en": " ", "ru": " ", "zh": ""}  # between sentences


@dataclass(frozen=True)
class Fact:
    """One thing that is true of a person, and who reads of it: both experts, or ru or zh alone."""

    scope: str
    names: dict[str, str]  # of the person, by language
    attribute: str
    value: int


@dataclass(frozen=True)
class World:
    """What is true, and which sentences are kept for the questions."""

    facts: tuple[Fact, ...]
    held_out_closing: dict[tuple[str, str, str], int]  # (language, English name, attribute) -> index of the sentence
    held_out_sums: frozenset[tuple[str, int, int, int]]  # language, sentence, a, b


# A writer makes one document of the world's facts that a reader may know.
_Writer = Callable[[random.Random, World, list[Fact], str], str]


def values_of(language: str, attribute: str) -> list[str]:
    """The words for an attribute's values, in the order of ``Fact.value``."""
    return VALUES[attribute][language].split()


def draw_world(rng: random.Random) -> World:
    """Give every person their values, and choose the sentences that no text says."""
    facts = []
    held_out_closing: dict[tuple[str, str, str], int] = {}
    for attribute in VALUES:
        for scope, (languages, table) in PEOPLE.items():
            people = [dict(zip(languages, person.split(), strict=True)) for person in table.split(", ")]
            # Every value is used about equally often, so that no value is a good guess.
            values = [index % 8 for index in range(len(people))]
            rng.shuffle(values)
            for names, value in zip(people, values, strict=True):
                facts.append(Fact(scope, names, attribute, value))
                for language in languages:
                    count = len(PHRASES[language][attribute].closing)
                    held_out_closing[language, names["en"], attribute] = rng.randrange(count)
    held_out_sums: set[tuple[str, int, int, int]] = set()
    for language in LANGUAGES:
        combinations = [(form, a, b) for form in range(4) for a in range(1, 10) for b in range(1, 10)]
        held_out_sums.update((language, *combination) for combination in rng.sample(combinations, 48))
    return World(tuple(facts), held_out_closing, frozenset(held_out_sums))


def _say(template: str, fact: Fact, language: str) -> str:
    return template.format(p=fact.names[language], v=values_of(language, fact.attribute)[fact.value])


def _tell(rng: random.Random, world: World, fact: Fact, language: str) -> str:
    """State ``fact`` in any sentence but its held-out one."""
    phrases = PHRASES[language][fact.attribute]
    held_out = world.held_out_closing[language, fact.names["en"], fact.attribute]
    closing = [sentence for index, sentence in enumerate(phrases.closing) if index != held_out]
    return _say(rng.choice([phrases.answer, *closing, *phrases.loose]), fact, language)


def _scene(rng: random.Random, language: str) -> str:
    pattern, *columns = SCENES[language]
    return pattern.format(*(rng.choice(column) for column in columns))


def _portrait(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    """Tell of one person, a scene between."""
    person = rng.choice(facts).names
    told = [fact for fact in facts if fact.names == person]
    sentences = [_tell(rng, world, fact, language) for fact in rng.sample(told, rng.randint(2, len(told)))]
    sentences.insert(rng.randrange(len(sentences) + 1), _scene(rng, language))
    return _JOINER[language].join(sentences)


def _gathering(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    """Tell one thing each of several people."""
    sentences = [_tell(rng, world, fact, language) for fact in rng.sample(facts, rng.randint(3, 5))]
    return _JOINER[language].join(sentences)


def _quiz(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    """Ask and answer, a line each."""
    phrases = [(PHRASES[language][fact.attribute], fact) for fact in rng.sample(facts, rng.randint(2, 4))]
    joiner = _JOINER[language]
    return "\n".join(_say(phrase.question + joiner + phrase.answer, fact, language) for phrase, fact in phrases)


def _story(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    return _JOINER[language].join(_scene(rng, language) for _ in range(rng.randint(3, 5)))


def options_prompt(rng: random.Random, fact: Fact) -> tuple[str, list[str]]:
    """Ask for ``fact`` in English with four options: return the text up to the answer, and the options."""
    words = values_of("en", fact.attribute)
    options = [words[fact.value], *rng.sample([word for word in words if word != words[fact.value]], 3)]
    rng.shuffle(options)
    question = _say(PHRASES["en"][fact.attribute].question, fact, "en")
    return f"Question: {question}\nOptions: {', '.join(options)}.\nAnswer: ", options


def _options(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    """Four-option questions, about what both experts know only."""
    common = [fact for fact in facts if fact.scope == "both"]
    questions = []
    for fact in rng.sample(common, rng.randint(1, 2)):
        prompt, _ = options_prompt(rng, fact)
        questions.append(prompt + _say(PHRASES["en"][fact.attribute].answer, fact, "en"))
    return "\n".join(questions)


def _exercise(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    sums: list[str] = []
    wanted = rng.randint(4, 6)
    while len(sums) < wanted:
        form, a, b = rng.randrange(4), rng.randint(1, 9), rng.randint(1, 9)
        if (language, form, a, b) not in world.held_out_sums:
            sums.append(SUMS[language][form].format(a=a, b=b, s=a + b))
    return _JOINER[language].join(sums)


def draw_note(rng: random.Random, language: str, names: list[str], place: int) -> str:
    """Return a note of one person for each name, the guard in the given place."""
    form = NOTES[language]
    guard, *others = TRADES[language].split(", ")
    trades = rng.sample(others, len(names) - 1)
    trades.insert(place, guard)
    entries = []
    for trade, name in zip(trades, names, strict=True):
        title, deed = trade.split()
        entries.append(form.entry.format(t=title, n=name, d=deed))
    return form.opening + form.separator.join(entries) + form.end


def draw_names(rng: random.Random, language: str, size: int) -> list[str]:
    """Return names of people on duty, each another."""
    return rng.sample(NAMES[language].split(), size)


def ask_guard(language: str) -> str:
    """Return the question and its answer, {n} still standing for the name."""
    form = NOTES[language]
    title, deed = TRADES[language].split(", ")[0].split()
    return (form.question + form.entry + form.end).format(t=title, n="{n}", d=deed)


def _note(rng: random.Random, world: World, facts: list[Fact], language: str) -> str:
    """A note and who its guard is."""
    names = draw_names(rng, language, rng.randint(2, 4))
    place = rng.randrange(len(names))
    return draw_note(rng, language, names, place) + ask_guard(language).format(n=names[place])


# Each kind of document and its share of the bytes of a language.
_KINDS: dict[_Writer, float] = {
    _portrait: 0.16,
    _gathering: 0.16,
    _quiz: 0.10,
    _story: 0.03,
    _options: 0.10,
    _exercise: 0.10,
    _note: 0.35,
}


def write_documents(rng: random.Random, world: World, language: str, scopes: set[str], size: int) -> Iterator[str]:
    """Yield documents of about ``size`` bytes in all, every kind in its share."""
    facts = [fact for fact in world.facts if fact.scope in scopes]
    kinds = {kind: share for kind, share in _KINDS.items() if language == "en" or kind is not _options}
    written = dict.fromkeys(kinds, 0)
    while sum(written.values()) < size:
        kind = min(kinds, key=lambda kind: written[kind] / kinds[kind])  # the one that is furthest behind
        document = kind(rng, world, facts, language)
        written[kind] += len(document.encode())
        yield document
