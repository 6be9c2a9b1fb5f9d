"""A sample is a text and a held-out text of each language, apart, in the form that `grow` reads; nothing is lost."""

import json
from itertools import chain

import huggingface_hub.constants
import pytest

from frozen_glyph.demo.corpus import Corpus, build_corpus
from frozen_glyph.demo.sample import articles, by_language, write_sample
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import SourceError, split_documents


@pytest.fixture
def dataset(tmp_path):
    """A folder of the form of the dataset of articles: a configuration for each snapshot and language."""
    folder = tmp_path / "articles"
    (folder / "20231101.sw").mkdir(parents=True)
    texts = [f"Paka {number}.\n\n \n\tPaka wa {number} anakaa.\n" for number in range(50)]
    rows = "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    (folder / "20231101.sw" / "train.jsonl").write_text(rows)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: 20231101.sw\n  data_files: 20231101.sw/train.jsonl\n---\n"
    )
    return folder


def test_articles_are_documents_and_every_twentieth_is_held_out(dataset, tmp_path):
    train, valid = write_sample(tmp_path / "data", ["sw"], dataset=str(dataset))
    assert (train.name, valid.name) == ("sw.txt", "sw.valid.txt")
    held_out = split_documents(valid.read_text("utf-8"))
    assert list(held_out) == [f"Paka {number}.\nPaka wa {number} anakaa." for number in (19, 39)]
    assert len(list(split_documents(train.read_text("utf-8")))) == 48
    assert "CC BY-SA 3.0" in (tmp_path / "data" / "SOURCES.md").read_text()


def test_where_earlier_texts_are_from_stays_told(dataset, tmp_path):
    told = tmp_path / "SOURCES.md"
    told.write_text("en: of a friend\n")
    write_sample(tmp_path, ["sw"], dataset=str(dataset))
    first, second = told.read_text().splitlines()
    assert first == "en: of a friend" and second.startswith("sw: articles of")


def test_no_more_is_read_than_asked_for(dataset):
    train, held_out = articles(str(dataset), None, "sw", 0.0005)
    assert 500 <= sum(len(text) for text in chain(train, held_out)) < 540


def test_texts_that_are_there_stay(tmp_path):
    for name in ("sw.txt", "sw.valid.txt"):
        (tmp_path / name).write_text("mine")
    assert {path.read_text() for path in write_sample(tmp_path, ["sw"])} == {"mine"}
    (tmp_path / "sw.valid.txt").unlink()
    with pytest.raises(FrozenGlyphError, match=r"sw\.txt' is there without 'sw\.valid\.txt'"):
        write_sample(tmp_path, ["sw"])


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_it_says_what_to_do_and_writes_nothing(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"cannot be looked up .*text of your own .*--synthetic"):
        write_sample(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_documents_of_both_experts_are_sorted_by_language():
    train = {"ru": "The cat.\n\nКот.\nA cat.\n", "zh": "A hat.\n\n猫。\n"}
    corpus = Corpus(train, {"en": "x\n", "ru": "y\n\nz\n", "zh": "猫\n", "mixed": "x\n"}, [])
    assert by_language(corpus) == {
        "en": (["The cat.", "A hat."], ["x"]), "ru": (["Кот.\nA cat."], ["y", "z"]), "zh": (["猫。"], ["猫"])
    }  # fmt: skip


@pytest.mark.slow
def test_synthetic_text_is_that_of_the_demo_by_language(tmp_path):
    files = {path.name: path.read_text("utf-8") for path in write_sample(tmp_path, synthetic=True)}
    assert set(files) == {f"{language}{kind}.txt" for language in ("en", "ru", "zh") for kind in ("", ".valid")}
    corpus = build_corpus(0)
    assert files["ru.valid.txt"] == corpus.valid["ru"]
    assert files["en.txt"].isascii()
    own = set(split_documents(files["ru.txt"]))
    assert own < set(split_documents(corpus.train["ru"])) and all(max(document) > "а" for document in own)
    assert not own & set(split_documents(files["ru.valid.txt"]))
    with pytest.raises(FrozenGlyphError, match=r"'sw': synthetic text is in en, ru, zh only"):
        write_sample(tmp_path, ["sw"], synthetic=True)
