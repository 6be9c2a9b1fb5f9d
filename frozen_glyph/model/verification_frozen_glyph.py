"""Whether files hold the bytes that they were written with, by what shards and ``provenance.json`` say of that."""

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

PROVENANCE = "provenance.json"
logger = logging.getLogger(__name__)


def changed_files(shards: Iterable[str], find: Callable[[str], Path | None]) -> dict[str, str]:
    """What is wrong with each of ``shards`` and ``config.json``; all of their bytes are read.

    ``find`` gives the path of a file. A shard's header says the hash of its contents; where it does not, and of other
    files, the provenance does. A warning names what nobody recorded.
    """
    problems, recorded = {}, recorded_files(find(PROVENANCE))
    for name in (*shards, "config.json"):
        path = find(name)
        if path is None:
            continue
        header, start = read_header(path) if name.endswith(".safetensors") else ({}, 0)
        if expected := header.get("__metadata__", {}).get("content_sha256"):
            found = contents_sha256(path, header, start)
        elif expected := recorded.get(name):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            logger.warning("nothing says what %r was written with, so that its bytes cannot be verified", str(path))
            continue
        if found != expected:
            problems[name] = f"is damaged: sha256 {found[:16]}…, written as {expected[:16]}…"
    return problems


def recorded_files(path: Path | None) -> dict[str, str]:
    """The sha256 of files by a provenance; none without one."""
    content: Any = json.loads(path.read_bytes()) if path is not None else {}
    records = (content, *content.get("stages", []))
    return {name: digest for record in records for name, digest in record.get("files", {}).items()} | content.get(
        "companions", {}
    )


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size


def contents_sha256(path: Path, header: dict[str, Any], start: int) -> str:
    """The hash of name, type, shape and bytes of all tensors of a file, whose bytes are read by several threads."""
    columns = json.loads(header["__metadata__"].get("columns", "{}"))
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):

        def line(name: str) -> str:
            entry = header[name]
            first, end = entry["data_offsets"]
            with view[start + first : start + end] as piece:
                digest = tensor_sha256(piece, columns.get(name, 1), entry["shape"])
            return f"{name} {entry['dtype']} {entry['shape']} {digest}\n"

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lines = sorted(pool.map(line, (name for name in header if name != "__metadata__")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tensor_sha256(piece: memoryview, columns: int, shape: list[int]) -> str:
    """The hash of a tensor's bytes; of a matrix of several groups of columns that of their hashes."""
    if columns == 1:
        return hashlib.sha256(piece).hexdigest()
    table = torch.frombuffer(bytearray(piece), dtype=torch.uint8).view(shape[0], columns, -1)
    parts = (hashlib.sha256(table[:, group].contiguous().numpy().data).hexdigest() for group in range(columns))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


__all__ = ["changed_files"]
