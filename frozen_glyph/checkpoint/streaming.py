"""Write shards from the bytes of other shards: renamed, side by side or cut apart, in pieces of a few megabytes.

No tensor is made and no file is held in memory; what is read is hashed on the way, so that one reading both copies and
verifies. The file equals what ``write_tensors`` would write.
"""

import hashlib
import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from frozen_glyph.checkpoint.files import (
    CheckpointError,
    StoredTensor,
    hash_contents,
    read_exactly,
    write_atomically,
)

PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class Window:
    """Columns of a tensor in a file: ``rows`` runs of ``row_bytes`` bytes, every ``stride`` bytes from ``start``."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    rows: int
    row_bytes: int
    stride: int

    @classmethod
    def whole(cls, path: Path, tensor: StoredTensor) -> "Window":
        """All of a tensor. A matrix is read by rows, anything else in one piece."""
        rows = max(tensor.shape[0], 1) if len(tensor.shape) == 2 else 1
        row_bytes = tensor.nbytes // rows
        return cls(path, tensor.dtype, tensor.shape, tensor.start, rows, row_bytes, row_bytes)

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    def columns(self, index: int, count: int) -> "Window":
        """The ``index``-th of ``count`` equal parts, side by side, of a matrix [rows, columns]."""
        part, rows = self.row_bytes // count, self.shape[0]
        shape = (rows, self.shape[1] // count)
        return Window(self.path, self.dtype, shape, self.start + index * part, rows, part, self.stride)

    def row(self, index: int) -> "Window":
        """One row of a matrix [rows, columns], as a vector."""
        start, size = self.start + index * self.stride, self.row_bytes
        return Window(self.path, self.dtype, self.shape[1:], start, 1, size, size)


@dataclass(frozen=True)
class Joined:
    """A tensor to write: its ``parts`` with their rows side by side, the first part's rows first."""

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
    def dtype(self) -> str:
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def write_shard(path: Path, tensors: dict[str, Joined]) -> tuple[str, dict[Window, str]]:
    """Write ``tensors`` by name as a safetensors file, atomically.

    Returns:
        The file's ``content_sha256``, and the sha256 of what was read through each window.

    Raises:
        CheckpointError: a source ended early, or the file cannot be written; the message names it.
    """
    order = sorted(tensors, key=lambda name: (-item_bytes(tensors[name]), name))
    starts = dict(zip(order, np.cumsum([0, *(tensors[name].nbytes for name in order)]).tolist(), strict=False))
    found: dict[Window, str] = {}
    contents = []

    def header(content: str) -> bytes:
        entries = {
            name: {
                "dtype": tensors[name].dtype,
                "shape": tensors[name].shape,
                "data_offsets": [starts[name], starts[name] + tensors[name].nbytes],
            }
            for name in order
        }
        metadata = {"__metadata__": {"content_sha256": content, "format": "pt"}}
        text = json.dumps(metadata | entries, ensure_ascii=False, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)  # safetensors wants tensors to begin at a multiple of 8
        return len(text).to_bytes(8, "little") + text

    def write(temporary: Path) -> None:
        with Output(temporary, path) as out:
            out.write(header("0" * 64))
            for name in order:
                digest = copy_tensor(tensors[name], out, found)
                contents.append((name, tensors[name].dtype, tensors[name].shape, digest))
            out.rewind()
            out.write(header(hash_contents(contents)))

    write_atomically(path, write)
    return hash_contents(contents), found


def item_bytes(tensor: Joined) -> int:
    return tensor.nbytes // max(math.prod(tensor.shape), 1)


class Output:
    """A file that is written from its beginning; errors name the file that it will become."""

    def __init__(self, temporary: Path, path: Path) -> None:
        self.path, self.file = path, temporary.open("rb+", buffering=0)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def rewind(self) -> None:
        self.file.seek(0)

    def write(self, piece: bytes | memoryview) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise CheckpointError(
                f"{str(self.path)!r} cannot be written: {error.strerror}; make room or choose another disk"
            ) from error


def copy_tensor(tensor: Joined, out: Output, found: dict[Window, str]) -> str:
    """Write one tensor; return its sha256, and put that of each part into ``found``."""
    rows, row_bytes = tensor.parts[0].rows, sum(part.row_bytes for part in tensor.parts)
    step = max(1, PIECE_BYTES // max(row_bytes, *(part.stride for part in tensor.parts), 1))
    joined = np.empty((min(step, rows), row_bytes), np.uint8)
    whole, digests = hashlib.sha256(), [hashlib.sha256() for _ in tensor.parts]
    with ExitStack() as stack:
        files = [stack.enter_context(part.path.open("rb", buffering=0)) for part in tensor.parts]
        for first in range(0, rows, step):
            count, column = min(step, rows - first), 0
            for part, file, digest in zip(tensor.parts, files, digests, strict=True):
                piece = read_rows(part, file, first, count)
                digest.update(piece.data)
                joined[:count, column : column + part.row_bytes] = piece
                column += part.row_bytes
            out.write(joined[:count].data.cast("B"))
            if len(digests) > 1:
                whole.update(joined[:count].data)
    found.update(zip(tensor.parts, (digest.hexdigest() for digest in digests), strict=True))
    return (whole if len(digests) > 1 else digests[0]).hexdigest()


def read_rows(window: Window, file: FileIO, first: int, count: int) -> np.ndarray:
    """``count`` rows of ``window`` from row ``first``: uint8 [count, row_bytes]."""
    span = np.empty((count, window.stride), np.uint8)
    size = (count - 1) * window.stride + window.row_bytes  # nothing behind the last row's columns
    read_exactly(file, window.start + first * window.stride, span.data.cast("B")[:size])
    return np.ascontiguousarray(span[:, : window.row_bytes])


def hash_window(window: Window) -> str:
    """The sha256 of what is read through ``window``."""
    digest, step = hashlib.sha256(), max(1, PIECE_BYTES // max(window.stride, 1))
    with window.path.open("rb", buffering=0) as file:
        for first in range(0, window.rows, step):
            digest.update(read_rows(window, file, first, min(step, window.rows - first)).data)
    return digest.hexdigest()
