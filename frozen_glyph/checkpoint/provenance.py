"""What every written folder says of its making: recipe, parents, hashes, versions, seed, machine-independent."""

import importlib.metadata
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import frozen_glyph
from frozen_glyph.checkpoint.contract import PLAN, PROVENANCE_FILE, is_companion
from frozen_glyph.checkpoint.files import inside, read_json, sha256_file, write_json
from frozen_glyph.checkpoint.stored import check_provenance

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate")


def versions() -> dict[str, str]:
    """Python and package versions that shape results."""
    found = {"python": platform.python_version(), "frozen-glyph": frozen_glyph.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_provenance(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write ``provenance.json``: the last file of a folder, the mark that all before it is complete.

    Beside ``content`` it records the sha256 of all that lies beside the shards: ``companions``.
    """
    recorded = {"companions": hash_companions(folder), "versions": versions()}
    write_json(folder / PROVENANCE_FILE, {"format": 1, "kind": kind, **content, **recorded})


def hash_companions(folder: Path) -> dict[str, str]:
    """The sha256 of each companion that lies in ``folder``."""
    return {name: sha256_file(folder / name) for name in find_companions(folder)}


def find_companions(folder: Path) -> list[str]:
    """Names of the companions that lie in ``folder``."""
    found = (
        path.relative_to(folder).as_posix() for entry in PLAN for path in folder.glob(entry.glob) if path.is_file()
    )
    return sorted(name for name in set(found) if is_companion(name))


@contextmanager
def rewriting(folder: Path, *names: str) -> Iterator[None]:
    """While companions are written anew nothing vouches for them; then the provenance, if there is one, does again."""
    vouch_for(folder, names, {})
    yield
    vouch_for(folder, names, {name: sha256_file(folder / name) for name in names if (folder / name).exists()})


def vouch_for(folder: Path, names: Collection[str], hashes: Mapping[str, str]) -> None:
    """Let the provenance, if there is one, record of the companions ``names`` these ``hashes`` and no others."""
    path = folder / PROVENANCE_FILE
    if path.exists():
        found = read_provenance(folder)
        kept = {name: digest for name, digest in found.get("companions", {}).items() if name not in names}
        write_json(path, found | {"companions": dict(sorted((kept | dict(hashes)).items()))})


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read ``provenance.json``; ``CheckpointError`` when the folder has none, or one of another kind or format."""
    return check_provenance(read_json(inside(folder, PROVENANCE_FILE)), folder / PROVENANCE_FILE)


def file_hashes(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 that a provenance records of files, those of its stages included."""
    return {
        name: digest
        for entry in (provenance, *provenance.get("stages", []))
        for name, digest in entry.get("files", {}).items()
    }
