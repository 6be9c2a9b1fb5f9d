"""Read UTF-8 text files as documents: paragraphs are lines, a blank line ends a document."""

import re
from pathlib import Path

from frozen_glyph.errors import FrozenGlyphError


class TextFileError(FrozenGlyphError):
    """A text file is missing, empty or not UTF-8."""


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
        raise TextFileError(
            f"text file {str(path)!r} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}; "
            "convert it, for example with `iconv -f CP1251 -t UTF-8`"
        ) from None
    if not text.strip():
        raise TextFileError(f"text file {str(path)!r} is empty; it must hold some text")
    return text


def split_documents(text: str) -> list[str]:
    """Split ``text`` at blank lines into documents, dropping surrounding newlines and empty documents."""
    return [document for piece in re.split(r"\n\s*\n", text) if (document := piece.strip("\r\n")).strip()]
