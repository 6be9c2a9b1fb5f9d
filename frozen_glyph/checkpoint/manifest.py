"""What this package wrote into a folder of work, by name and sha256: only that is used again, only that is deleted.

A folder of work holds what a run needs until it ends: packed tokens, what finished phases trained, states. Its
``manifest.json`` is written after a file is, and before it is read again the file is compared with it. A file that
nobody recorded, or that somebody changed, is never used and never deleted.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import CheckpointError, read_json, sha256_file, write_json
from frozen_glyph.checkpoint.folders import remove_files
from frozen_glyph.checkpoint.places import is_first_process
from frozen_glyph.model.weights_frozen_glyph import check_name

MANIFEST_FILE, KIND = "manifest.json", "work"
logger = logging.getLogger(__name__)


class Manifest:
    """The manifest of the folder ``folder``; names are paths in it, with ``/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def files(self) -> dict[str, str | None]:
        """The sha256 of each file that was recorded; None of one that is changed in place and checks itself."""
        return self.read().get("files", {})

    @property
    def folders(self) -> list[str]:
        """Folders that were made here, in which others of this package write."""
        return self.read().get("folders", [])

    def read(self) -> dict[str, Any]:
        """What is recorded; nothing where the manifest is missing or damaged.

        Raises:
            CheckpointError: there is a ``manifest.json`` of somebody else.
        """
        path = self.folder / MANIFEST_FILE
        try:
            found = read_json(path) if path.exists() else {}
        except CheckpointError as error:
            logger.warning("%s; nothing that it recorded is used again", error)
            return {}
        if found and not (isinstance(found, dict) and found.get("kind") == KIND and well_formed(found)):
            raise CheckpointError(f"{str(path)!r} is no manifest of a folder of work; move it, or choose a new folder")
        return found

    def write(self, files: Mapping[str, str | None], folders: list[str]) -> None:
        if is_first_process():
            content = {"kind": KIND, "files": dict(sorted(files.items())), "folders": sorted(folders)}
            write_json(self.folder / MANIFEST_FILE, content)

    def record(self, *names: str, in_place: bool = False) -> None:
        """Record the bytes that the files ``names`` have now; ``in_place``: they change, so that only names count."""
        found = {name: None if in_place else sha256_file(self.folder / name) for name in names}
        if (files := self.files) != files | found:
            self.write(files | found, self.folders)

    def make(self, name: str) -> Path:
        """Make the folder ``name``, unless it was made before; what is in it may be deleted by whoever writes it."""
        if name not in self.folders:
            self.write(self.files, [*self.folders, name])
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def holds(self, name: str) -> bool:
        """Whether the file ``name`` is there with the bytes that were recorded; a warning says where it is not."""
        path, files = self.folder / name, self.files
        if not path.is_file():
            return False
        if files.get(name) == sha256_file(path):
            return True
        what = "has other bytes than were written" if files.get(name) else "was not recorded when it was written"
        logger.warning("%r %s; it is not used, but made again", str(path), what)
        return False

    def remove(self, below: str = "") -> None:
        """Delete what was recorded, all or ``below`` a folder, unless somebody changed it, and forget it.

        Folders that are empty then go too, at last the manifest.
        """
        prefix = f"{below}/" if below else ""
        gone = {name: digest for name, digest in self.files.items() if name.startswith(prefix)}
        remove_files(self.folder / below, [name.removeprefix(prefix) for name in unchanged(self.folder, gone)])
        for name in sorted(self.folders, reverse=True):
            if f"{name}/".startswith(prefix):
                remove_files(self.folder / name, [])
        remove_files(self.folder / below, [])
        folders = [name for name in self.folders if not f"{name}/".startswith(prefix)]
        files = {name: digest for name, digest in self.files.items() if name not in gone}
        if files or folders:
            self.write(files, folders)
        elif (self.folder / MANIFEST_FILE).exists():
            remove_files(self.folder, [MANIFEST_FILE])


def well_formed(found: dict[str, Any]) -> bool:
    """Whether a manifest holds hashes by name and names of folders, all of which stay in its folder."""
    files, folders = found.get("files"), found.get("folders")
    if not isinstance(files, dict) or not isinstance(folders, list):
        return False
    return all(map(is_inside, (*files, *folders))) and all(isinstance(digest, str | None) for digest in files.values())


def is_inside(name: Any) -> bool:
    """Whether a name from a manifest stays in its folder."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def unchanged(folder: Path, files: Mapping[str, str | None]) -> list[str]:
    """Those of ``files``, names and sha256, that lie in ``folder`` with these bytes; None stands for any."""
    there = {name: folder / name for name in files if (folder / name).is_file() and not (folder / name).is_symlink()}
    return [name for name, path in there.items() if files[name] in (None, sha256_file(path))]
