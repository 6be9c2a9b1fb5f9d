"""Write files so that a reader sees all of one or nothing, hash them, and read them with errors that name them."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from frozen_glyph.errors import FrozenGlyphError


class CheckpointError(FrozenGlyphError):
    """A checkpoint folder is missing, incomplete, damaged or of another kind."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, then rename it; on failure ``path`` is as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # some writers make private files; keep what the user's umask says
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour to fill, which becomes the folder ``path`` at the end, or vanishes on an error.

    Raises:
        CheckpointError: ``path`` exists and is no empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{str(path)!r} exists and is not empty; choose a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file atomically; its header says the hash of its contents (see ``TensorFile``)."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"content_sha256": sha256_tensors(plain), "format": "pt"}

    def save(temporary: Path) -> None:
        save_file(plain, temporary, metadata=metadata)
        with temporary.open("rb+") as file:  # safetensors writes the two entries in random order; same bytes instead
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) | {"__metadata__": metadata}
            file.seek(8)
            file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))

    write_atomically(path, save)


def read_json(path: Path) -> Any:
    """Read a JSON file; ``CheckpointError`` names it when it is missing or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{str(path)!r} does not exist; give the folder of a checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; ``CheckpointError`` names it when it is missing, truncated or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}; fetch or write the folder again") from None


@dataclass(frozen=True)
class TensorFile:
    """The header of a safetensors file: all that can be known of it without reading its tensors."""

    shapes: dict[str, list[int]]
    nbytes: int  # of the tensors, without the header
    content_sha256: str | None  # of names, types, shapes and values; an index names it, so that no other file passes


def read_header(path: Path) -> TensorFile:
    """Read the header of a safetensors file; ``CheckpointError`` names it when it is missing, truncated or damaged."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, path.stat().st_size)))
        metadata = header.pop("__metadata__", {})
        nbytes = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: entry["shape"] for name, entry in header.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}; fetch or write the folder again") from None
    if path.stat().st_size != 8 + size + nbytes:
        raise CheckpointError(
            f"{str(path)!r} has {path.stat().st_size} bytes, its header says {8 + size + nbytes}; "
            "fetch or write the folder again"
        )
    return TensorFile(shapes, nbytes, metadata.get("content_sha256"))


def sha256_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """Hex sha256 of names, types, shapes and values of contiguous tensors, whatever file they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value, independent of key order and formatting."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_hashes(folder: Path, hashes: dict[str, str]) -> None:
    """Raise ``CheckpointError`` naming the first file of ``folder`` that is missing or has other bytes."""
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{str(path)!r} is missing; fetch or write the folder again")
        if (found := sha256_file(path)) != expected:
            raise CheckpointError(
                f"{str(path)!r} is damaged: sha256 {found[:16]}…, written as {expected[:16]}…; fetch it again"
            )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))


def link_file(source: Path, target: Path) -> None:
    """Let ``target`` be the same file as ``source`` (a hard link), atomically; a copy where that is not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source.resolve())  # resolved: a cache of the Hub holds symbolic links
        temporary.replace(target)
    except OSError:
        copy_file(source, target)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where target is the same file already
