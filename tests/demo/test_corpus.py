"""The synthetic corpus: determinism, what is held out, who reads what, and fair questions."""

import re
import unicodedata
from collections import Counter

import pytest

from frozen_glyph.demo import corpus as corpus_module
from frozen_glyph.demo import world
from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus, build_corpus
from frozen_glyph.demo.questions import Question


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus(0)


@pytest.fixture(scope="module")
def sentences(corpus: Corpus) -> dict[str, set[str]]:
    return {expert: set(re.split(r"(?<=[.?。？]) *\n*", text)) for expert, text in corpus.train.items()}


def _names(scope: str, language: str) -> set[str]:
    languages, table = world.PEOPLE[scope]
    return {person.split()[languages.index(language)] for person in table.split(", ")}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _of_task(corpus: Corpus, task: str) -> list[Question]:
    return [question for question in corpus.questions if question.task == task]


def _documents(text: str) -> list[str]:
    return text.strip("\n").split("\n\n")


def test_same_seed_same_corpus_other_seed_another(corpus: Corpus) -> None:
    assert build_corpus(0) == corpus
    other = build_corpus(1)
    assert other.train["ru"] != corpus.train["ru"]
    assert other.train["zh"] != corpus.train["zh"]
    assert other.valid["en"] != corpus.valid["en"]
    assert other.questions != corpus.questions


def test_corpus_says_that_it_is_synthetic() -> None:
    assert "synthetic" in SYNTHETIC_NOTE.lower()
    assert "synthetic" in (corpus_module.__doc__ or "")


def test_training_texts_are_about_six_megabytes_and_held_out_ones_small(corpus: Corpus) -> None:
    assert set(corpus.train) == {"ru", "zh"}
    assert set(corpus.valid) == {"en", "ru", "zh", "mixed"}
    assert all(5_500_000 <= len(text.encode()) <= 6_500_000 for text in corpus.train.values())
    assert all(30_000 <= len(text.encode()) <= 40_000 for text in corpus.valid.values())


def test_text_is_nfc_and_documents_are_separated_by_one_blank_line(corpus: Corpus) -> None:
    for text in [*corpus.train.values(), *corpus.valid.values()]:
        assert unicodedata.is_normalized("NFC", text)
        assert text.endswith("\n") and "\n\n\n" not in text
        assert all(document.strip() == document and document for document in _documents(text))
        assert "{" not in text
    for question in corpus.questions:
        assert all(unicodedata.is_normalized("NFC", question.prompt + choice) for choice in question.choices)
        assert "{" not in question.prompt + "".join(question.choices)


def test_each_expert_reads_its_own_language_and_english(corpus: Corpus) -> None:
    cyrillic, han, latin = r"[а-яё]", r"[\u4e00-\u9fff]", r"[a-z]"
    assert re.search(cyrillic, corpus.train["ru"]) and not re.search(han, corpus.train["ru"])
    assert re.search(han, corpus.train["zh"]) and not re.search(cyrillic, corpus.train["zh"])
    assert all(re.search(latin, text) for text in corpus.train.values())
    assert all(re.search(script, corpus.valid["mixed"]) for script in (cyrillic, han, latin))


def test_facts_of_one_expert_never_reach_the_other(corpus: Corpus) -> None:
    # A fact belongs to a person, so it is enough that the person is never named.
    for own, other in (("ru", "zh"), ("zh", "ru")):
        for language in ("en", own):
            for name in _names(own, language):
                assert name in corpus.train[own]
            assert _words(corpus.train[other]).isdisjoint(_names(own, "en"))
        assert not any(name in corpus.train[other] for name in _names(own, own))
    assert _words(corpus.valid["en"]).isdisjoint(_names("ru", "en") | _names("zh", "en"))


def test_names_are_distinct() -> None:
    for language in ("en", "ru", "zh"):
        own = ["both"] if language == "en" else ["both", language]
        scopes = ["both", "ru", "zh"] if language == "en" else own
        names = [name for scope in scopes for name in _names(scope, language)]
        names += world.NAMES[language].split()
        assert len(names) == len(set(names))


def test_valid_documents_are_not_training_documents(corpus: Corpus) -> None:
    trained = {document for text in corpus.train.values() for document in _documents(text)}
    for text in corpus.valid.values():
        assert trained.isdisjoint(_documents(text))
    apart = [set(_documents(corpus.valid[name])) for name in ("en", "ru", "zh")]
    assert not apart[0] & apart[1] and not apart[1] & apart[2]


@pytest.mark.parametrize("task", ["facts", "sums", "extraction", "options"])
def test_what_is_asked_was_never_read_in_that_form(corpus: Corpus, task: str) -> None:
    for question in _of_task(corpus, task):
        for text in corpus.train.values():
            assert question.prompt + question.choices[question.answer] not in text


def _note_entries(question: Question) -> list[str]:
    """Return "trade name deed" of each person in the note of an extraction question."""
    note = re.split("[.。]", question.prompt)[0]
    return [entry.strip() for entry in re.split("[,，]", re.split("[:：]", note, maxsplit=1)[1])]


def test_the_answer_of_extraction_stands_in_its_new_note(corpus: Corpus) -> None:
    for question in _of_task(corpus, "extraction"):
        note = re.split("(?<=[.。])", question.prompt)[0]
        assert not any(note in text for text in corpus.train.values())
        answer_start = re.split("答：|Answer: |Ответ: ", question.prompt)[1]
        completed = [(answer_start + choice).rstrip(".。") for choice in question.choices]
        # The completed answer repeats an entry of the note for the right choice only.
        assert [text in _note_entries(question) for text in completed] == [
            index == question.answer for index in range(len(question.choices))
        ]
        assert len(question.choices) == len(_note_entries(question))


def test_sums_are_right_and_their_choices_equally_long(corpus: Corpus) -> None:
    for question in _of_task(corpus, "sums"):
        a, b = (int(number) for number in re.findall(r"\d+", question.prompt))
        values = [int(re.findall(r"\d+", choice)[0]) for choice in question.choices]
        assert values[question.answer] == a + b and values.count(a + b) == 1
        assert len({len(choice) for choice in question.choices}) == 1


def test_options_ask_what_their_expert_read_as_prose(corpus: Corpus, sentences: dict[str, set[str]]) -> None:
    for question in _of_task(corpus, "options"):
        body, answer_start = question.prompt.split("Answer: ")
        read = [answer_start + choice in sentences[question.expert] for choice in question.choices]
        assert read == [index == question.answer for index in range(4)]
        assert {choice.strip(" .") for choice in question.choices} == set(body.split("Options: ")[1][:-2].split(", "))


def test_every_held_out_sentence_is_read_about_other_people(corpus: Corpus, sentences: dict[str, set[str]]) -> None:
    for question in _of_task(corpus, "facts"):
        names = set().union(
            *(_names(scope, question.language) for scope, (languages, _) in world.PEOPLE.items()
              if question.language in languages)
        )  # fmt: skip
        own = next(name for name in names if name in question.prompt)
        for expert in ("ru", "zh") if question.expert == "both" else (question.expert,):
            starts = {question.prompt.replace(own, name) for name in names - {own}}
            assert any(start + choice in sentences[expert] for start in starts for choice in question.choices)
            assert not any(question.prompt + choice in sentences[expert] for choice in question.choices)


def test_every_kind_has_enough_questions_and_none_repeats(corpus: Corpus) -> None:
    counts = Counter(question.task for question in corpus.questions)
    assert set(counts) == {"facts", "sums", "extraction", "options"}
    assert counts["facts"] >= 200 and counts["extraction"] >= 200 and counts["sums"] >= 140
    options = Counter(question.expert for question in _of_task(corpus, "options"))
    assert set(options) == {"ru", "zh"} and min(options.values()) >= 60
    assert len({(question.prompt, question.choices) for question in corpus.questions}) == len(corpus.questions)
    assert {question.language for question in _of_task(corpus, "options")} == {"en"}


def test_answers_are_balanced_and_choices_distinct(corpus: Corpus) -> None:
    positions: dict[tuple[str, str, str, int], Counter[int]] = {}
    for question in corpus.questions:
        assert len(set(question.choices)) == len(question.choices)
        key = (question.task, question.expert, question.language, len(question.choices))
        positions.setdefault(key, Counter())[question.answer] += 1
        assert len(question.choices) in ((2, 3, 4) if question.task == "extraction" else (4,))
        spaced = question.language != "zh" or question.task == "sums"  # Chinese sets off numbers, but not words
        assert all(choice.startswith(" ") == spaced for choice in question.choices)
        assert not question.prompt.endswith(" ")
    for (_, _, _, size), counter in positions.items():
        assert set(counter) == set(range(size))
        assert max(counter.values()) - min(counter.values()) <= 1


def test_the_guard_stands_in_every_place_equally_often(corpus: Corpus) -> None:
    places: Counter[tuple[int, int]] = Counter()
    for question in _of_task(corpus, "extraction"):
        answer_start = re.split("答：|Answer: |Ответ: ", question.prompt)[1]
        entries = _note_entries(question)
        places[len(entries), [entry.startswith(answer_start) for entry in entries].index(True)] += 1
    assert places == {(size, place): 72 // size for size in (2, 3, 4) for place in range(size)}
