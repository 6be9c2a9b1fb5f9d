"""The package's own error type, and the helper that names the nearest allowed word."""

import difflib
from collections.abc import Iterable


class FrozenGlyphError(ValueError):
    """Something the user can mend: the message names the field or file, the value, what is allowed and what to do."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of ``allowed``, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
