"""The folder of a mirror: what ``mirror.json`` records to be ours, by name and sha256; all else there stays."""

from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import CheckpointError, read_json, write_json
from frozen_glyph.checkpoint.folders import remove_files
from frozen_glyph.checkpoint.manifest import is_inside, unchanged

MANIFEST = "mirror.json"


def read_manifest(root: Path) -> dict[str, Any]:
    """What a mirror says of itself; nothing where ``root`` is none."""
    try:
        found = read_json(root / MANIFEST)
    except (OSError, CheckpointError):
        return {}
    if not isinstance(found, dict) or not found.keys() >= {"digest", "present", "missing", "remarks"}:
        return {}
    files = found.get("files", {})
    return found if isinstance(files, dict) and all(map(is_inside, files)) else {}


def check_unchanged(root: Path, files: dict[str, str]) -> None:
    """Raise ``CheckpointError`` where somebody changed a file that a mirror recorded; one that is gone is none."""
    there = {name for name in files if (root / name).exists()}
    if changed := sorted(there - set(unchanged(root, files))):
        raise CheckpointError(
            f"{str(root / changed[0])!r} has other bytes than the mirror was written with; move it, and it is written "
            "again, or choose a new folder"
        )


def put_in_place(folder: Path, root: Path, old: dict[str, str], manifest: dict[str, Any]) -> None:
    """Let the files of ``folder`` take the place of ``old`` in ``root``; what others put there stays.

    Killed in between, the manifest names all that is there of either, and says of no data that they are there.
    """
    new = manifest["files"]
    if taken := sorted(name for name in new if name not in old and (root / name).exists()):
        raise CheckpointError(f"{str(root / taken[0])!r} is not of the mirror; move it, or choose a new folder")
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / MANIFEST, manifest | {"digest": None, "files": old})
    remove_files(root, old)
    write_json(root / MANIFEST, manifest | {"digest": None})
    for name in new:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(root / name)
    write_json(root / MANIFEST, manifest)
