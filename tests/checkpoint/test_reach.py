"""A word that is no folder costs one question where the Hub cannot be reached; what is in the cache is still read."""

import time

import huggingface_hub
import pytest

from frozen_glyph.checkpoint import reach
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.merge.experts import open_experts
from frozen_glyph.talk.speakers import Speaker

COMMIT = "a" * 40
NO_ANSWER = "'runs/absent' is no folder and cannot be fetched from the Hub: no answer .*nothing of it is in the cache"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """A Hub at a closed port, no patience, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it waits {seconds} s to try again"))


@pytest.mark.parametrize(
    "open_it",
    [
        describe_checkpoint,
        load_tokenizer,
        lambda word: open_experts(Source(word)),
        Speaker,
        lambda word: Source(word).holds("config.json"),
    ],
    ids=["inspect", "tokenizer", "merge", "generate", "file"],
)
def test_absent_folder_is_named_at_once(open_it):
    with pytest.raises(CheckpointError, match=NO_ANSWER):
        open_it("runs/absent")


def test_what_was_fetched_before_is_read(tmp_path):
    repo = tmp_path / "cache" / "models--user--cats"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text('{"hidden_size": 8}')
    source = Source("user/cats")
    assert source.json("config.json") == {"hidden_size": 8}
    assert source.json("provenance.json") is None
    assert (source.holds("config.json"), source.holds("tokenizer.json")) == (True, False)
    assert source.fetch("model", ["*.json"]) == snapshot
    assert "user/cats" not in reach.answered


@pytest.mark.parametrize("word", ["/no/where", "a/b/c", "./x/y", "user/"])
def test_what_is_no_hub_id_is_not_asked_for(word):
    with pytest.raises(
        CheckpointError, match="is no folder and cannot be fetched from the Hub: it is no Hub id either"
    ):
        describe_checkpoint(word)
