"""Write files so that a reader sees all of one or nothing, hash them, and read them with errors that name them.

torch is imported where tensors are made, not before: most of what reads and copies checkpoints needs none.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from frozen_glyph.checkpoint.header import HEADER_BYTES, TensorFile
from frozen_glyph.checkpoint.journal import note
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.formats import JSON_BYTES, FormatError, check_type, parse_json, read_bytes
from frozen_glyph.model.weights_frozen_glyph import find_inside, shard_names

if TYPE_CHECKING:
    import torch


class CheckpointError(FrozenGlyphError):
    """A checkpoint folder is missing, incomplete, damaged or of another kind."""


def inside(folder: Path, name: str) -> Path:
    """Path of a file of ``folder`` by a name that came from somewhere, such as an index; it need not be there.

    Raises:
        CheckpointError: the name or a link leads out of the folder (but for the Hub's cache), or it is no regular file.
    """
    try:
        return find_inside(folder, name)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch or write {str(folder)!r} again") from None


def folder_in(folder: Path, name: str) -> Path:
    """The folder ``name`` of ``folder``, which need not be there; what is written into it lies in ``folder``.

    Raises:
        CheckpointError: it is a link.
    """
    path = folder / name
    if path.is_symlink():
        raise CheckpointError(f"{str(path)!r} is a link, so that files would be written elsewhere; remove it")
    return path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, then rename it; on failure ``path`` is as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # some writers make private files; keep what the user's umask says
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        note(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """A new name beside ``path`` for what is to take its place; ``target_of`` knows it again."""
    nonce = secrets.token_hex(4)
    return path.with_name(f".{path.name}.{nonce}{signature(path.name, nonce)}.tmp")


def target_of(path: Path) -> str | None:
    """The name that ``temporary_of`` made this name for, which holds a hash of itself; None of any other name."""
    name, _, code = path.name.removesuffix(".tmp").removeprefix(".").rpartition(".")
    made = path.with_name(f".{name}.{code[:8]}{signature(name, code[:8])}.tmp")
    return name if path == made else None


def signature(name: str, nonce: str) -> str:
    return hashlib.sha256(f"frozen_glyph {nonce} {name}".encode()).hexdigest()[:8]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_tensors(path: Path, tensors: "dict[str, torch.Tensor]") -> None:
    """Write a safetensors file atomically; its header says the hash of its contents (see ``TensorFile``)."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        save_file(plain, temporary, metadata={"content_sha256": "0" * 64, "format": "pt"})
        stored = read_header(temporary).tensors
        digests = {name: sha256_tensor(tensor) for name, tensor in plain.items()}
        content = hash_contents((name, at.dtype, at.shape, digests[name]) for name, at in stored.items())
        metadata = {"content_sha256": content, "format": "pt"}
        with temporary.open("rb+") as file:  # safetensors writes the two entries in random order; same bytes instead
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) | {"__metadata__": metadata}
            file.seek(8)
            file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))

    write_atomically(path, save)


def read_json(path: Path) -> Any:
    """Read a JSON file; ``CheckpointError`` names it when it is missing or no JSON."""
    try:
        return parse_json(read_bytes(path, JSON_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{str(path)!r} does not exist; give the folder of a checkpoint") from None
    except FormatError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None


def read_record(path: Path, kind: Any) -> Any:
    """Read a JSON file of type ``kind`` (see ``formats.check_type``); ``CheckpointError`` names file and field."""
    return check_record(read_json(path), kind, path)


def check_record(value: Any, kind: Any, path: Path) -> Any:
    """``value``, which was read from ``path``, if it is of type ``kind``; else ``CheckpointError``."""
    try:
        check_type(value, kind)
    except FormatError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None
    return value


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """Read a safetensors file; ``CheckpointError`` names it when it is missing, truncated or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}; fetch or write the folder again") from None


def read_header(path: Path) -> TensorFile:
    """Read the header of a safetensors file; ``CheckpointError`` names it when it is missing, truncated or damaged."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > min(HEADER_BYTES, path.stat().st_size):
                raise FormatError(f"its header would have {size:,} bytes")
            found = TensorFile.from_header(parse_json(file.read(size)), 8 + size)
    except (OSError, FormatError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}; fetch or write the folder again") from None
    if path.stat().st_size != 8 + size + found.nbytes:
        raise CheckpointError(
            f"{str(path)!r} cannot be read: it has {path.stat().st_size} bytes, its header says "
            f"{8 + size + found.nbytes}; fetch or write the folder again"
        )
    return found


def write_index(path: Path, weight_map: dict[str, str]) -> dict[str, str | None]:
    """Write a shard index as transformers reads it; return the contents' hash of each shard, which it names too.

    The shards lie beside it.
    """
    shards = {shard: read_header(path.parent / shard) for shard in sorted(set(weight_map.values()))}
    contents = {name: shard.content_sha256 for name, shard in shards.items()}
    metadata = {"total_size": sum(shard.nbytes for shard in shards.values()), "content_sha256": contents}
    write_json(path, {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))})
    return contents


def read_index(path: Path) -> dict[str, Any]:
    """Read a shard index, whose shards lie beside it or are still to be fetched.

    Raises:
        CheckpointError: it is missing or damaged, or names a file that is not one of its folder.
    """
    return check_index(path, read_json(path))


def check_index(path: Path, index: Any) -> dict[str, Any]:
    """The content of the index ``path``; see ``read_index``."""
    try:
        for shard in shard_names(index):
            find_inside(path.parent, shard)
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}; fetch or write the folder again") from None
    return index


def read_weight_map(path: Path) -> dict[str, str]:
    """The shard of each tensor, from an index file; see ``read_index``."""
    return read_index(path)["weight_map"]


def hash_contents(tensors: Iterable[tuple[str, str, tuple[int, ...], str]]) -> str:
    """Hex sha256 of tensors, each given as name, dtype, shape and sha256 of its bytes, whatever files they are in."""
    lines = sorted(f"{name} {dtype} {list(shape)} {digest}\n" for name, dtype, shape, digest in tensors)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_tensor(tensor: "torch.Tensor") -> str:
    """Hex sha256 of the bytes of a contiguous tensor."""
    import torch

    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def read_exactly(file: FileIO, start: int, piece: memoryview) -> None:
    """Fill ``piece`` with the bytes of ``file`` from ``start``; ``CheckpointError`` where the file ends before."""
    file.seek(start)
    filled = 0
    while filled < len(piece):
        count = file.readinto(piece[filled:])
        if not count:
            raise CheckpointError(f"{str(file.name)!r} cannot be read: it ended while it was read; fetch it again")
        filled += count


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
        path = inside(folder, name)
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
    temporary = temporary_of(target)
    try:
        temporary.hardlink_to(source.resolve())  # resolved: a cache of the Hub holds symbolic links
        note(target, temporary)
        temporary.replace(target)
    except OSError:
        copy_file(source, target)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where target is the same file already
