"""The package's own error types, what may stand in a line that is shown, durations, and the nearest allowed word."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

ASKED = re.compile(r"[Tt]ried to allocate (\d[\d.]* \w+)")
LONGEST_MESSAGE = 2000  # characters; names and values from a hostile file can have any length


class FrozenGlyphError(ValueError):
    """Something the user can mend: one line that names the field or file, the value, what is allowed and what to do.

    >>> print(FrozenGlyphError("'runs/ru' holds\\n\\x1b[31mnothing"))
    'runs/ru' holds \\x1b[31mnothing
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """``text`` as one printable line of at most ``LONGEST_MESSAGE`` characters."""
    if not text.isprintable():
        text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\x1b`` in place of what would command a terminal or turn what it shows round."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two that count: ``1 h 5 min``, ``40 s``."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s" if minutes else f"{whole} s"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of ``allowed``, or an empty string when none is close."""
    return did_you_mean(difflib.get_close_matches(name, list(allowed), n=1))


def did_you_mean(names: Sequence[str]) -> str:
    """Return ``" Did you mean 'x' or 'y'?"``, or an empty string of no names."""
    *others, last = map(repr, names or [""])
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if names else ""


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
