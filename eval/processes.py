"""The command that is running: once more in a process of its own, as a run of a study or a part of a benchmark; and of
which commit it is."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType


def own_command(*extra: object) -> list[str]:
    """The running ``python -m ...`` with its own arguments and ``extra`` ones."""
    main: ModuleType = sys.modules["__main__"]
    assert main.__spec__, "run it as a module: python -m eval...."
    return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:], *map(str, extra)]


def commit() -> str:
    """The commit of this repository, with a remark if files of it were changed."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=, changed"]
    described = subprocess.run(git, capture_output=True, text=True)
    return described.stdout.strip() if described.returncode == 0 else "unknown"
