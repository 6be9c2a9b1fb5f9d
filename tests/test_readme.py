"""The READMEs' shell commands parse as written, and the files and folders the README names exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from frozen_glyph.cli import app
from frozen_glyph.model.rules_frozen_glyph import RULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "hub_configs").rglob("README.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page, re.S)]
SHELL = "\n".join(BLOCKS).replace("\\\n", " ")
COMMANDS = [part.strip() for line in SHELL.splitlines() for part in line.split("&&") if "frozen-glyph " in part]


def test_readme_has_a_command_for_every_arrow():
    assert {shlex.split(command)[1] for command in COMMANDS} >= {"demo", "grow", "merge", "eval"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses_as_written(command):
    program, *words = shlex.split(command)
    assert program == "frozen-glyph"
    parser = typer.main.get_command(app)
    while words and words[0] in getattr(parser, "commands", {}):
        parser = parser.commands[words.pop(0)]
    parser.make_context(program, words)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"(?:hub_configs|eval)/[\w/.-]+", README))))
def test_every_file_that_the_readme_names_exists(name):
    assert (ROOT / name.rstrip(".,")).exists()


def test_tree_names_every_room():
    rooms = {path.parent.name for path in (ROOT / "frozen_glyph").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^  (\w+)/", README, re.M))


def test_table_of_merge_rules():
    """The README says of each rule what the list of rules says."""
    section = README.partition("## Merge rules")[2].partition("\n## ")[0]
    expected = [f"| `{rule.name}` | {rule.weights} | {rule.costs} | {rule.source} |" for rule in RULES.values()]
    assert re.findall(r"^\| `.*", section, re.M) == expected
