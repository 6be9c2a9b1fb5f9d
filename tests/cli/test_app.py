"""The command line: help that is fast and shows usage that parses; errors in one line; the exit codes."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import typer

import frozen_glyph
from frozen_glyph import cli
from frozen_glyph.checkpoint.provenance import versions

ROOT = typer.main.get_command(cli.app)


def commands(group=ROOT, path=()):
    """(words that call it, command) of every command; groups are gone into."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_help_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from frozen_glyph import cli; sys.argv = ['frozen-glyph', '--help']\n"
        "try: cli.main()\n"
        "finally: print('LOADED', sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    for name in ROOT.commands:
        assert name in done.stdout


@pytest.mark.parametrize("module", ["frozen_glyph", "frozen_glyph.cli"])
def test_module_can_be_run(module):
    words = [sys.executable, "-m", module, "grow", "--no-such-option"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_version_is_said_once(run):
    assert run("--version") == (0, f"frozen-glyph {frozen_glyph.__version__}\n", "")
    assert versions()["frozen-glyph"] == frozen_glyph.__version__
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version", "readme"] and "version" not in project["project"]
    assert project["tool"]["hatch"]["version"] == {"path": "frozen_glyph/__init__.py"}


@pytest.mark.parametrize(
    ("words", "completed"),
    [("grow --d", ["--dry-run"]), ("substrate b", ["build"]), ("merge ru zh --rule e", ["evidence"])],
)
def test_a_shell_completes_words_without_torch(words, completed):
    code = (
        "import sys; from frozen_glyph import cli; sys.argv = ['frozen-glyph']\n"
        "try: cli.main()\n"
        "finally: print('LOADED', sorted({'torch', 'transformers', 'numpy', 'rich'} & sys.modules.keys()))"
    )
    asked = {"_FROZEN_GLYPH_COMPLETE": "complete_bash", "COMP_WORDS": f"frozen-glyph {words}"}
    asked["COMP_CWORD"] = str(len(words.split()))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ | asked
    )
    assert (done.stdout.split("\n"), done.returncode) == ([*completed, "LOADED []", ""], 0), done.stderr


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda part: part if isinstance(part, str) else "")
def test_every_command_shows_an_example_that_parses(run, path, command):
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert f"Example: frozen-glyph {' '.join(path)}" in " ".join(out.split())
    example = shlex.split(command.epilog.split("`")[1])
    assert tuple(example[: 1 + len(path)]) == ("frozen-glyph", *path)
    command.make_context("example", example[1 + len(path) :])  # raises on wrong usage


@pytest.mark.parametrize("words", [("grow",), ("grow", "recipe.yaml"), ("nothing",), ("merge", "--rulle", "mean")])
def test_wrong_usage_has_exit_code_2(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "Usage:" in err


def test_an_error_is_one_line_that_does_not_command_the_terminal(refused, monkeypatch):
    def app():
        raise ValueError("name 'ru\x1b[2J'\nis not allowed")

    monkeypatch.setattr(cli, "app", app)
    assert refused("merge") == r"name 'ru\x1b[2J' is not allowed"


def test_no_memory_left_is_one_line(refused, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: torch.empty(1 << 60))
    assert "out of memory (" in refused("eval") and "a smaller --batch-size" in refused("eval")


def test_debugging_shows_where_an_error_came_from(monkeypatch, tmp_path):
    monkeypatch.setenv("FROZEN_GLYPH_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["frozen-glyph", "merge", str(tmp_path), "-o", str(tmp_path / "merged")])
    with pytest.raises(ValueError, match="needs at least two"):
        cli.main()
