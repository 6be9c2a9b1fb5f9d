"""Text encoded part by part is joined to the bytes that packing it alone gives."""

import dataclasses
import json

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.training import data, parts
from frozen_glyph.training.data import pack
from frozen_glyph.training.parts import encode_parts
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe


@pytest.fixture
def sources(tmp_path):
    """Three files of two kinds, and a dataset of two files."""
    texts = [" ".join(["cat сидел"] * (1 + number % 7)) for number in range(60)]
    rows = [json.dumps({"text": text}) for text in [*texts, " ", ""]]
    (tmp_path / "one.txt").write_text("\n\n".join(texts[:20]), "utf-8")
    (tmp_path / "two.txt").write_text("\n\n".join(texts[20:25]), "utf-8")
    (tmp_path / "three.jsonl").write_text("\n".join(rows), "utf-8")
    (tmp_path / "cats").mkdir()
    for index in range(2):
        (tmp_path / "cats" / f"train-0000{index}-of-00002.jsonl").write_text("\n".join(rows[index::2]), "utf-8")
    files = [str(tmp_path / name) for name in ("one.txt", "two.txt", "three.jsonl")]
    return [SourceRecipe(files), SourceRecipe(dataset=str(tmp_path / "cats"))]


def packed_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.glob("tokens-*")}


@pytest.mark.parametrize(
    ("tasks", "weights", "limit"), [(1, [3.0, 1.0], 500), (3, [None, None], None)], ids=["mixed", "whole"]
)
def test_parts_are_joined_to_the_bytes_of_packing_alone(
    sources, tokenizer, tmp_path, monkeypatch, tasks, weights, limit
):
    chosen = [dataclasses.replace(source, weight=weight) for source, weight in zip(sources, weights, strict=True)]
    recipe = DataRecipe(chosen, tokens=limit)
    pack(recipe, tokenizer, "abc", tmp_path / "alone")
    work = tmp_path / "work"
    for rank in reversed(range(tasks)):
        encode_parts(recipe, tokenizer, "abc", work, rank, tasks)
    assert len(list((work / "parts").iterdir())) == 5
    for module in (data, parts):
        monkeypatch.setattr(module, "encoded", lambda texts, tokenizer: 1 // 0)
    encode_parts(recipe, tokenizer, "abc", work)  # again: everything is there
    pack(recipe, tokenizer, "abc", work)
    assert packed_bytes(work) == packed_bytes(tmp_path / "alone")
    assert not (work / "parts").exists()


def test_parts_that_are_missing_or_damaged_are_encoded_when_joined(sources, tokenizer, tmp_path, caplog):
    recipe, work = DataRecipe(sources), tmp_path / "work"
    pack(recipe, tokenizer, "abc", tmp_path / "alone")
    encode_parts(recipe, tokenizer, "abc", work, 1, 2)  # files 2 of 3, shards 1 of 2
    damaged = next((work / "parts").glob("*/ids.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    pack(recipe, tokenizer, "abc", work)
    assert packed_bytes(work) == packed_bytes(tmp_path / "alone")
    assert "parts are not encoded yet, and are now, such as" in caplog.text
    assert damaged.exists()  # it is not what was written, and so not ours to delete


def test_parts_of_other_text_or_tokenizer_are_not_taken(sources, tokenizer, tmp_path):
    first, work = DataRecipe(sources[:1]), tmp_path / "work"
    encode_parts(first, tokenizer, "abc", work)
    pack(first, tokenizer, "another", work)
    assert len(list((work / "parts").iterdir())) == 3
    (tmp_path / "one.txt").write_text("The cat.", "utf-8")
    pack(first, tokenizer, "abc", work)
    pack(first, tokenizer, "abc", tmp_path / "alone")
    assert packed_bytes(tmp_path / "alone").items() <= packed_bytes(work).items()


def test_failure_leaves_no_part(tokenizer, tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "cat"}\n' * 1000 + b"{")
    with pytest.raises(FrozenGlyphError, match="line 1001 is not JSON"):
        encode_parts(DataRecipe([SourceRecipe([str(tmp_path / "bad.jsonl")])]), tokenizer, "abc", tmp_path / "work")
    assert list((tmp_path / "work").rglob("*.*")) == []
