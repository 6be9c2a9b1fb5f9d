"""What differs between two recipes as they are recorded, field by field."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

LONGEST = 60  # characters of a value that are shown


class Change(NamedTuple):
    """One field, by its dotted name, before and now; None where it is not given."""

    field: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field} is {shown(self.before)} there, {shown(self.now)} here"

    def record(self, **more: Any) -> dict[str, Any]:
        """For provenance."""
        return {"field": self.field, "from": self.before, "to": self.now, **more}


def differences(before: Any, now: Any, name: str = "") -> list[Change]:
    """The fields in which plain data ``now`` differs from ``before``, as JSON compares them.

    >>> differences({"stages": [{"steps": 5}], "seed": 0}, {"stages": [{"steps": 6}], "seed": 0})
    [Change(field='stages[0].steps', before=5, now=6)]
    """
    return list(compared(before, json.loads(json.dumps(now)), name))


def compared(before: Any, now: Any, name: str) -> Iterator[Change]:
    """``differences`` of data that JSON has read; lists are compared entry by entry where they hold mappings."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from compared(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(before, list) and isinstance(now, list) and any(isinstance(part, dict) for part in before + now):
        for index, (one, other) in enumerate(zip_longest(before, now)):
            yield from compared(one, other, f"{name}[{index}]")
    elif before != now:
        yield Change(name, before, now)


def shown(value: Any) -> str:
    """``value`` as an error shows it, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
