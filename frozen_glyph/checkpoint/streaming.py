"""Write shards from the bytes of other shards: renamed, side by side, cut apart or as another type, piece by piece.

No tensor is made and no file is held in memory; what is read is hashed on the way, so that one reading both copies and
verifies. The file equals what ``write_tensors`` would write.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frozen_glyph.checkpoint.dtypes import INTEGERS, ITEM_BYTES, convert, holds_nan
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    hash_contents,
    link_file,
    read_exactly,
    read_header,
    write_atomically,
)
from frozen_glyph.checkpoint.header import StoredTensor
from frozen_glyph.errors import FrozenGlyphError

# The order in which safetensors puts types into a file, so that all stay aligned.
WIDE_TYPES = ("U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16")
TYPES = (*WIDE_TYPES, "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL")
WRITEBACK_BYTES = 1 << 26  # written before the kernel is told to take them to the disk, so that fsync waits less
PIECE_BYTES = 1 << 20  # few calls, and still in the processor's cache while it is read, hashed and written


@dataclass(frozen=True)
class Window:
    """Columns of a tensor in a file: ``rows`` runs of ``row_bytes`` bytes, every ``stride`` bytes from ``start``.

    ``dtype`` is what comes out of it; where that is another, the file's own type is ``stored``.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    rows: int
    row_bytes: int
    stride: int
    stored: str | None = None

    @classmethod
    def whole(cls, path: Path, tensor: StoredTensor) -> "Window":
        """All of a tensor. A matrix is read by rows, anything else in one piece."""
        rows = max(tensor.shape[0], 1) if len(tensor.shape) == 2 else 1
        row_bytes = tensor.nbytes // rows
        return cls(path, tensor.dtype, tensor.shape, tensor.start, rows, row_bytes, row_bytes)

    @property
    def nbytes(self) -> int:
        return self.rows * self.width

    @property
    def width(self) -> int:
        """Bytes of a row as they come out."""
        if self.stored is None:
            return self.row_bytes
        return self.row_bytes // ITEM_BYTES[self.stored] * ITEM_BYTES[self.dtype]

    @property
    def original(self) -> "Window":
        """The same as it is stored."""
        return self if self.stored is None else dataclasses.replace(self, dtype=self.stored, stored=None)

    def converted(self, dtype: str) -> "Window":
        """The same with numbers of the floating type ``dtype``; integers stay.

        Raises:
            CheckpointError: it is of a type that is not converted.
        """
        if self.dtype in (dtype, *INTEGERS):
            return self
        if self.dtype not in ITEM_BYTES:
            raise CheckpointError(f"{str(self.path)!r} holds numbers of type {self.dtype}, which are not converted")
        return dataclasses.replace(self, dtype=dtype, stored=self.dtype)

    def columns(self, index: int, count: int) -> "Window":
        """The ``index``-th of ``count`` equal parts, side by side, of a matrix [rows, columns]."""
        part, rows = self.row_bytes // count, self.shape[0]
        shape = (rows, self.shape[1] // count)
        return Window(self.path, self.dtype, shape, self.start + index * part, rows, part, self.stride, self.stored)

    def row(self, index: int) -> "Window":
        """One row of a matrix [rows, columns], as a vector."""
        start, size = self.start + index * self.stride, self.row_bytes
        return Window(self.path, self.dtype, self.shape[1:], start, 1, size, size, self.stored)


@dataclass(frozen=True)
class Joined:
    """A tensor to write: its ``parts`` with their rows side by side, the first part's rows first.

    The hash of a matrix made of several is that of their hashes: it follows from what is known of each, and nothing is
    hashed twice. The file's header says ``columns``, how many there are.
    """

    parts: tuple[Window, ...]
    shape: tuple[int, ...]

    @classmethod
    def side_by_side(cls, parts: tuple[Window, ...]) -> "Joined":
        """Matrices [R, C] of one R as one matrix [R, sum of C]."""
        return cls(parts, (parts[0].shape[0], sum(part.shape[1] for part in parts)))

    @classmethod
    def stacked(cls, parts: tuple[Window, ...]) -> "Joined":
        """Vectors [C] as a matrix [number of them, C]."""
        return cls(parts, (len(parts), *parts[0].shape))

    @classmethod
    def alone(cls, part: Window) -> "Joined":
        return cls((part,), part.shape)

    @property
    def columns(self) -> int:
        """How many groups of columns there are; vectors, one below the other, are no columns."""
        return len(self.parts) if self.parts[0].rows > 1 else 1

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def write_shard(path: Path, tensors: dict[str, Joined], pool: Executor | None = None) -> tuple[str, dict[Window, str]]:
    """Write ``tensors`` by name as a safetensors file, atomically; with ``pool`` several at a time.

    Returns:
        The file's ``content_sha256``, and the sha256 of what was read through each window.

    Raises:
        CheckpointError: a source ended early, or the file cannot be written; the message names it.
    """
    order = sorted(tensors, key=lambda name: (TYPES.index(tensors[name].dtype), name))
    starts = dict(zip(order, np.cumsum([0, *(tensors[name].nbytes for name in order)]).tolist(), strict=False))
    found: dict[Window, str] = {}
    contents: list[tuple[str, str, tuple[int, ...], str]] = []

    def header(content: str) -> bytes:
        entries = {
            name: {
                "dtype": tensors[name].dtype,
                "shape": tensors[name].shape,
                "data_offsets": [starts[name], starts[name] + tensors[name].nbytes],
            }
            for name in order
        }
        columns = {name: tensors[name].columns for name in order if tensors[name].columns > 1}
        metadata = {"content_sha256": content, **({"columns": json.dumps(columns)} if columns else {}), "format": "pt"}
        text = json.dumps({"__metadata__": metadata} | entries, ensure_ascii=False, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)  # safetensors wants tensors to begin at a multiple of 8
        return len(text).to_bytes(8, "little") + text

    def write(temporary: Path) -> None:
        first = len(header("0" * 64))

        def copy(name: str) -> str:
            with Output(temporary, path, first + starts[name]) as out:
                return copy_tensor(tensors[name], out, found)

        digests = (pool.map if pool else map)(copy, order)
        for name, digest in zip(order, digests, strict=True):
            contents.append((name, tensors[name].dtype, tensors[name].shape, digest))
        with Output(temporary, path) as out:
            out.write(header(hash_contents(contents)))

    write_atomically(path, write)
    return hash_contents(contents), found


def write_shards(
    folder: Path, shards: dict[str, dict[str, Joined]], linked: Mapping[str, Path] | None = None
) -> dict[Window, str]:
    """Write ``shards``, each its tensors by name, into ``folder``; those in ``linked`` become links to that file.

    Returns the sha256 of what was read through each window.
    """
    linked, digests = linked or {}, dict[Window, str]()
    written = [shard for shard in shards if shard not in linked]
    written.sort(key=lambda shard: -sum(tensor.nbytes for tensor in shards[shard].values()))
    with ThreadPoolExecutor(max_workers=4) as files, ThreadPoolExecutor(os.cpu_count()) as tensors:
        for _, found in files.map(lambda shard: write_shard(folder / shard, shards[shard], tensors), written):
            digests |= found
    for shard, source in linked.items():
        link_file(source, folder / shard)
    return digests


class Output:
    """A file that is written from byte ``start`` on; errors name the file that it will become."""

    def __init__(self, temporary: Path, path: Path, start: int = 0) -> None:
        self.path, self.file = path, temporary.open("rb+", buffering=0)
        self.file.seek(start)
        self.written = self.handed_over = start

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        self.start_writeback()
        self.file.close()

    def write(self, piece: bytes | memoryview) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
            self.written += len(piece)
        except OSError as error:
            raise CheckpointError(
                f"{self.path.name!r} cannot be written: {error.strerror}; make room or choose another disk"
            ) from error
        if self.written - self.handed_over >= WRITEBACK_BYTES:
            self.start_writeback()

    def start_writeback(self) -> None:
        """Let the disk work while the rest is hashed."""
        if hasattr(os, "posix_fadvise"):
            length = self.written - self.handed_over
            os.posix_fadvise(self.file.fileno(), self.handed_over, length, os.POSIX_FADV_DONTNEED)
            self.handed_over = self.written


def copy_tensor(tensor: Joined, out: Output, found: dict[Window, str]) -> str:
    """Write one tensor; return its hash, and put the sha256 of each part, also as it is stored, into ``found``."""
    rows, row_bytes = tensor.parts[0].rows, sum(part.width for part in tensor.parts)
    step = rows_at_once(max(row_bytes, *(part.stride for part in tensor.parts)), rows)
    joined = np.empty((step, row_bytes), np.uint8)
    whole, digests = hashlib.sha256(), [hashlib.sha256() for _ in tensor.parts]
    originals = {part: hashlib.sha256() for part in tensor.parts if part.stored}
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(part, step)) for part in tensor.parts]
        for first in range(0, rows, step):
            count, column = min(step, rows - first), 0
            for reader, digest in zip(readers, digests, strict=True):
                piece = reader.read(first, count)
                if reader.window.stored:
                    originals[reader.window].update(piece.data)
                    piece = converted(reader.window, piece)
                digest.update(piece.data)
                if len(readers) == 1:
                    out.write(piece.data.cast("B"))
                else:
                    joined[:count, column : column + piece.shape[1]] = piece
                    column += piece.shape[1]
            if len(readers) > 1:
                out.write(joined[:count].data.cast("B"))
                if tensor.columns == 1:
                    whole.update(joined[:count].data)
    parts = [digest.hexdigest() for digest in digests]
    found.update(zip(tensor.parts, parts, strict=True))
    found.update({part.original: digest.hexdigest() for part, digest in originals.items()})
    return join_hashes(parts) if tensor.columns == len(parts) else whole.hexdigest()


def converted(window: Window, piece: np.ndarray) -> np.ndarray:
    """Rows of ``window`` as they are stored, as they come out."""
    try:
        return convert(piece, str(window.stored), window.dtype)
    except FrozenGlyphError as error:
        raise CheckpointError(f"{str(window.path)!r} cannot be converted: {error}") from None


def join_hashes(parts: list[str]) -> str:
    """The hash of a matrix from those of its groups of columns: of one group, that group's."""
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def rows_at_once(row_bytes: int, rows: int) -> int:
    return min(rows, max(1, PIECE_BYTES // max(row_bytes, 1)))


class Reader:
    """Reads rows of a window, always into the same memory; ``CheckpointError`` at NaN, unless ``allow_nan``."""

    def __init__(self, window: Window, rows: int, allow_nan: bool = False) -> None:
        self.window, self.span, self.allow_nan = window, np.empty((rows, window.stride), np.uint8), allow_nan

    def __enter__(self) -> "Reader":
        self.file = self.window.path.open("rb", buffering=0)
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def read(self, first: int, count: int) -> np.ndarray:
        """``count`` rows from row ``first``: uint8 [count, row_bytes], to be used before the next call."""
        window = self.window
        size = (count - 1) * window.stride + window.row_bytes  # nothing behind the last row's columns
        read_exactly(self.file, window.start + first * window.stride, self.span.data.cast("B")[:size])
        piece = np.ascontiguousarray(self.span[:count, : window.row_bytes])
        if not self.allow_nan and holds_nan(piece, window.stored or window.dtype):
            raise CheckpointError(
                f"{str(window.path)!r} holds NaN in {tensor_at(window)}, which is no number: its training diverged; "
                "take an earlier checkpoint"
            )
        return piece


def tensor_at(window: Window) -> str:
    """The name of the tensor that a window looks at, in its file."""
    tensors = read_header(window.path).tensors.items()
    return next(name for name, tensor in tensors if tensor.start <= window.start < tensor.start + tensor.nbytes)


def hash_window(window: Window, allow_nan: bool = False) -> str:
    """The sha256 of what comes out of ``window``."""
    digest, step = hashlib.sha256(), rows_at_once(window.stride, window.rows)
    with Reader(window, step, allow_nan) as reader:
        for first in range(0, window.rows, step):
            piece = reader.read(first, min(step, window.rows - first))
            digest.update((converted(window, piece) if window.stored else piece).data)
    return digest.hexdigest()


def windows_of(path: Path, tensor: StoredTensor) -> list[Window]:
    """The windows whose hashes make the hash of a stored tensor."""
    whole = Window.whole(path, tensor)
    return [whole.columns(index, tensor.columns) for index in range(tensor.columns)] if tensor.columns > 1 else [whole]


def content_sha256(path: Path, known: dict[Window, str] | None = None, allow_nan: bool = False) -> str:
    """``hash_contents`` of a safetensors file, from its bytes; windows whose hash is ``known`` are not read again."""
    known, found = known or {}, []
    for name, tensor in read_header(path).tensors.items():
        digests = [known.get(window) or hash_window(window, allow_nan) for window in windows_of(path, tensor)]
        found.append((name, tensor.dtype, tensor.shape, join_hashes(digests)))
    return hash_contents(found)
