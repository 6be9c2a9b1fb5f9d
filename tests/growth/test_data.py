"""Texts become one array of ids, each document between its marks, cut into windows that cover it in order."""

import numpy as np
import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.data import BATCH_DOCUMENTS, TokenWindows, pack, text_hashes
from frozen_glyph.text.documents import split_documents


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def packed_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_document_stands_between_its_marks(write, tokenizer, tmp_path):
    paths = [write("one.txt", "The cat\n\nsat 😀"), write("two.txt", "Кот сидел\n")]
    documents = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("The cat", "sat 😀", "Кот сидел")]
    expected = [id_ for ids in documents for id_ in (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id)]
    tokens = pack(paths, tokenizer, "abc", tmp_path / "packed")
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == expected


def test_more_documents_than_one_batch_keep_their_order(write, tokenizer, tmp_path):
    text = "\n\n".join(f"cat {number}" for number in range(BATCH_DOCUMENTS + 3))
    tokens = pack([write("many.txt", text)], tokenizer, "abc", tmp_path / "packed")
    found = tokenizer.decode(tokens).split(tokenizer.eos_token + tokenizer.bos_token)
    found[0], found[-1] = found[0].removeprefix(tokenizer.bos_token), found[-1].removesuffix(tokenizer.eos_token)
    assert found == split_documents(text)


def test_many_token_ids_take_32_bits(write, tokenizer, tmp_path):
    class Wide:
        """The tiny tokenizer with its ids moved beyond 16 bits."""

        bos_token_id, eos_token_id = 70_001, 70_002

        def __len__(self):
            return 1 << 17

        def __call__(self, texts, **kwargs):
            encoded = tokenizer(texts, **kwargs)["input_ids"]
            return {"input_ids": [[70_003 + id_ for id_ in ids] for ids in encoded]}

    tokens = pack([write("one.txt", "cat")], Wide(), "abc", tmp_path / "packed")
    assert tokens.dtype == np.uint32
    assert [tokens[0], tokens[-1]] == [70_001, 70_002]
    assert tokens.min() > 1 << 16


def test_packed_file_is_made_once_for_one_text_and_tokenizer(write, tokenizer, tmp_path):
    folder = tmp_path / "packed"
    path = write("one.txt", "The cat sat.")
    first = pack([path], tokenizer, "abc", folder).tolist()
    (name,) = packed_files(folder)
    written = (folder / name).stat()
    assert pack([path], tokenizer, "abc", folder).tolist() == first
    assert packed_files(folder) == [name]
    assert ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    pack([path], tokenizer, "another tokenizer", folder)
    assert len(packed_files(folder)) == 2
    second = pack([write("one.txt", "The cat sat!")], tokenizer, "abc", folder).tolist()
    assert len(packed_files(folder)) == 3
    assert second != first


def test_hashes_name_each_text(write):
    first, second = text_hashes([write("one.txt", "a"), write("two.txt", "b")])
    assert (first["name"], second["name"]) == ("one.txt", "two.txt")
    assert first["sha256"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert second["sha256"] != first["sha256"]


def test_windows_cover_the_tokens_in_order():
    windows = TokenWindows(np.arange(35, dtype=np.uint16), 8)
    assert len(windows) == 4
    ids = [windows[index]["input_ids"].tolist() for index in range(4)]
    assert [id_ for window in ids for id_ in window] == list(range(32))
    assert all(windows[index]["labels"].tolist() == ids[index] for index in range(4))


def test_text_shorter_than_a_window_is_refused():
    with pytest.raises(FrozenGlyphError, match=r"has 7 tokens, fewer than one window of training\.context_length=8"):
        TokenWindows(np.arange(7, dtype=np.uint16), 8)
    assert len(TokenWindows(np.arange(8, dtype=np.uint16), 8)) == 1
