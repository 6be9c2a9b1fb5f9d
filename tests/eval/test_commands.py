"""Every study is a command that says what it is for; what its parts take and give is tested beside this file."""

import importlib
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).parents[2] / "eval"
COMMANDS = sorted(".".join(path.parent.relative_to(EVAL.parent).parts) for path in EVAL.rglob("__main__.py"))
STUDIES = {"additive", "composition", "demo", "emergence", "forgetting", "growth", "squad", "squad_heads", "substrate"}
STUDIES |= {"unseen"}


def test_every_study_is_known():
    assert set(COMMANDS) == {f"eval.studies.{name}" for name in STUDIES} | {"eval.replication", "eval.walk"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_the_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"{name}.__main__").main()
    assert ended.value.code == 0
    assert f"python -m {name}" in capsys.readouterr().out
