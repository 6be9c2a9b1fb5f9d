"""The memory of this process: the most that it has held, and what it can give back."""

import functools
import sys
from collections.abc import Callable


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


def give_back() -> None:
    """Give freed memory back to the system where the C library keeps it: glibc does, for every thread by itself."""
    if (trim := malloc_trim()) is not None:
        trim(0)


@functools.cache
def malloc_trim() -> Callable[[int], int] | None:
    """glibc's function of this name, malloc_trim(3); None of another C library."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), "malloc_trim", None)
