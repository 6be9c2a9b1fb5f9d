"""The command line: help that is fast and shows usage that parses; errors in one line; the exit codes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
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


class TestHelp:
    def test_it_needs_neither_torch_nor_transformers(self):
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
    def test_module_can_be_run(self, module):
        words = [sys.executable, "-m", module, "grow", "--no-such-option"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

    def test_the_version_is_said_once(self, run):
        assert run("--version") == (0, f"frozen-glyph {frozen_glyph.__version__}\n", "")
        assert versions()["frozen-glyph"] == frozen_glyph.__version__
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
        assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
        assert project["tool"]["hatch"]["version"] == {"path": "frozen_glyph/__init__.py"}

    @pytest.mark.parametrize(
        ("words", "completed"),
        [("grow --d", ["--dry-run"]), ("substrate b", ["build"]), ("merge ru zh --rule e", ["evidence"])],
    )
    def test_a_shell_completes_words_without_torch(self, words, completed):
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

    @pytest.mark.parametrize(
        ("path", "command"), list(commands()), ids=lambda part: part if isinstance(part, str) else ""
    )
    def test_every_command_shows_an_example_that_parses(self, run, path, command):
        code, out, _ = run(*path, "--help")
        assert code == 0
        assert f"Example: frozen-glyph {' '.join(path)}" in " ".join(out.split())
        example = shlex.split(command.epilog.split("`")[1])
        assert tuple(example[: 1 + len(path)]) == ("frozen-glyph", *path)
        command.make_context("example", example[1 + len(path) :])  # raises on wrong usage

    @pytest.mark.parametrize("words", [("grow",), ("grow", "recipe.yaml"), ("nothing",), ("merge", "--rulle", "mean")])
    def test_wrong_usage_has_exit_code_2(self, run, words):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert "Usage:" in err


class TestInspect:
    def test_table_and_json(self, run, experts):
        code, out, _ = run("inspect", experts[0])
        assert code == 0
        assert "ru: growth" in out
        code, out, _ = run("inspect", experts[0], "--json", "--verify")
        facts = json.loads(out)
        assert (code, facts["name"], facts["verified"]) == (0, "ru", True)
        assert [stage["layers"] for stage in facts["stages"]] == [1, 2]

    def test_a_damaged_folder_has_exit_code_1(self, run, experts, tmp_path):
        folder = shutil.copytree(experts[0], tmp_path / "run")
        (folder / "blocks-2.safetensors").unlink()
        code, out, _ = run("inspect", folder)
        assert code == 1
        assert "blocks-2.safetensors" in out

    def test_what_is_no_checkpoint(self, refused, tmp_path):
        assert "has no config.json" in refused("inspect", tmp_path)


class TestOtherCommands:
    def test_missing_data_folder(self, refused, experts, tmp_path):
        message = refused("eval", experts[0], "--data", tmp_path / "absent", "-o", tmp_path / "report")
        assert message.startswith(f"data folder '{tmp_path / 'absent'}' does not exist")
        assert not (tmp_path / "report").exists()

    def test_an_error_is_one_line_that_does_not_command_the_terminal(self, refused, monkeypatch):
        def app():
            raise ValueError("name 'ru\x1b[2J'\nis not allowed")

        monkeypatch.setattr(cli, "app", app)
        assert refused("merge") == r"name 'ru\x1b[2J' is not allowed"

    def test_debugging_shows_where_an_error_came_from(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FROZEN_GLYPH_DEBUG", "1")
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", "merge", str(tmp_path), "-o", str(tmp_path / "merged")])
        with pytest.raises(ValueError, match="needs at least two"):
            cli.main()


class TestToDense:
    def test_it_writes_a_checkpoint(self, run, experts, tmp_path):
        code, out, err = run("to-dense", f"{experts[1]}@1", "-o", tmp_path / "dense")
        assert (code, out.split(), err) == (0, ["dense:", str(tmp_path / "dense")], "")
        config = json.loads((tmp_path / "dense" / "config.json").read_text())
        assert (config["substrate_dense"], config["num_hidden_layers"]) == (True, 1)

    def test_what_cannot_be_exported(self, refused, experts, tmp_path):
        assert "no' is no folder and cannot be fetched" in refused(
            "to-dense", tmp_path / "no", "-o", tmp_path / "dense"
        )
        assert "growth_stage=7 does not exist" in refused("to-dense", f"{experts[0]}@7", "-o", tmp_path / "dense")
        assert "is not empty; choose a new folder" in refused("to-dense", experts[0], "-o", experts[1])
