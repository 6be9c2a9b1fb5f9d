"""The command line called in this process, and a folder to call it in."""

import sys

import pytest
from transformers.utils import logging

from frozen_glyph import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("grow", ...)``: call the entry point in this process; returns (exit code, stdout, stderr)."""
    verbosity = logging.get_verbosity()

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    yield run
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def refused(run):
    """``refused(words)``: the message of a command that ends with exit code 1 and one line on stderr."""

    def refused(*words) -> str:
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        return line.removeprefix("error: ") if line.startswith("error: ") else pytest.fail(line)

    return refused


@pytest.fixture
def files(tmp_path, monkeypatch, substrate):
    """The working folder: text.txt and a substrate folder ``glyphs``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The cat sat on the mat. Кот сидел на окне.\n\n" * 30, encoding="utf-8")
    substrate.save_pretrained(tmp_path / "glyphs")
    return tmp_path
