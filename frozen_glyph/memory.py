"""The most memory that this process has held, and one line where there was not enough."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from frozen_glyph.errors import FrozenGlyphError

ASKED = re.compile(r"[Tt]ried to allocate (\d[\d.]* \w+)")


class NotEnoughMemory(FrozenGlyphError):
    """A device, or the machine, has no memory left for what was asked."""


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Make one line of whatever torch, numpy and Python raise where memory ends: ``what`` was done, what to lower.

    Raises:
        NotEnoughMemory: instead of any of them; other errors pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (said := lacking_memory(error)) is None:
            raise
        raise NotEnoughMemory(f"{what}: out of memory ({said}); {advice}") from error


def lacking_memory(error: BaseException) -> str | None:
    """What of an error says that memory has ended; None of any other error."""
    said, name = str(error), type(error).__name__
    if not isinstance(error, MemoryError) and name != "OutOfMemoryError" and "allocate memory" not in said:
        return None
    asked = ASKED.search(said)
    return f"{asked[1]} more were asked for" if asked else (said.splitlines() or [name])[0]


def peak_memory() -> int | None:
    """Return the largest resident size so far in bytes, or None where the system keeps no such record (Windows).

    Example: ``peak_memory() // 2**20`` is in MiB.
    """
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # getrusage(2): macOS counts bytes, Linux KiB
