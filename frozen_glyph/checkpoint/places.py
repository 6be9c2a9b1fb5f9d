"""Where one may write: a place that can be written to, asked before the work, and by one process at a time.

The lock is a file ``.NAME.lock`` beside the folder NAME, so that a new folder can be renamed into its place, and in it
where only the folder itself can be written to. The operating system holds it for as long as the process lives: what a
killed process left blocks nobody. Where a file system knows no such locks, ``filelock`` writes who holds it instead.
"""

import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.errors import FrozenGlyphError

NAME_BYTES = 220  # file systems take 255; temporary neighbours and locks are called after the folder
LOCK_INSIDE = ".lock"  # in a folder whose parent cannot be written to
logger = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class FolderInUse(FrozenGlyphError):
    """Another process writes into the folder."""


class Held(threading.local):
    """The folders that this thread has locked."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()


held = Held()


def check_place(folder: str | Path) -> None:
    """Raise ``CheckpointError`` unless ``folder`` is one, maybe through a link, or can be made.

    A new folder's parents are made too. A file in the way, a link to nothing, a place without the right to write and a
    name that is too long are refused.
    """
    path = Path(folder).absolute()
    if long := [part for part in path.parts if len(os.fsencode(part)) > NAME_BYTES]:
        raise CheckpointError(
            f"{long[0][:40]!r}… is too long a name; choose one of at most {NAME_BYTES} bytes for the folder to write"
        )
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise CheckpointError(
                f"{str(folder)!r} cannot be written: {str(place)!r} is a link to {str(place.readlink())!r}, which is "
                "not there; make it, or choose another folder"
            )
        if place.exists():
            break
    if not place.is_dir():
        raise CheckpointError(f"{str(folder)!r} cannot be written: {str(place)!r} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CheckpointError(
            f"{str(folder)!r} cannot be written: no right to write into {str(place)!r}; choose another folder"
        )


def check_vacant(folder: Path) -> None:
    """Raise ``CheckpointError`` unless ``folder`` is free, or an empty folder that a new one can take the place of."""
    check_place(folder)
    if not folder.exists():
        return
    if any(folder.iterdir()):
        raise CheckpointError(f"{str(folder)!r} exists and is not empty; choose a new folder")
    real = folder.resolve()
    if real == Path.cwd() or os.path.ismount(real):
        what = "a mount point" if os.path.ismount(real) else "the folder that you are in"
        raise CheckpointError(
            f"{str(folder)!r} is {what}, which a new folder cannot take the place of; name one inside it"
        )
    check_place(real.parent)


def is_first_process() -> bool:
    """Whether this is the process that writes: of those that ``torchrun`` or ``accelerate launch`` started, the first.

    On every machine of a launch they count the same way.
    """
    return int(os.environ.get("WORLD_SIZE") or 1) < 2 or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def writing(folder: str | Path, launched: bool = False) -> Iterator[None]:
    """Be the only process that writes into ``folder``, which need not exist, until the block ends.

    ``launched``: every process of one launch comes here; the first one locks, the others pass. So does a thread that
    holds the lock already. Where nothing can be locked a warning says so.

    Raises:
        FolderInUse: another process, or thread, writes into the folder.
        CheckpointError: no folder can be written there.
    """
    check_place(folder)
    resolved = Path(folder).resolve()
    if resolved in held.folders or (launched and not is_first_process()):
        yield
        return
    place = lock_file(resolved)
    lock = FileLock(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if not place.exists():  # filelock tries for ever where a file system, such as /proc, makes no file
            raise CheckpointError(
                f"{str(folder)!r} cannot be written: no file can be made in {str(place.parent)!r}; "
                "choose another folder"
            ) from None
        raise FolderInUse(
            f"folder {str(folder)!r} is being written by another process; wait until it has ended, or choose another"
        ) from None
    except OSError as error:
        logger.warning("folder %r cannot be locked (%s); let no other process write into it", str(folder), error)
    held.folders.add(resolved)
    try:
        yield
    finally:
        held.folders.remove(resolved)
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                place.unlink(missing_ok=True)  # before it is released: whoever waits finds out that it is gone
            lock.release()


def one_writer(
    argument: str, launched: bool = False
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Let a function be the only one that is ``writing`` into the folder that its ``argument`` names."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def alone(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            with writing(given.arguments[argument], launched):
                return function(*args, **kwargs)

        return alone

    return decorate


def lock_file(folder: Path) -> Path:
    """Where the lock of a folder lies."""
    beside = folder.with_name(f".{folder.name}.lock")
    there = next(parent for parent in beside.parents if parent.exists())
    return beside if os.access(there, os.W_OK) or not folder.is_dir() else folder / LOCK_INSIDE
