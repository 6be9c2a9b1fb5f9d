"""Read UTF-8 text files as documents: paragraphs are lines, a blank line ends a document."""

import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from frozen_glyph.errors import FrozenGlyphError


class TextFileError(FrozenGlyphError):
    """A text file is missing, empty or not UTF-8."""


def not_utf8(path: Path, byte: int, offset: int) -> TextFileError:
    """The error that names the first byte of ``path`` that is not UTF-8."""
    return TextFileError(
        f"text file {str(path)!r} is not UTF-8: byte 0x{byte:02x} at offset {offset}; "
        "convert it, for example with `iconv -f CP1251 -t UTF-8`"
    )


def read_text(path: str | Path) -> str:
    """Return the text of ``path``.

    Raises:
        TextFileError: the file is missing, holds no text, or is not UTF-8 (the message gives the byte offset).
    """
    path = Path(path)
    if not path.is_file():
        raise TextFileError(f"text file {str(path)!r} does not exist; give the path of a UTF-8 text file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.object[error.start], error.start) from None
    if not text.strip():
        raise TextFileError(f"text file {str(path)!r} is empty; it must hold some text")
    return text


def split_documents(text: str) -> list[str]:
    """Split ``text`` at blank lines into documents, dropping surrounding newlines and empty documents."""
    return list(line_documents(io.StringIO(text, newline="\n")))


def line_documents(lines: Iterable[str], longest: int = sys.maxsize) -> Iterator[str]:
    """Join lines to documents at blank lines; one of more than ``longest`` characters is divided between lines."""
    document: list[str] = []
    size = 0
    for line in itertools.chain(lines, [""]):
        blank = not line.strip()
        if document and (blank or size + len(line) > longest):
            yield "".join(document).strip("\r\n")
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line)
