"""Every kind of source brings the same documents, says who it is, and is refused by name when it is not usable."""

import gzip
import json

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from frozen_glyph.checkpoint.files import sha256_file
from frozen_glyph.text import documents as text_documents
from frozen_glyph.text.documents import SourceError, TextFileError, divide, split_documents
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe
from frozen_glyph.training.sources import documents, identify

TEXTS = ["The cat\nsat.", "Кот сидел 😀", "猫坐在垫子上。"]


def rows(texts=TEXTS, field="text") -> bytes:
    return "".join(json.dumps({field: text, "id": 1}, ensure_ascii=False) + "\n" for text in texts).encode()


def read(path, field="text"):
    return list(documents(SourceRecipe([str(path)], field=field)))


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture
def write_parquet(tmp_path):
    def write(texts, name="some.parquet"):
        parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), tmp_path / name, row_group_size=2)
        return tmp_path / name

    return write


@pytest.fixture
def dataset_folder(tmp_path):
    """A local folder of the form that a dataset of the Hub has."""
    folder = tmp_path / "cats"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(rows())
    (folder / "validation.jsonl").write_bytes(rows(["held out"]))
    return folder


def test_all_kinds_of_files_bring_the_same_documents(write, write_parquet):
    text, lines = "\n\n".join(TEXTS).encode(), rows()
    assert read(write("some.txt", text)) == TEXTS
    assert read(write("some.txt.gz", gzip.compress(text))) == TEXTS
    assert read(write("some.jsonl", lines)) == TEXTS
    assert read(write("SOME.JSONL.GZ", gzip.compress(lines))) == TEXTS
    assert read(write_parquet(TEXTS)) == TEXTS


def test_files_follow_each_other_and_may_have_another_field(write):
    first, second = write("one.jsonl", rows(TEXTS[:2], "body")), write("two.jsonl", rows(TEXTS[2:], "body"))
    assert list(documents(SourceRecipe([str(first), str(second)], field="body"))) == TEXTS


def test_dataset_is_streamed_by_split(dataset_folder):
    assert list(documents(SourceRecipe(dataset=str(dataset_folder)))) == TEXTS
    assert list(documents(SourceRecipe(dataset=str(dataset_folder), split="validation"))) == ["held out"]


def test_nothing_and_blanks_are_no_documents(write, write_parquet):
    assert read(write("some.jsonl", rows(["", "cat", " \n", None]) + b"\n \n" + rows(["hat"]))) == ["cat", "hat"]
    assert read(write_parquet([None, "cat", "", "hat"])) == ["cat", "hat"]


@given(st.text("a \n\r\t\u3000猫", max_size=40))
def test_text_is_streamed_as_it_would_be_split_whole(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_bytes(text.encode() + b"\n\nlast")
    assert list(documents(SourceRecipe([str(path)]), normalize=False)) == split_documents(text + "\n\nlast")
    assert read(path) == split_documents(text.replace("\r\n", "\n") + "\n\nlast")


@pytest.mark.parametrize("end", ["", "\n"], ids=["one line", "lines"])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_long_documents_are_divided_and_nothing_is_lost(write, monkeypatch, kind, end):
    monkeypatch.setattr(text_documents, "LONGEST_DOCUMENT", 50)
    text = end.join(f"猫{number:04}" for number in range(100))
    path = write(f"some.{kind}", text.encode() if kind == "txt" else rows([text]))
    pieces = read(path)
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 50
    assert "".join(pieces).replace("\n", "") == text.replace("\n", "")
    if end:
        assert all(piece.startswith("猫") for piece in pieces)


def test_document_is_cut_after_a_line(monkeypatch):
    monkeypatch.setattr(text_documents, "LONGEST_DOCUMENT", 5)
    assert list(divide("ab\nc\ndefghijk")) == ["ab\nc\n", "defgh", "ijk"]
    assert list(divide("abcde")) == ["abcde"]


class TestRefusals:
    def refused(self, path, message, field="text", error=SourceError):
        with pytest.raises(error, match=message):
            read(path, field)

    def test_missing_file_is_named(self, tmp_path):
        self.refused(tmp_path / "absent.jsonl", r"absent\.jsonl' does not exist")

    def test_unknown_kind_gets_the_nearest_allowed_one(self, write):
        self.refused(write("some.json", b"{}"), r"unknown kind '\.json'\. Did you mean '\.jsonl'\? Allowed: \.txt, ")

    @pytest.mark.parametrize(("name", "content"), [("e.txt", b" \n\n"), ("e.jsonl", b"\n"), ("f.jsonl", rows([""]))])
    def test_file_without_text_is_named_as_empty(self, write, name, content):
        self.refused(write(name, content), rf"{name}' is empty")

    def test_parquet_without_text_is_named_as_empty(self, write_parquet):
        self.refused(write_parquet([""]), "is empty")

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("kind", ["txt", "jsonl"])
    def test_byte_that_is_not_utf8_is_named_with_its_offset(self, write, kind, packed):
        content = rows(["cat"]) + "кот".encode("cp1251")
        path = write(f"c.{kind}.gz", gzip.compress(content)) if packed else write(f"c.{kind}", content)
        message = f"is not UTF-8: byte 0xea at offset {len(rows(['cat']))}; convert it"
        self.refused(path, message, error=TextFileError)

    def test_line_that_is_no_json_object_is_named_with_its_number(self, write):
        self.refused(write("some.jsonl", rows() + b'{"text": "cat",}\n'), r"some\.jsonl' line 4 is not JSON: .* column")
        self.refused(write("some.jsonl", b'"cat"\n'), r"line 1 holds str, it must be an object with a field 'text'")

    def test_missing_field_gets_the_nearest_and_all_that_there_are(self, write, write_parquet, dataset_folder):
        message = r"has no field 'txt'\. Did you mean 'text'\? Set data\.sources\.field to one of "
        self.refused(write("some.jsonl", rows()), rf"line 1 {message}text, id", "txt")
        self.refused(write_parquet(TEXTS), rf"parquet' {message}id, text", "txt")
        with pytest.raises(SourceError, match=message):
            list(documents(SourceRecipe(dataset=str(dataset_folder), field="txt")))

    def test_field_that_holds_no_text_is_named_with_its_type(self, write, write_parquet):
        self.refused(write("some.jsonl", rows()), "line 1: field 'id' holds int, it must hold text", "id")
        self.refused(write_parquet(TEXTS), "field 'id' holds int, it must hold text", "id")

    def test_damaged_archive_or_parquet_is_named(self, write, write_parquet):
        self.refused(write("some.txt.gz", gzip.compress(b"The cat. " * 99)[:-9]), r"some\.txt\.gz' is damaged")
        self.refused(write("some.txt.gz", b"plain"), r"some\.txt\.gz' is damaged")
        path = write_parquet(TEXTS)
        self.refused(write("half.parquet", path.read_bytes()[:-20]), r"half\.parquet' is damaged or no Parquet file")

    def test_missing_split_is_named(self, dataset_folder):
        with pytest.raises(SourceError, match=r"cats' cannot be read: .*test"):
            list(documents(SourceRecipe(dataset=str(dataset_folder), split="test")))

    def test_unreachable_dataset_is_named(self):
        source = SourceRecipe(dataset="nobody/nothing")
        with pytest.raises(SourceError, match="dataset 'nobody/nothing' cannot be read"):
            list(documents(source))
        with pytest.raises(SourceError, match=r"revision 'main' cannot be looked up .* a full commit sha"):
            identify(DataRecipe([source]))


class TestIdentities:
    def test_files_have_names_and_hashes(self, write):
        one, two = write("one.txt", b"a"), write("two.jsonl", rows())
        identities, _ = identify(DataRecipe([SourceRecipe([str(one)]), SourceRecipe([str(two)])])).records()
        assert identities == [
            {"name": "one.txt", "sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"},
            {"name": "two.jsonl", "sha256": sha256_file(two)},
        ]

    def test_dataset_of_the_hub_has_its_commit(self):
        source = SourceRecipe(dataset="some/cats", subset="ru", revision="a" * 40)
        ((identity,),) = identify(DataRecipe([source])).text
        assert identity == {"name": "some/cats", "subset": "ru", "split": "train", "revision": "a" * 40}

    def test_local_dataset_follows_its_files(self, dataset_folder):
        data = DataRecipe([SourceRecipe(dataset=str(dataset_folder))])
        ((first,),) = identify(data).text
        assert (first["name"], first["split"]) == ("cats", "train")
        (dataset_folder / "train.jsonl").write_bytes(rows(TEXTS[:1]))
        assert identify(data).text[0][0]["sha256"] != first["sha256"]

    def test_missing_files_have_none(self, tmp_path):
        with pytest.raises(SourceError, match=r"absent\.txt' does not exist"):
            identify(DataRecipe([SourceRecipe([str(tmp_path / "absent.txt")])]))
