"""The most memory that this process has held."""

import sys


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
