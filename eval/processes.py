"""The command that is running, once more in a process of its own: a run of a study, a part of a benchmark."""

import sys
from types import ModuleType


def own_command(*extra: object) -> list[str]:
    """The running ``python -m ...`` with its own arguments and ``extra`` ones."""
    main: ModuleType = sys.modules["__main__"]
    assert main.__spec__, "run it as a module: python -m eval...."
    return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:], *map(str, extra)]
