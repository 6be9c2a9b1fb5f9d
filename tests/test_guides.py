"""The guides' commands run from top to bottom, on synthetic text and with fewer steps; examples in docstrings hold."""

import doctest
import importlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from frozen_glyph import cli

ROOT = Path(__file__).parents[1]
GUIDES = [
    "hub_configs/GROW_YOUR_LANGUAGE.md",
    "hub_configs/REPRODUCE_THE_PAPER.md",
    "hub_configs/ONE_8_GB_GPU.md",
    "frozen_glyph/merge/TWO_DEPARTMENTS.md",
    "frozen_glyph/substrate/GLYPHS_UNDER_LLAMA.md",
]
EXAMPLES = [path for path in sorted((ROOT / "frozen_glyph").rglob("*.py")) if ">>>" in path.read_text("utf-8")]
STAGES = "stages=[{layers: 1, steps: 2}, {layers: 1, steps: 2}]"
TRAINING = {"context_length": 32, "batch_tokens": 128, "micro_batch_size": 4, "warmup_steps": 1, "precision": "fp32"}
SMALL = ["--set", STAGES, *(f"--set=training.{name}={value}" for name, value in TRAINING.items())]


def small(words: list[str]) -> list[str]:
    """A command with what makes it small: synthetic text, few steps."""
    if words[:2] == ["data", "sample"]:
        return ["data", "sample", words[2], "--synthetic"]
    if words[0] == "grow" and "--dry-run" not in words:
        return [*words, *SMALL]
    return words


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_docstrings(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(module, optionflags=options)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_commands_of_a_guide_run(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / guide).read_text("utf-8"), re.S)
    for line in "".join(blocks).splitlines():
        program, *words = shlex.split(line)
        assert program == "frozen-glyph"
        monkeypatch.setattr(sys, "argv", [program, *small(words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO("The cat\n"))
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert not end.value.code, f"{line}: {said.err[-2000:]}"
