"""The lowest versions that pyproject.toml declares, as constraints for pip; ``.ci/run oldest`` tests with them.

Command: ``python tests/floors.py > floors.txt``
"""

import re
import tomllib
from pathlib import Path

FLOOR = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[\w,]+\])?>=([\w.]+)")
OF_DEVELOPERS = ("ruff", "mypy")  # they read the code, which one version of each has formatted and judged
NOT_TESTED = ("quant", "app")  # needs an accelerator; stands in an environment of its own


def floors(pyproject: str) -> dict[str, str]:
    """Package and lowest version of every dependency that the default tests use."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(word for name in extras if name not in NOT_TESTED for word in extras[name])]
    found = (FLOOR.match(word) for word in wanted)
    return {match[1]: match[2] for match in found if match and match[1] not in OF_DEVELOPERS}


if __name__ == "__main__":
    content = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    print("\n".join(f"{name}=={version}" for name, version in floors(content).items()))
