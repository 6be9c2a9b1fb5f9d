"""The suites of others run only when asked for: they are fetched first, and have other manners than ours."""

import itertools
import os

import pytest
from peers.reasons import reason_for
from peers.table import OURS
from peers.texts import PAIRS, write_texts
from peers.variants import CHOICE, RESERVED, VOCABULARY, chosen, draw_pictures

from frozen_glyph import build_tokenizer
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

ADAPTERS = ("test_transformers", "test_peft", "test_trl")


def pytest_ignore_collect(collection_path, config):
    """Without ``-m peers`` nobody pays for the import of the suites."""
    if collection_path.stem in ADAPTERS and config.option.markexpr != "peers":
        return True
    return None


def pytest_collection_modifyitems(items, config):
    """Their tests of other models go, those that do not fit ours are skipped with the reason."""
    kept = []
    for item in items:
        module = item.module.__name__.rpartition(".")[2]
        if module not in ADAPTERS:
            kept.append(item)
            continue
        given = getattr(getattr(item, "callspec", None), "params", {})
        if given.get("model_id") not in (None, *getattr(item.module, "STANDS_IN_FOR", ())[:1]):
            continue
        name = f"{item.name} {given.get('config_kwargs', '')}".strip()  # for theirs that differ in nothing else
        why = reason_for(module.removeprefix("test_"), os.environ[CHOICE], name)
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=f"{OURS}{why}"))
        kept.append(item)
    items[:] = kept


@pytest.fixture(autouse=True)
def no_deprecated_calls():
    """Over the fixture of all tests: what others call is theirs."""
    yield


@pytest.fixture(scope="session")
def pictures():
    """Models made from a bare configuration get pictures: see ``variants.py``."""
    bare = FrozenGlyphEmbedding.__init__

    def drawn(self, *args, **kwargs):
        bare(self, *args, **kwargs)
        draw_pictures(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenGlyphEmbedding, "__init__", drawn)
        yield


@pytest.fixture(scope="session")
def stand_ins(pictures, tmp_path_factory):
    """A folder in which names on the Hub are folders: the variant under test, and texts."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = build_tokenizer(itertools.chain(*PAIRS), vocab_size=VOCABULARY, reserved=RESERVED)
    assert len(tokenizer) == VOCABULARY
    chosen().write(folder / "variant", tokenizer)
    write_texts(folder)
    return folder


@pytest.fixture(autouse=True)
def at_the_suite(request, monkeypatch):
    """Bring what a suite of others takes for granted."""
    if request.module.__name__.rpartition(".")[2] not in ADAPTERS:
        return
    request.getfixturevalue("pictures")
    if names := getattr(request.module, "STANDS_IN_FOR", ()):
        folder = request.getfixturevalue("stand_ins")
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            if not (folder / name).exists():
                (folder / name).symlink_to(folder / "variant")
        monkeypatch.chdir(folder)
