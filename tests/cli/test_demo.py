"""`frozen-glyph demo` ends with commands that go on from its runs, and each of them parses."""

import shlex
from pathlib import Path

import typer

from frozen_glyph.cli import app
from frozen_glyph.cli.demo import next_commands


def test_the_next_commands_parse_and_name_the_demo_s_runs():
    commands = next_commands(Path("my runs/demo"))
    assert any("'my runs/demo/ru'" in command for command in commands)
    for command in commands:
        program, name, *words = shlex.split(command)
        parser = typer.main.get_command(app).commands[name]
        while words and words[0] in getattr(parser, "commands", {}):
            parser = parser.commands[words.pop(0)]
        assert program == "frozen-glyph" and parser.make_context(name, words)
