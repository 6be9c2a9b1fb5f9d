"""Documents of .txt, .jsonl and .parquet files, packed by gzip or not, read as they are asked for.

In a text file paragraphs are lines, and a blank line ends a document. Unless told otherwise a byte order mark at the
beginning of a file is left out and CR LF is read as LF: they say where a text was written, not what.
"""

import codecs
import gzip
import io
import itertools
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.formats import FormatError, parse_json

LONGEST_DOCUMENT = 1 << 20  # characters; what is longer is divided, so that memory is bounded whatever the text
LONGEST_LINE = 1 << 26  # characters of a JSON line, which has to be read as a whole
LONGEST_TEXT = 1 << 30  # characters of a text that is read as a whole
PARQUET_ROWS = 256  # read at once
CODE_PAGE = "convert it, for example with `iconv -f CP1251 -t UTF-8`"
CUT = "it ends within a character: cut it at a line end, or fetch it again"
OTHER_KINDS = {  # by how such a file begins
    b"\x1f\x8b": "it is packed by gzip: name it .txt.gz or .jsonl.gz, or unpack it",
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"\xff\xfe": "it is UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "it is UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`",
}


class TextFileError(FrozenGlyphError):
    """A text file is missing, empty or not UTF-8."""


class SourceError(TextFileError):
    """A source of documents is missing, damaged, empty or lacks the field that was asked for."""


def not_utf8(path: Path) -> TextFileError:
    """The error that names the first byte of ``path`` that is not UTF-8, and what the file may be instead."""
    byte, offset, cut = first_wrong_byte(path)
    with open_bytes(path) as file:
        begin = file.read(4)
    otherwise = CUT if cut else CODE_PAGE
    hint = next((hint for magic, hint in OTHER_KINDS.items() if begin.startswith(magic)), otherwise)
    return TextFileError(f"text file {str(path)!r} is not UTF-8: byte 0x{byte:02x} at offset {offset}; {hint}")


def not_there(path: Path, what: str, wanted: str) -> SourceError:
    """The error for a ``path`` that is no file."""
    if path.is_dir():
        return SourceError(f"{what} {str(path)!r} is a directory; name the files in it, each by itself")
    return SourceError(f"{what} {str(path)!r} does not exist; give the path of a {wanted}")


def read_text(path: str | Path) -> str:
    """Return the text of ``path``; of a .jsonl, .parquet or .gz file its documents, with blank lines between them.

    Raises:
        TextFileError: the file is missing, damaged, holds no text, or is not UTF-8 (the message gives the byte offset).
    """
    path = Path(path)
    if not path.is_file():
        raise not_there(path, "text file", "UTF-8 text file")
    if not is_plain(path):
        return "\n\n".join(bounded(file_documents(path), path))
    with open_text(path) as file:
        text = "".join(bounded(iter(lambda: file.read(LONGEST_DOCUMENT), ""), path)).replace("\r\n", "\n")
    if not text.strip():
        raise TextFileError(f"text file {str(path)!r} is empty; it must hold some text")
    return text


def bounded(pieces: Iterable[str], path: Path) -> Iterator[str]:
    """``pieces`` of the text in ``path``; ``TextFileError`` where they are beyond ``LONGEST_TEXT``."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LONGEST_TEXT:
            raise TextFileError(f"text file {str(path)!r} has more than {LONGEST_TEXT:,} characters, the limit; cut it")
        yield piece


def is_plain(path: Path) -> bool:
    """Whether the bytes of ``path`` are its text, as far as its name says."""
    return not path.name.lower().endswith(tuple(suffix for suffix in READERS if suffix != ".txt"))


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


def file_documents(path: Path, field: str = "text", normalize: bool = True) -> Iterator[str]:
    """The documents of one file in their order; blank ones are left out.

    In a .txt file a blank line ends a document; a line of .jsonl, and a row of .parquet, holds one in ``field``
    (nothing there is an empty document). One of more than ``LONGEST_DOCUMENT`` characters becomes several, divided at
    line ends. Without ``normalize`` byte order marks and CR LF stay.

    Raises:
        SourceError: the file is missing, damaged, of unknown kind or without text, or lacks the field.
        TextFileError: a text file is not UTF-8.
    """
    yield from not_empty(reader_of(path)(path, field, normalize), str(path), normalize)


def not_empty(texts: Iterable[str], name: str, normalize: bool) -> Iterator[str]:
    """``pieces`` of ``texts``; ``SourceError`` when there are none."""
    empty = True
    for piece in pieces(texts, normalize):
        empty = False
        yield piece
    if empty:
        raise SourceError(f"source {name!r} is empty; it must hold some text")


def pieces(texts: Iterable[str], normalize: bool) -> Iterator[str]:
    """``texts`` in pieces of at most ``LONGEST_DOCUMENT`` without blank ones."""
    for text in texts:
        yield from (piece for piece in divide(text.replace("\r\n", "\n") if normalize else text) if not piece.isspace())


def divide(text: str) -> Iterator[str]:
    """Cut ``text`` after the last line end within ``LONGEST_DOCUMENT``, or at it where there is none."""
    begin = 0
    while begin < len(text):
        end = begin + LONGEST_DOCUMENT
        if end < len(text):
            end = text.rfind("\n", begin, end) + 1 or end
        yield text[begin:end]
        begin = end


def text_documents(path: Path, field: str, normalize: bool) -> Iterator[str]:
    """Documents of a text file, which has no fields."""
    with open_text(path, normalize) as file:
        yield from line_documents(iter(lambda: file.readline(LONGEST_DOCUMENT), ""), LONGEST_DOCUMENT)


def json_documents(path: Path, field: str, normalize: bool) -> Iterator[str]:
    """``field`` of the JSON object in each line."""
    with open_text(path, normalize) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), ""), start=1):
            where = f"{str(path)!r} line {number}"
            if len(line) > LONGEST_LINE:
                raise SourceError(f"{where} has more than {LONGEST_LINE:,} characters, the limit; divide its document")
            if line.isspace():
                continue
            try:
                row = parse_json(line)
            except FormatError as error:
                raise SourceError(f"{where} is not JSON: {error}; each line must be one JSON object") from None
            yield text_field(row, field, where)


def parquet_documents(path: Path, field: str, normalize: bool) -> Iterator[str]:
    """``field`` of each row, read a few rows at a time and no other column."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SourceError(f"reading {str(path)!r} needs pyarrow: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            check_field(file.schema_arrow.names, field, repr(str(path)))
            row = 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=[field]):
                for value in batch.column(0):
                    row += 1
                    where = f"{str(path)!r} row {row}"
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError as error:
                        raise SourceError(f"{where}: field {field!r} is not UTF-8: {error.reason}") from None
                    yield text_field({field: text}, field, where)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"{str(path)!r} is damaged or no Parquet file: {error}") from None


Reader = Callable[[Path, str, bool], Iterator[str]]
READERS: dict[str, Reader] = {
    ".txt": text_documents,
    ".txt.gz": text_documents,
    ".jsonl": json_documents,
    ".jsonl.gz": json_documents,
    ".parquet": parquet_documents,
}


def reader_of(path: Path) -> Reader:
    """The reader for the file's kind; ``SourceError`` when the file is missing or of no known kind."""
    if not path.is_file():
        raise not_there(path, "source file", "file with documents")
    for suffix, reader in READERS.items():
        if path.name.lower().endswith(suffix):
            return reader
    known = ", ".join(READERS)
    raise SourceError(
        f"source file {str(path)!r} is of unknown kind {path.suffix!r}.{nearest(path.suffix, READERS)} "
        f"Allowed: {known}; rename or convert it"
    )


@contextmanager
def open_text(path: Path, normalize: bool = True) -> Iterator[TextIO]:
    """Open a UTF-8 file, packed by gzip or not, with its line ends as they are; what is wrong is named.

    ``normalize`` leaves a byte order mark at its beginning out.
    """
    encoding = "utf-8-sig" if normalize else "utf-8"
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rt", encoding=encoding, newline="\n") as file:
                yield file
        else:
            with path.open(encoding=encoding, newline="\n") as file:
                yield file
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{str(path)!r} is damaged: {error}; fetch it again") from None


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where its name ends in .gz."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def first_wrong_byte(path: Path) -> tuple[int, int, bool]:
    """The first byte that is not UTF-8, its offset in the (unpacked) text, whether only the end is missing."""
    offset, decoder = 0, codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        for piece in itertools.chain(iter(lambda: file.read(LONGEST_DOCUMENT), b""), [b""]):
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                begin = offset + len(piece) - len(error.object)
                return error.object[error.start], begin + error.start, error.reason == "unexpected end of data"
            offset += len(piece)
    raise SourceError(f"{str(path)!r} was changed while it was read; start again")


def check_field(names: Iterable[str], field: str, where: str) -> None:
    """Raise ``SourceError`` with the fields there are unless ``field`` is among them."""
    names = list(names)
    if field not in names:
        hint = nearest(field, names)
        raise SourceError(f"{where} has no field {field!r}.{hint} Set data.sources.field to one of {', '.join(names)}")


def text_field(row: Any, field: str, where: str) -> str:
    """The text in ``field`` of ``row``; nothing there is an empty text."""
    if not isinstance(row, dict):
        raise SourceError(f"{where} holds {type(row).__name__}, it must be an object with a field {field!r}")
    check_field(row, field, where)
    text = "" if row[field] is None else row[field]
    if not isinstance(text, str):
        raise SourceError(f"{where}: field {field!r} holds {type(text).__name__}, it must hold text")
    return text
