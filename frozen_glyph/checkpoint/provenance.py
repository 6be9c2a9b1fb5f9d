"""What every written folder says of its making: recipe, parents, hashes, versions, seed, machine-independent."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import frozen_glyph
from frozen_glyph.checkpoint.contract import PROVENANCE_FILE
from frozen_glyph.checkpoint.files import inside, read_json, write_json
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
    """Write ``provenance.json``: the last file of a folder, the mark that all before it is complete."""
    write_json(folder / PROVENANCE_FILE, {"format": 1, "kind": kind, **content, "versions": versions()})


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read ``provenance.json``; ``CheckpointError`` when the folder has none, or one of another kind or format."""
    return check_provenance(read_json(inside(folder, PROVENANCE_FILE)), folder / PROVENANCE_FILE)


def file_hashes(provenance: dict[str, Any]) -> dict[str, str]:
    """The sha256 that a provenance records of files, those of its stages included."""
    return {
        name: digest
        for entry in (provenance, *provenance.get("stages", []))
        for name, digest in entry.get("files", {}).items()
    }
