"""The work folder of a run: damaged work is done again, never trained on; only what a run recorded is deleted."""

import json
import logging
import shutil

import pytest

from frozen_glyph.checkpoint.files import CheckpointError, FrozenGlyphError, sha256_file
from frozen_glyph.growth import run as run_module
from frozen_glyph.growth import stage as stage_module
from frozen_glyph.growth.run_folder import RunFolderError


def shards(folder):
    return {path.name: sha256_file(path) for path in folder.glob("*.safetensors")}


@pytest.fixture
def stopped(grow_tiny, tmp_path, monkeypatch):
    """A run that was stopped after it had trained the blocks of stage 1, before it wrote them."""
    monkeypatch.setattr(stage_module, "write_stage", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        grow_tiny(tmp_path / "run")
    monkeypatch.undo()
    return tmp_path / "run"


def damage(path):
    """Other bytes in the middle, of the same size."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(byte ^ 1 for byte in data[middle : middle + 8])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("stage-1/blocks/trained.safetensors", ["stage-1", "stage-2"]),
        ("stage-1/blocks/phase.json", ["stage-1", "stage-2"]),
        ("tokens-*.npy", ["stage-2"]),
        ("", ["stage-2"]),
    ],
)
def test_damaged_work_is_done_again(stopped, grow_tiny, finished, caplog, monkeypatch, name, again):
    trained, train = [], stage_module.train_phase

    def noted(model, windows, phase, training, folder, *rest):
        trained.append(folder.parent.name)
        return train(model, windows, phase, training, folder, *rest)

    monkeypatch.setattr(stage_module, "train_phase", noted)
    if name:
        (path,) = (stopped / ".work").glob(name)
        damage(path)
    with caplog.at_level(logging.WARNING):
        provenance = grow_tiny(stopped)
    assert ("has other bytes than were written; it is not used, but made again" in caplog.text) == bool(name)
    assert trained == again
    assert shards(stopped) == shards(finished[0])
    for entry, expected in zip(provenance["stages"], finished[1]["stages"], strict=True):
        assert [entry[key] for key in ("files", "tokens", "train_loss")] == [
            expected[key] for key in ("files", "tokens", "train_loss")
        ]


@pytest.mark.parametrize("damaged", [False, True])
def test_work_of_a_version_without_manifest_is_taken_over(stopped, grow_tiny, finished, caplog, damaged):
    """Checked by what the tensors' own header says; tokens, which nothing says anything of, are packed again."""
    (stopped / ".work" / "manifest.json").unlink()
    blocks = stopped / ".work" / "stage-1" / "blocks"
    if damaged:
        damage(blocks / "trained.safetensors")
    with caplog.at_level(logging.WARNING):
        grow_tiny(stopped)
    assert ("phase.json' was not recorded when it was written; it is taken as it is" in caplog.text) != damaged
    assert shards(stopped) == shards(finished[0])
    assert [path.name for path in (stopped / ".work").glob("stage-*")] == []


STRANGERS = ("notes.txt", "stage-1/notes.txt", "stage-1/blocks/notes.txt", "stage-1/blocks/checkpoint-12/notes.txt")


def test_files_of_others_in_the_work_folder_stay(stopped, grow_tiny, finished):
    for name in STRANGERS:
        (stopped / ".work" / name).parent.mkdir(exist_ok=True)
        (stopped / ".work" / name).write_text("mine")
    grow_tiny(stopped)
    assert shards(stopped) == shards(finished[0])
    left = {path.relative_to(stopped / ".work").as_posix() for path in (stopped / ".work").rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("tokens-")} == {*STRANGERS, "manifest.json"}


def remove_but_work(folder):
    """``rm -r folder/*``"""
    for path in folder.iterdir():
        if path.name != ".work":
            path.unlink()


def test_work_left_by_another_run_is_not_resumed(stopped, grow_tiny, finished):
    remove_but_work(stopped)
    assert (stopped / ".work" / "stage-1" / "blocks" / "trained.safetensors").exists()
    other = grow_tiny(stopped, {"seed": 6})
    assert other["stages"][0]["files"] != finished[1]["stages"][0]["files"]
    assert not (stopped / ".work" / "stage-1").exists()


def test_work_that_nobody_recorded_is_refused_by_name(stopped, grow_tiny):
    remove_but_work(stopped)
    shutil.move(stopped / ".work" / "manifest.json", stopped / ".work" / "mine.json")
    with pytest.raises(
        RunFolderError, match=r"stage-1' holds files that this run did not write, such as .*phase\.json"
    ):
        grow_tiny(stopped)
    assert (stopped / ".work" / "stage-1" / "blocks" / "phase.json").exists()


@pytest.mark.parametrize("name", [".workbook.xlsx", ".work.txt", ".provenance.json.bak", ".config.json.99.tmp"])
def test_a_refused_run_deletes_nothing_of_others(grow_tiny, tmp_path, name):
    """Whatever it is called; it also keeps the run out, as any file of others does."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("keep")
    (tmp_path / "short.txt").write_text("The cat.")
    with pytest.raises(RunFolderError, match="exists and holds no growth run"):
        grow_tiny(tmp_path / "run", text=[tmp_path / "short.txt"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_refused_run_leaves_folders_of_others(grow_tiny, tmp_path):
    for name in (".workspace", ".work"):
        (tmp_path / name / "run" / name).mkdir(parents=True)
        (tmp_path / name / "run" / name / "keep.txt").write_text("keep")
    (tmp_path / "short.txt").write_text("The cat.")
    with pytest.raises(RunFolderError, match="exists and holds no growth run"):
        grow_tiny(tmp_path / ".workspace" / "run", text=[tmp_path / "short.txt"])
    with pytest.raises(FrozenGlyphError, match="fewer than one window"):
        grow_tiny(tmp_path / ".work" / "run", text=[tmp_path / "short.txt"])
    assert [(tmp_path / name / "run" / name / "keep.txt").read_text() for name in (".workspace", ".work")] == [
        "keep"
    ] * 2


def test_a_refused_run_takes_back_what_it_wrote_and_no_more(finished, grow_tiny, tmp_path, monkeypatch):
    """Files that somebody puts there meanwhile stay, whatever they are called."""
    out = tmp_path / "run"

    def meanwhile(*_):
        assert {"provenance.json", "tokenizer.json", "substrate.safetensors"} <= {path.name for path in out.iterdir()}
        for name in ("blocks-7.safetensors", "generation_config.json.new", "lora-3/adapter_config.json", "README.md"):
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text("mine")
        raise RunFolderError("refused")

    monkeypatch.setattr(run_module, "check_positions", meanwhile)
    with pytest.raises(RunFolderError, match="refused"):
        grow_tiny(out, {"parent": {"source": str(finished[0])}}, substrate=None)
    left = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert left == dict.fromkeys(
        ("blocks-7.safetensors", "generation_config.json.new", "lora-3/adapter_config.json", "README.md"), "mine"
    )


def test_a_manifest_of_others_in_the_work_folder_is_refused(grow_tiny, tmp_path):
    (tmp_path / "run" / ".work").mkdir(parents=True)
    (tmp_path / "run" / ".work" / "manifest.json").write_text(json.dumps({"name": "my app"}))
    with pytest.raises(CheckpointError, match=r"manifest\.json' is no manifest of a folder of work; move it"):
        grow_tiny(tmp_path / "run")
    assert json.loads((tmp_path / "run" / ".work" / "manifest.json").read_text()) == {"name": "my app"}
