"""Text files are read whole or refused by name; blank lines, of any kind, divide documents."""

import pytest

from frozen_glyph.text.documents import TextFileError, read_text, split_documents


@pytest.fixture
def write(tmp_path):
    def write(content: bytes):
        path = tmp_path / "some.txt"
        path.write_bytes(content)
        return path

    return write


def test_text_is_read_unchanged(write):
    text = "  Кот\nси\rдел\t😀\n\n"
    assert read_text(write(text.encode())) == text


def test_marks_of_where_a_text_was_written_are_no_text(write):
    assert read_text(write("\ufeffКот\r\nсидел\ufeff".encode())) == "Кот\nсидел\ufeff"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TextFileError, match=r"absent\.txt' does not exist"):
        read_text(tmp_path / "absent.txt")


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n"])
def test_blank_file_is_refused(write, content):
    with pytest.raises(TextFileError, match=r"some\.txt' is empty"):
        read_text(write(content))


def test_cp1251_is_refused_with_the_offset_of_the_first_wrong_byte(write):
    content = b"Once " + "кот".encode("cp1251")
    with pytest.raises(TextFileError, match=r"some\.txt' is not UTF-8: byte 0xea at offset 5; convert it"):
        read_text(write(content))


def test_character_cut_in_half_is_refused_where_it_begins(write):
    content = "猫猫".encode()[:-1]
    with pytest.raises(TextFileError, match="byte 0xe7 at offset 3"):
        read_text(write(content))


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one\ntwo\n\nthree\n", ["one\ntwo", "three"]),
        ("\n\none\n\n\n\ntwo", ["one", "two"]),
        ("one\n \t\n  two", ["one", "  two"]),  # the indentation of a first line stays
        ("one\n \n \n \ntwo\n \n", ["one", "two"]),
        ("one\r\ntwo\r\n\r\nthree\r\n", ["one\r\ntwo", "three"]),
        ("one\n\u3000\ntwo", ["one", "two"]),
        (" \n\n ", []),
    ],
)
def test_blank_lines_divide_documents(text, documents):
    assert split_documents(text) == documents
