"""One word for a checkpoint: what it means, what it says when it means nothing, and that it can be said again."""

import itertools

import pytest

from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError

WORDS = {
    "runs/ru": Source("runs/ru"),
    "runs/ru@2": Source("runs/ru", 2),
    "user/ru@12": Source("user/ru", 12),
    "runs/ru+user/lora": Source("runs/ru", adapter="user/lora"),
    "runs/ru@2+runs/lora-2": Source("runs/ru", 2, "runs/lora-2"),
    "runs/ru@2+lo+ra@1": Source("runs/ru", 2, "lo+ra@1"),
    "C:/runs/ru@1+D:/lora": Source("C:/runs/ru", 1, "D:/lora"),
    r"C:\runs\ru@1": Source(r"C:\runs\ru", 1),
    "./ru": Source("./ru"),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_means_name_stage_and_adapter(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = Source.parse(word, adapters=True)
    assert source == WORDS[word]
    assert str(source) == word
    assert Source.parse(source) is source


@pytest.mark.parametrize("name", ["ru", "ru@1", "ru@1+x", "ru+x", "a@b", "run+s/ru", "run@s/ru@2"])
def test_what_exists_comes_first(name, tmp_path):
    """A folder is found by its very name, whatever stage and adapter are said of it."""
    (tmp_path / name).mkdir(parents=True)
    for stage, adapter in itertools.product((None, 3), (None, "user/lora")):
        source = Source(name, stage, adapter)
        assert Source.parse(str(source), tmp_path, adapters=True) == source


def test_the_longest_name_that_exists_is_meant(tmp_path):
    for name in ("ru", "ru@1"):
        (tmp_path / name).mkdir()
    assert Source.parse("ru@1", tmp_path) == Source("ru@1")
    assert Source.parse("ru@2", tmp_path) == Source("ru", 2)
    assert Source.parse("ru@1", tmp_path / "elsewhere") == Source("ru", 1)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("runs/ru@two", "'runs/ru@two': growth stage 'two' must be a number from 1 on, as in runs/ru@2"),
        ("runs/ru@", "growth stage '' must be a number"),
        ("runs/ru@0", "growth stage '0' must be a number from 1 on"),
        ("runs/ru@-1", "growth stage '-1' must be a number from 1 on"),
        ("runs/ru@1.5", "growth stage '1.5' must be a number from 1 on"),
        ("runs/ru@²", "growth stage '²' must be a number from 1 on"),
        ("", "'' has an empty name; give a folder or Hub id"),
        ("@2", "'@2' has an empty name"),
        ("+user/lora", r"'\+user/lora' has an empty name"),
        ("runs/ru+", r"'runs/ru\+' has an empty name"),
    ],
)
def test_what_means_nothing_is_refused_with_the_word(word, message):
    with pytest.raises(FrozenGlyphError, match=message):
        Source.parse(word, adapters=True)


def test_an_adapter_is_refused_where_nothing_is_merged():
    with pytest.raises(FrozenGlyphError, match=r"'runs/ru\+lora': only experts of a merge .* leave \+lora out"):
        Source.parse("runs/ru+lora")


def test_fields_are_checked_like_words():
    with pytest.raises(FrozenGlyphError, match="growth stage 0 must be a number from 1 on"):
        Source("runs/ru", 0)


def test_names_and_origins_of_folder_and_hub(tmp_path, monkeypatch):
    (tmp_path / "ru").mkdir()
    monkeypatch.chdir(tmp_path / "ru")
    assert (Source(".").name, Source(".").origin) == ("ru", {"name": "ru"})
    assert Source(".", 2).at(tmp_path / "commit") == Source(".", 2)
    hub = Source("user/ru", 2).at(tmp_path / "commit")
    assert (hub.name, hub.origin) == ("user/ru", {"name": "user/ru", "revision": "commit"})
    assert (hub.arguments, Source("user/ru").arguments) == ({"growth_stage": 2}, {})
