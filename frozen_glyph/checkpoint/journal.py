"""Which files were written below a folder, noted as each takes its place: what a kill or an error left is known by it.

A file is known again by its inode, size and time of change, which cost nothing to note and to compare. So one of the
same name that somebody else put there, or changed, is told from ours.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JOURNAL_FILE = ".written.jsonl"  # in a folder that is being made, until it takes its place
HEADER = {"kind": "files that frozen_glyph wrote here"}
Stamp = tuple[int, int, int]
watched: dict[Path, Callable[[str, Stamp], None]] = {}  # of this process, whichever thread writes


def stamp(path: Path) -> Stamp:
    """Inode, bytes and nanoseconds of the last change of a file; of a link, its own."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def watching(folder: Path, notice: Callable[[str, Stamp], None]) -> Iterator[None]:
    """Call ``notice`` with name and stamp of each file below ``folder`` that this process writes in the block."""
    folder = folder.absolute()
    watched[folder] = notice
    try:
        yield
    finally:
        del watched[folder]


def note(path: Path, written: Path | None = None) -> None:
    """Tell who watches that ``path`` is ours; ``written``: where it lies until it is renamed, which keeps its stamp."""
    path = path.absolute()
    for folder in (folder for folder in path.parents if folder in watched):
        watched[folder](path.relative_to(folder).as_posix(), stamp(written or path))


def note_below(folder: Path) -> None:
    """Note all files in ``folder``, which a library wrote just now."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name != JOURNAL_FILE:
                note(Path(place) / name)


def unchanged_stamps(folder: Path, stamps: dict[str, Stamp]) -> list[str]:
    """Those of the files ``stamps`` that lie in ``folder`` as they were noted."""
    return [name for name, noted in stamps.items() if (folder / name).is_file() and stamp(folder / name) == noted]


class Journal:
    """The notes about ``folder`` that outlive this process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE

    def begin(self) -> None:
        self.append(HEADER)

    def add(self, name: str, noted: Stamp) -> None:
        self.append([name, *noted])

    def append(self, entry: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> dict[str, Stamp] | None:
        """The files noted, but for a line that a kill cut; None where the file is not there or is somebody else's."""
        try:
            header, *lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
            entries = [json.loads(line) for line in lines]
            stamps = {str(name): (int(inode), int(size), int(time)) for name, inode, size, time in entries}
            return stamps if json.loads(header) == HEADER else None
        except (OSError, ValueError, TypeError):
            return None
