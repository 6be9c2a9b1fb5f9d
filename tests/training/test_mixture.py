"""A weighted mixture that ends early or misses its ratio says so, and every run records what it read of each source."""

import re

import pytest

from frozen_glyph.training.data import pack
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe
from frozen_glyph.training.sources import corpus_record, mixture_warning

DOCUMENT = "The cat sat on the mat."


@pytest.fixture
def mix(tokenizer, tmp_path):
    """``mix({"a": 5, "b": ["text"]}, [0.5, 0.5])``: the record of a mixture, and its warning."""

    def mix(texts, weights, tokens=None):
        sources = []
        for (name, documents), weight in zip(texts.items(), weights, strict=True):
            content = [DOCUMENT] * documents if isinstance(documents, int) else documents
            (tmp_path / f"{name}.txt").write_text("\n\n".join(content), encoding="utf-8")
            sources.append(SourceRecipe([str(tmp_path / f"{name}.txt")], weight=weight))
        data = DataRecipe(sources, tokens=tokens)
        packed = pack(data, tokenizer, "abc", tmp_path / "packed")
        again = pack(data, tokenizer, "abc", tmp_path / "packed")
        record = corpus_record(data, (tmp_path / "packed" / packed.filename))
        assert record["tokens"] == len(packed) == sum(source["tokens"] for source in record["sources"])
        assert record == corpus_record(data, (tmp_path / "packed" / again.filename))
        return record, mixture_warning(record, data.tokens)

    return mix


def test_one_that_ends_early(mix):
    record, warning = mix({"wiki": 900, "notes": 5}, [0.9, 0.1])
    assert record["ended"] == "notes.txt"
    assert record["sources"][1] | {"share": 0} == {
        "name": "notes.txt",
        "tokens": record["sources"][1]["tokens"],
        "share": 0,
        "asked": 0.1,
    }
    shares = r"'wiki.txt' [\d,]+ tokens, (89|90|91)\.\d% \(asked 90\.0%\); 'notes.txt' [\d,]+ tokens"
    assert re.search(shares, warning)
    assert "It ended with 'notes.txt'" in warning


def test_one_that_ends_before_the_tokens_that_were_asked(mix):
    _, warning = mix({"wiki": 900, "notes": 5}, [0.9, 0.1], tokens=10_000)
    assert " of 10,000 tokens" in warning


def test_one_that_misses_its_ratio(mix):
    record, warning = mix({"novel": [f"{DOCUMENT}\n" * 500], "notes": 5}, [0.5, 0.5], tokens=4_000)
    assert record["sources"][0]["share"] == 1.0
    assert "'notes.txt' 0 tokens, 0.0% (asked 50.0%)" in warning
    assert "A document is never divided" in warning


def test_one_that_is_as_asked_says_nothing(mix):
    record, warning = mix({"wiki": 900, "notes": 900}, [3, 1], tokens=4_000)
    assert warning is None
    assert [source["asked"] for source in record["sources"]] == [0.75, 0.25]
    assert [source["share"] for source in record["sources"]] == pytest.approx([0.75, 0.25], abs=0.02)
    record, warning = mix({"wiki": 9, "notes": 9}, [None, None])
    assert warning is None and "asked" not in record["sources"][0]


def test_sources_that_end_together_say_nothing(mix):
    assert mix({"wiki": 9, "notes": 9}, [0.5, 0.5])[1] is None


def test_what_an_earlier_version_packed_has_no_record(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text(DOCUMENT)
    data = DataRecipe([SourceRecipe([str(tmp_path / "a.txt")])])
    packed = pack(data, tokenizer, "abc", tmp_path)
    next(tmp_path.glob("tokens-*.json")).unlink()
    assert corpus_record(data, tmp_path / packed.filename) is None
