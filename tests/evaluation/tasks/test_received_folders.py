"""A report folder that somebody sent is data: nothing in its mirror or its answers runs."""

import pickle
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.checkpoint.loading import load_model
from frozen_glyph.evaluation.evaluate import evaluate_models
from frozen_glyph.evaluation.tasks.harness import Tasks, as_lm
from frozen_glyph.evaluation.tasks.mirror import Mirror

CODE = "raise SystemExit('code of the folder was run')"


class RunsCode:
    def __reduce__(self) -> Any:
        return (exec, (CODE,))


def test_no_code_of_a_mirror_runs(
    mirror: Mirror, model_folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its copy of the metric, nor a module that Python would find in its working folder."""
    received = shutil.copytree(mirror.root, tmp_path / "mirror")
    (received / "squad_v2" / "squad_v2.py").write_text(CODE)
    (received / "sacrebleu.py").write_text(CODE)
    for name in [name for name in sys.modules if name.split(".")[0] == "sacrebleu"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    tasks = Tasks(received)
    lm = as_lm(*load_model(model_folders[0]))
    for name in ("squadv2", "paper_bleu_en_ru"):
        task = tasks.load(name)
        assert task.run(lm, task.choose(2, 0), 0)["results"][name]
    assert sys.path[0] == ""


def test_answers_of_older_versions_are_not_opened_and_that_is_said(
    model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers").mkdir()
    with sqlite3.connect(tmp_path / "answers" / "0123456789abcdef.db") as database:
        database.execute('CREATE TABLE "unnamed" (key TEXT PRIMARY KEY, value BLOB)')
        database.execute('INSERT INTO "unnamed" VALUES (?, ?)', ("a" * 64, pickle.dumps(RunsCode(), protocol=2)))
    before = (tmp_path / "answers" / "0123456789abcdef.db").read_bytes()
    said: list[str] = []
    evaluate_models(model_folders[:1], data_folder, tmp_path, tasks=["boolq"], say=said.append)
    assert [line for line in said if "0123456789abcdef.db" in line and "not opened" in line]
    assert (tmp_path / "answers" / "0123456789abcdef.db").read_bytes() == before
    assert [path.suffix for path in sorted((tmp_path / "answers").iterdir())] == [".db", ".jsonl"]
