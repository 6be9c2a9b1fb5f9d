"""What the header of a safetensors file says, checked: every tensor has a known type and its own bytes of the file."""

import math
from dataclasses import dataclass
from typing import Any, TypedDict

from frozen_glyph.formats import FormatError, check_type, parse_json

HEADER_BYTES = 100_000_000  # safetensors' own limit
TYPE_BYTES = {
    "U64": 8, "I64": 8, "F64": 8, "C64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2, "U16": 2, "I16": 2,
    "F8_E8M0": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


class Entry(TypedDict):
    """A tensor, as the header says it."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


@dataclass(frozen=True)
class StoredTensor:
    """Where a safetensors file holds a tensor."""

    dtype: str  # as the file says it: F32, BF16, U8, ...
    shape: tuple[int, ...]
    start: int  # its first byte, counted from the beginning of the file
    nbytes: int
    columns: int = 1  # how many equal groups of its columns are hashed one by one (see ``streaming.Joined``)


@dataclass(frozen=True)
class TensorFile:
    """The header of a safetensors file: all that can be known of it without reading its tensors."""

    tensors: dict[str, StoredTensor]
    content_sha256: str | None  # see ``hash_contents``; an index names it, so that no other file passes

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, without the header."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @classmethod
    def from_header(cls, header: Any, start: int) -> "TensorFile":
        """From a file's JSON header; ``start`` is where its tensors begin.

        Raises:
            FormatError: a tensor has an unknown type, other bytes than its shape needs, or shares them with another.
        """
        check_type(header, dict[str, dict[str, Any]])
        metadata = header.get("__metadata__", {})
        check_type(metadata, dict[str, str], "__metadata__")
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        check_type(entries, dict[str, Entry])
        columns = parse_json(metadata.get("columns", "{}"))
        check_type(columns, dict[str, int], "__metadata__.columns")
        check_places(entries)
        tensors = {name: stored_tensor(name, entry, start, columns.get(name, 1)) for name, entry in entries.items()}
        return cls(tensors, metadata.get("content_sha256"))


def check_places(entries: dict[str, Entry]) -> None:
    """Raise ``FormatError`` unless the tensors lie behind each other, without gaps, from byte 0 on."""
    for name, entry in entries.items():
        if len(entry["data_offsets"]) != 2:
            raise FormatError(f"{name!r} has data_offsets {entry['data_offsets']}; they must be two numbers")
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end or last < first:
            raise FormatError(f"{name!r} has data_offsets {entry['data_offsets']}; the tensor before it ends at {end}")
        end = last


def stored_tensor(name: str, entry: Entry, start: int, columns: int) -> StoredTensor:
    """A checked entry of a header."""
    dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in TYPE_BYTES:
        raise FormatError(f"{name!r} has dtype {dtype!r}; known are {', '.join(TYPE_BYTES)}")
    if min(shape, default=0) < 0 or math.prod(shape) * TYPE_BYTES[dtype] != last - first:
        raise FormatError(f"{name!r} has {last - first} bytes, which are not those of {dtype} {list(shape)}")
    if columns != 1 and (len(shape) != 2 or columns < 1 or shape[1] < columns or shape[1] % columns):
        raise FormatError(f"{name!r} of shape {list(shape)} has no {columns} equal groups of columns")
    return StoredTensor(dtype, shape, start + first, last - first, columns)
