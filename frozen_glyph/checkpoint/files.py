"""Write files so that a reader sees all of one or nothing, hash them, and read them with errors that name them."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Write a safetensors file atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata={"format": "pt"}))


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
