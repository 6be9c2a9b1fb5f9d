"""Make folders that appear whole or not at all, and delete of folders only what is known to be ours."""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frozen_glyph.checkpoint.files import target_of, temporary_of
from frozen_glyph.checkpoint.journal import JOURNAL_FILE, Journal, unchanged_stamps, watching
from frozen_glyph.checkpoint.places import check_vacant, writing

logger = logging.getLogger(__name__)


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
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour to fill, which becomes the folder ``path`` at the end, or vanishes on an error.

    Raises:
        CheckpointError: ``path`` exists and is no empty folder, or cannot be made; see ``check_vacant``.
        FolderInUse: another process is writing it.
    """
    with writing(path):
        check_vacant(path)
        real = path.resolve()  # a link to an empty folder stays one
        with neighbour(real) as temporary:
            yield temporary
            (temporary / JOURNAL_FILE).unlink()
            temporary.replace(real)


@contextmanager
def neighbour(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, which vanishes at the end.

    What a killed process left of the same is removed first, as far as it noted what it wrote; a warning names the rest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path.parent, path.name.__eq__)
    temporary = temporary_of(path)
    temporary.mkdir()
    try:
        journal = Journal(temporary)
        journal.begin()
        with watching(temporary, journal.add):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # made, filled and named by this very call


def clear_stale(place: Path, is_target: Callable[[str], bool]) -> None:
    """Remove the temporary folders in ``place`` that killed processes left of what ``is_target``.

    Of their files those go that the journal knows unchanged, and those whose own names say that they were not
    finished. Files of others, and what nobody noted, stay; a warning names one.
    """
    for folder in sorted(place.iterdir()) if place.is_dir() else ():
        if not is_target(target_of(folder) or "") or folder.is_symlink() or not folder.is_dir():
            continue
        noted, there = Journal(folder).read(), files_below(folder)
        ours = unchanged_stamps(folder, {name: noted[name] for name in there if name in noted}) if noted else []
        unfinished = [name for name in there if target_of(folder / name) is not None]
        remove_files(folder, [*ours, *unfinished, *([] if noted is None else [JOURNAL_FILE])])
        if left := files_below(folder):
            logger.warning(
                "%r was left by a command that was killed; it recorded no %r there, so that stays: look at it, and "
                "delete the folder",
                str(folder),
                left[0],
            )
