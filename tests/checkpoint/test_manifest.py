"""Only what this package wrote is used again or deleted: a file's name alone makes nothing ours."""

import json
import logging
import subprocess
import sys

import pytest

from frozen_glyph.checkpoint.files import CheckpointError, target_of, temporary_of
from frozen_glyph.checkpoint.folders import new_folder, remove_temporaries
from frozen_glyph.checkpoint.journal import JOURNAL_FILE
from frozen_glyph.checkpoint.manifest import MANIFEST_FILE, Manifest


@pytest.fixture
def work(tmp_path):
    """A folder of work with two recorded files, and a stranger beside each."""
    work = Manifest(tmp_path / "work")
    for name in ("tokens.npy", "stage-1/trained.bin"):
        for path in (work.folder / name, (work.folder / name).with_name("notes.txt")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"of {path.name}")
        work.record(name)
    return work


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_recorded_is_used_while_it_has_its_bytes(work, caplog):
    assert work.holds("tokens.npy") and not caplog.text
    (work.folder / "tokens.npy").write_text("of tokens.npz")
    assert not work.holds("tokens.npy")
    assert "tokens.npy' has other bytes than were written; it is not used, but made again" in caplog.text
    assert not work.holds("notes.txt")
    assert "notes.txt' was not recorded" in caplog.text
    assert not work.holds("gone.txt")


def test_what_others_wrote_or_changed_is_not_deleted(work):
    (work.folder / "tokens.npy").write_text("edited")
    work.remove()
    assert names(work.folder) == ["notes.txt", "stage-1/notes.txt", "tokens.npy"]


def test_nothing_is_left_where_all_is_ours(work):
    for name in ("notes.txt", "stage-1/notes.txt"):
        (work.folder / name).unlink()
    work.make("stage-1/states")
    work.remove("stage-1")
    assert names(work.folder) == [MANIFEST_FILE, "tokens.npy"]
    assert not (work.folder / "stage-1").exists()
    work.remove()
    assert not work.folder.exists()


def test_links_are_not_followed(work, tmp_path):
    (tmp_path / "mine.txt").write_text("of trained.bin")
    (work.folder / "stage-1/trained.bin").unlink()
    (work.folder / "stage-1/trained.bin").symlink_to(tmp_path / "mine.txt")
    work.remove()
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"name": "my app", "icons": []},
        {"kind": "work", "files": {"../mine.txt": None}, "folders": []},
        {"kind": "work", "files": {"/etc/passwd": None}, "folders": []},
        {"kind": "work", "files": ["mine.txt"], "folders": []},
        {"kind": "work", "files": {}, "folders": [".."]},
        [1],
    ],
)
def test_a_manifest_of_somebody_else_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(content))
    for call in (lambda m: m.record(MANIFEST_FILE), lambda m: m.remove(), lambda m: m.make("x")):
        with pytest.raises(CheckpointError, match=r"manifest\.json' is no manifest of a folder of work; move it"):
            call(Manifest(tmp_path))
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == content


def test_a_truncated_manifest_recorded_nothing(work, caplog):
    (work.folder / MANIFEST_FILE).write_text('{"kind": "wo')
    assert not work.holds("tokens.npy")
    assert "nothing that it recorded is used again" in caplog.text


FOREIGN = (".workbook.xlsx", ".draft.tmp", ".config.json.99.tmp", ".config.json.0123456789abcdef.tmp", "x.tmp", ".tmp")


def test_temporaries_know_themselves(tmp_path):
    path = temporary_of(tmp_path / "a.b.json")
    assert target_of(path) == "a.b.json"
    assert temporary_of(tmp_path / "a.b.json") != path
    assert [target_of(tmp_path / name) for name in FOREIGN] == [None] * len(FOREIGN)
    for name in (*FOREIGN, path.name):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, "other.json".__eq__)
    assert path.exists()
    remove_temporaries(tmp_path, "a.b.json".__eq__)
    assert sorted(FOREIGN) == names(tmp_path)


KILLED = """
import os, sys
from pathlib import Path
from frozen_glyph.checkpoint.files import copy_file, temporary_of, write_text
from frozen_glyph.checkpoint.folders import new_folder
from frozen_glyph.checkpoint.journal import note_below
with new_folder(Path(sys.argv[1])) as folder:
    for name in ("config.json", "lora/adapter_config.json", "README.md", "tokenizer.json"):
        write_text(folder / name, "ours")
    (folder / "model.safetensors").write_text("a library's")
    note_below(folder)
    temporary_of(folder / "head.safetensors").touch()
    (folder / "substrate.json").write_text("not noted yet")
    os._exit(9)
"""


def test_a_new_folder_clears_only_what_was_left_of_it(tmp_path, caplog):
    """Of a killed process's folder the files that it noted and nobody changed since; a user's, of any name, stay."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    (stale,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert len(names(stale)) == 8
    (stale / "head.safetensors").write_text("mine")
    (stale / "README.md").write_text("mine")  # in the place of ours, also with as many bytes
    (stale / "tokenizer.json").unlink()
    (stale / "tokenizer.json").symlink_to(stale / "README.md")
    alike = temporary_of(tmp_path / "out")  # our name, but nobody noted anything
    for name in ("config.json", "lora/adapter_config.json", JOURNAL_FILE):
        (alike / name).parent.mkdir(parents=True, exist_ok=True)
        (alike / name).write_text("mine")
    with caplog.at_level(logging.WARNING), new_folder(tmp_path / "out") as folder:
        (folder / "x").touch()
    assert names(stale) == ["README.md", "head.safetensors", "substrate.json", "tokenizer.json"]
    assert names(alike) == [JOURNAL_FILE, "config.json", "lora/adapter_config.json"]
    assert names(tmp_path / "out") == ["x"]
    assert "it recorded no 'README.md' there, so that stays" in caplog.text
    assert (stale / "README.md").read_text() == "mine"
    with pytest.raises(CheckpointError, match="exists and is not empty"), new_folder(tmp_path / "out"):
        pass
