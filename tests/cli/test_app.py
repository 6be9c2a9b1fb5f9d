"""The command line: help that is fast and shows usage that parses; errors in one line; the exit codes."""

import errno
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
from frozen_glyph.cli import failures
from frozen_glyph.cli.failures import told

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grow",), "Missing argument 'recipe'. See `frozen-glyph grow --help`"),
        (("grow", "recipe.yaml"), "Invalid value for --out: give the folder to write, or --dry-run. See `frozen-glyph"),
        (("nothing",), "No such command 'nothing'."),
        (("merge", "--rulle", "mean"), "No such option: --rulle"),
        (("schema", "growht"), "Invalid value for 'kind': 'growht' is not one of 'growth', 'merge', 'tune', "),
        (("data", "sample", "d", "--megabytes", "nan"), "Invalid value for '--megabytes': "),
        (("inspect", "x", "--picture", "x.png"), "Invalid value for --picture: it is only used with --health; give"),
        (("grow", "x", "--out", "y", "--json"), "Invalid value for --json: it is only used with --dry-run; give"),
    ],
)
def test_wrong_usage_is_one_line_with_exit_code_2(run, words, said):
    code, out, err = run(*words)
    (line,) = err.splitlines()
    assert (code, out) == (2, "") and line.startswith("error: ") and said in line and " --help`" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("watch", "file"), "'file/provenance.json' leads through a file, where a folder belongs; check the path"),
        (("grow", "recipe", "--dry-run", "--set", "a=1"), "'recipe' is no recipe, which is a YAML file of fields, "),
    ],
)
def test_a_path_of_the_wrong_kind_is_named_with_what_to_do(refused, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "recipe").write_text("A text where a recipe belongs.")
    assert said in refused(*words)


def test_what_the_system_says_of_a_path_comes_with_what_to_do():
    for number, advice in failures.PATHS.items():
        assert told(OSError(number, "said", "runs/ru")) == f"'runs/ru' {advice}"
    assert told(OSError(errno.ENOSPC, "said")) == "no space is left on the device; free some, or write elsewhere"
    assert told(OSError("cannot be reached")) == "cannot be reached"
    assert told(ModuleNotFoundError("No module named 'gradio'", name="gradio")).endswith('"frozen-glyph[app]"')
    assert told(KeyError("a fault of our own")) is None


def test_an_error_is_one_line_that_does_not_command_the_terminal(refused, monkeypatch):
    def app(**options):
        raise ValueError("name 'ru\x1b[2J'\nis not allowed")

    monkeypatch.setattr(cli, "app", app)
    assert refused("merge") == r"name 'ru\x1b[2J' is not allowed"


def test_no_memory_left_is_one_line(refused, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda **options: torch.empty(1 << 60))
    assert "out of memory (" in refused("eval") and "a smaller --batch-size" in refused("eval")


def test_debugging_shows_where_an_error_came_from(monkeypatch, tmp_path):
    monkeypatch.setenv("FROZEN_GLYPH_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["frozen-glyph", "merge", str(tmp_path), "-o", str(tmp_path / "merged")])
    with pytest.raises(ValueError, match="needs at least two"):
        cli.main()
