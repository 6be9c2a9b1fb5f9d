"""What the README tells a newcomer to do, in its order: the shell commands of this package, and blocks of Python."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)
TEXTS = re.compile(r"[\w/.-]+\.txt")


@dataclass(frozen=True)
class Step:
    """``words`` of a command, or the source of a block of ``kind`` python."""

    kind: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def title(self) -> str:
        """The command, or the first line of a block that does something."""
        lines = [line for line in self.text.splitlines() if line and not line.startswith(("import ", "from "))]
        return self.text if self.kind == "bash" else f"python: {lines[0] if lines else self.text.strip()}"


def read_steps(page: str, replace: dict[str, str] | None = None) -> tuple[list[Step], list[str]]:
    """The steps of a page in order, with texts ``replace``d in commands, and the commands of other programs, which are
    not run.

    >>> read_steps("```bash\\npip install x && frozen-glyph demo\\n```\\n")
    ([Step(kind='bash', text='frozen-glyph demo')], ['pip install x'])
    """
    steps, others = [], []
    for kind, block in FENCE.findall(page):
        if kind == "python":
            steps.append(Step(kind, block))
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for command in filter(None, map(str.strip, line.partition(" #")[0].split("&&"))):
                if command.split()[0] != "frozen-glyph":
                    others.append(command)
                    continue
                for old, new in (replace or {}).items():
                    command = command.replace(old, new)
                steps.append(Step(kind, command))
    return steps, others


def missing_texts(steps: list[Step], folder: Path) -> list[str]:
    """Files of text that commands name, no command before makes, and ``folder`` does not hold."""
    sampled = False
    missing = []
    for step in steps:
        if step.kind == "bash" and step.words[1:3] == ["data", "sample"]:
            sampled = True
        elif step.kind == "bash" and not sampled:
            missing += [name for name in TEXTS.findall(step.text) if not (folder / name).exists()]
    return list(dict.fromkeys(missing))
