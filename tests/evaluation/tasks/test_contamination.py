"""Items that share a long n-gram with training text are counted as a slow search by the definition counts them."""

import gzip
import json
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.tasks import contamination as room
from frozen_glyph.evaluation.tasks.contamination import contamination
from frozen_glyph.text.documents import split_documents

QUESTION = "In which year did the Normans, led by Duke William, conquer the island kingdom of England?"
PASSAGE = QUESTION.upper().replace(",", " --").replace(" ", "\n", 3)


def is_chinese(sign: str) -> bool:
    return unicodedata.name(sign, "").startswith("CJK UNIFIED IDEOGRAPH")


def slow_words(text: str) -> list[str]:
    """Character by character: letters and digits in a row, a Chinese one alone."""
    words, word = [], ""
    for sign in [*unicodedata.normalize("NFKC", text).casefold(), " "]:
        if sign.isalnum() and not is_chinese(sign):
            word += sign
            continue
        words += [word] if word else []
        word = ""
        words += [sign] if is_chinese(sign) else []
    return words


def slow_characters(text: str) -> list[str]:
    return [sign for sign in unicodedata.normalize("NFKC", text).casefold() if sign.isalnum()]


SLOW = {"words": slow_words, "characters": slow_characters}


def ngrams(units: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(units[at : at + n]) for at in range(len(units) - n + 1)}


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "train.txt"):
        path = tmp_path / name
        path.write_text(text, "utf-8", newline="\n")
        return path

    return write


texts = st.lists(st.sampled_from(["a", "B", "b", "ﬁ", "７", "文", "明", ",", " ", "\n", "\n\n", "'"])).map("".join)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4), texts, st.integers(1, 4), st.sampled_from([*SLOW]))
@example(["a b文", "b"], [], "x A,b 文\n\nb", 3, "words")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_counts_are_those_of_the_slow_search(write, monkeypatch, one, two, train, n, unit):
    monkeypatch.setattr(room, "BATCH", 8)
    train += "\n\nq"  # a text must not be empty
    known = set().union(*(ngrams(SLOW[unit](document), n) for document in split_documents(train)))
    results = contamination({"one": one, "two": two}, [write(train)], n, unit)
    assert [result["task"] for result in results] == ["one", "two"]
    for result, items in zip(results, (one, two), strict=True):
        own = [SLOW[unit](item) for item in items]
        shared = [sorted(ngrams(units, n) & known) for units in own if ngrams(units, n) & known]
        assert (result["items"], result["shared"]) == (len(items), len(shared))
        assert result["too_short"] == sum(len(units) < n for units in own)
        for passage in result["examples"]:
            assert any(tuple(SLOW[unit](passage)) in found for found in shared)
        assert len(result["examples"]) <= len(shared) and bool(result["examples"]) == bool(shared)


def test_case_punctuation_and_line_ends_do_not_count(write):
    (result,) = contamination({"squad": [QUESTION, "Who?"]}, [write(f"Before. {PASSAGE} After.")])
    assert result == {
        "task": "squad",
        "items": 2,
        "shared": 1,
        "too_short": 1,
        "ngram": 13,
        "unit": "words",
        "examples": ["in which year did the normans, led by duke william, conquer the island"],
    }
    unlike = PASSAGE.replace("DUKE", "KING")  # the eighth word of sixteen: no 13 in a row are left
    assert contamination({"squad": [QUESTION]}, [write(unlike)])[0]["shared"] == 0


def test_an_ngram_does_not_cross_documents_or_items(write):
    halves = QUESTION[:37], QUESTION[37:]
    for between, shared in (("\n", 1), ("\n\n", 0)):
        assert contamination({"a": [QUESTION]}, [write(between.join(halves))])[0]["shared"] == shared
    assert contamination({"a": halves}, [write(QUESTION)])[0]["too_short"] == 2


def test_chinese_needs_no_spaces(write):
    train = write("却说周瑜闻诸葛亮之言，转恨孔明，存心欲谋杀之。")
    assert contamination({"zh": ["周瑜，闻诸葛亮之言转恨孔明！"]}, [train], 12)[0]["shared"] == 1
    assert contamination({"zh": ["周瑜闻诸葛亮之言转笑孔明"]}, [train], 9)[0]["shared"] == 1
    assert contamination({"zh": ["周瑜闻诸葛亮之言转笑孔明"]}, [train], 10)[0]["shared"] == 0


def test_files_are_those_that_training_reads(write, tmp_path):
    rows = json.dumps({"content": "nothing"}) + "\n" + json.dumps({"content": PASSAGE}) + "\n"
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.encode()))
    other = write("Nothing of that kind.")
    assert contamination({"a": [QUESTION]}, [other, packed], field="content")[0]["shared"] == 1
    assert contamination({"a": [QUESTION]}, [other])[0]["shared"] == 0


def test_long_and_repeated_examples_are_cut(write):
    long = " ".join(f"{number}{'x' * 20}" for number in range(13))
    (result,) = contamination({"a": [f"{long} {end}" for end in "abc"]}, [write(long)])
    assert result["shared"] == 3
    assert [len(passage) for passage in result["examples"]] == [160]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngram": 0}, "ngram=0 is not allowed"),
        ({"unit": "word"}, "unit='word' is unknown; allowed: words, characters. Did you mean 'words'?"),
        ({"texts": ["missing.txt"]}, "missing.txt' does not exist"),
        ({"texts": ["train.csv"]}, "of unknown kind '.csv'"),
    ],
)
def test_bad_input_is_named(write, tmp_path, options, message):
    write("text"), write("text", "train.csv")
    names = options.pop("texts", ["train.txt"])
    with pytest.raises(FrozenGlyphError) as error:
        contamination({"a": [QUESTION]}, [tmp_path / name for name in names], **options)
    assert message in str(error.value)
