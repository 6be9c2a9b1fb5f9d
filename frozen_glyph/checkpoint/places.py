"""Whether a folder can be written where the user says: asked before the work, not found out after it."""

import os
from pathlib import Path

from frozen_glyph.checkpoint.files import CheckpointError

NAME_BYTES = 220  # file systems take 255; temporary neighbours and locks are called after the folder


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
