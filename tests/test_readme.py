"""The READMEs' commands parse as written, their links lead somewhere, and their tables say what the code says."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from frozen_glyph.cli import app
from frozen_glyph.model.rules_frozen_glyph import RULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FOLDERS = ("frozen_glyph", "hub_configs", "eval")
PAGES = [ROOT / "README.md", *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.S)]
ONE_SCRIPT = ["DATA_AT_SCALE.md"]  # whose blocks go on from each other: tests/growth/test_prepare.py runs them
APART = [page for page in PAGES if page.name not in ONE_SCRIPT]
PYTHON = [block for page in APART for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)]
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


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_every_python_block_runs(block, tokenizer, experts, merged_folder, tmp_path, monkeypatch):
    """Beside folders named as the commands of the README name them."""
    for name, folder in {"ru": experts[0], "zh": experts[1], "merged": merged_folder}.items():
        shutil.copytree(folder, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    sizes = dict.fromkeys(("hidden_size", "intermediate_size"), 64) | {"num_hidden_layers": 1, "num_attention_heads": 2}
    exec(block, {"tokenizer": tokenizer, "llama": LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_or_heading(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, heading = target.partition("#")
        place = page.parent / name if name else page
        assert place.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_a_package_index_shows_the_readme_without_links_into_the_repository():
    """Links that lead nowhere from there are words; addresses, commands and code stay."""
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["metadata"]["hooks"]
    shown = README
    for change in hooks["fancy-pypi-readme"]["substitutions"]:
        shown = re.sub(change["pattern"], change["replacement"], shown)
    targets = re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', shown)
    assert targets and all(target.startswith("https://") for pair in targets for target in pair if target)
    assert re.findall(r"```.*?```", shown, re.S) == re.findall(r"```.*?```", README, re.S)
    words = re.sub(r"\]\([^)\s]+\)|<img[^>]*>|[\[\]]", "", README).split()
    assert re.sub(r"\]\([^)\s]+\)|[\[\]]", "", shown).split() == words


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130


def test_tree_names_every_room():
    rooms = {path.parent.name for path in (ROOT / "frozen_glyph").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^  (\w+)/", README, re.M))


def test_table_of_merge_rules():
    """The page on merging says of each rule what the list of rules says."""
    page = (ROOT / "frozen_glyph" / "merge" / "README.md").read_text("utf-8")
    section = page.partition("## Merge rules")[2].partition("\n## ")[0]
    expected = [f"| `{rule.name}` | {rule.weights} | {rule.costs} | {rule.source} |" for rule in RULES.values()]
    assert re.findall(r"^\| `.*", section, re.M) == expected
