"""Make folders that appear whole or not at all, and delete of folders only what is known to be ours."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frozen_glyph.checkpoint.contract import is_written
from frozen_glyph.checkpoint.files import final_name, target_of, temporary_of
from frozen_glyph.checkpoint.places import check_vacant, writing


def remove_temporaries(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove what processes that were killed left in ``folder`` of files that ``is_ours``; nobody else writes them."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if (name := target_of(path)) is not None and is_ours(name) and not path.is_dir():
            path.unlink(missing_ok=True)


def files_below(folder: Path) -> list[str]:
    """Paths of all files in ``folder``, relative to it; links to folders are not followed."""
    places = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(folder).as_posix() for path in places)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove the files ``names`` of ``folder``, then, where nothing else is left, the folders that they lay in."""
    places = {folder}
    for name in names:
        (folder / name).unlink(missing_ok=True)
        places |= {folder / parent for parent in Path(name).parents}
    for place in sorted(places, key=lambda place: -len(place.parts)):
        with suppress(OSError):  # something else is in it, or it is gone
            place.rmdir()


@contextmanager
def new_folder(path: Path, is_ours: Callable[[str], bool] = is_written) -> Iterator[Path]:
    """Give a temporary neighbour to fill, which becomes the folder ``path`` at the end, or vanishes on an error.

    Raises:
        CheckpointError: ``path`` exists and is no empty folder, or cannot be made; see ``check_vacant``.
        FolderInUse: another process is writing it.
    """
    with writing(path):
        check_vacant(path)
        real = path.resolve()  # a link to an empty folder stays one
        with neighbour(real, is_ours) as temporary:
            yield temporary
            temporary.replace(real)


@contextmanager
def neighbour(path: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """A temporary folder beside ``path``, which vanishes at the end.

    What a killed process left of the same is removed first: files whose names ``is_ours`` knows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in [found for found in path.parent.iterdir() if target_of(found) == path.name and found.is_dir()]:
        remove_files(stale, [name for name in files_below(stale) if is_ours(final_name(name))])
    temporary = temporary_of(path)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # made, filled and named by this very call
