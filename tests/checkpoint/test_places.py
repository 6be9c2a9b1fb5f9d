"""Where a command may write: through a link it works, anywhere else that cannot be it is refused before the work."""

import json
import os
import shutil

import pytest

from frozen_glyph import extract_expert, grow_from_recipe, merge_experts, tune_head
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.evaluation.evaluate import evaluate_models
from frozen_glyph.evaluation.tasks.mirror import write_mirror
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.published.importing import import_published
from frozen_glyph.training.recipe import TrainingRecipe

TEXT = "\n\n".join(f"The cat {verb} on the mat, and {verb} there." for verb in ("sat", "is", "stood") * 12)


def places(home):
    """What cannot be a new folder, and what is said of it."""
    (home / "file").write_text("mine")
    (home / "dangling").symlink_to(home / "nowhere")
    (home / "circle").symlink_to(home / "circle")
    (home / "full").mkdir()
    (home / "full" / "mine").write_text("mine")
    (home / "full-link").symlink_to("full")
    return {
        home / "file": "is a file",
        home / "file" / "below": "is a file",
        home / "dangling": "is a link to",
        home / "dangling" / "below": "is a link to",
        home / "circle": "is a link to",
        home / ("x" * 240): "is too long a name",
        home / "full": "exists and is not empty",
        home / "full-link": "exists and is not empty",
        home / "full" / "..": "exists and is not empty",
    }


VERBS = {
    "merge": lambda experts, merged, text, out: merge_experts(experts, out),
    "extract": lambda experts, merged, text, out: extract_expert(merged, "ru", out),
    "to-dense": lambda experts, merged, text, out: export_dense(experts[0], out),
    "tune-head": lambda experts, merged, text, out: tune_head(
        merged, out, TuneRecipe(training=TrainingRecipe(context_length=32)), [text]
    ),
    "import-published": lambda experts, merged, text, out: import_published(experts[0], out),
}
IN_PLACE = {  # refused where no folder can be; what may be in it is theirs to say
    "grow": lambda experts, merged, text, out: grow_from_recipe(None, out),
    "eval": lambda experts, merged, text, out: evaluate_models([str(experts[0])], merged, out, texts=[text]),
    "mirror": lambda experts, merged, text, out: write_mirror(merged, out),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def everything_below(home):
    return {path: path.is_file() and path.read_bytes() for path in home.rglob("*")}


@pytest.mark.parametrize("verb", [*VERBS, *IN_PLACE])
def test_a_place_that_cannot_be_is_refused_and_nothing_changes(experts, merged_folder, text, tmp_path, verb):
    refusals = places(tmp_path)
    before = everything_below(tmp_path)
    for out, said in refusals.items():
        if verb in IN_PLACE and "not empty" in said:
            continue
        with pytest.raises(CheckpointError, match=said) as refusal:
            (VERBS | IN_PLACE)[verb](experts, merged_folder, text, out)
        assert len(str(refusal.value).splitlines()) == 1
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", [".", "", "./"])
def test_the_current_folder_is_refused_because_the_shell_would_stay_in_the_old_one(
    experts, merged_folder, text, tmp_path, monkeypatch, verb, name
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"is the folder that you are in.*name one inside it"):
        VERBS[verb](experts, merged_folder, text, name)


def test_a_mount_point_is_refused(experts, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path / "volume"))
    (tmp_path / "volume").mkdir()
    with pytest.raises(CheckpointError, match="is a mount point"):
        merge_experts(experts, tmp_path / "volume")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_the_right_to_write_is_refused(experts, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="no right to write into"):
        merge_experts(experts, tmp_path / "theirs" / "merged")


@pytest.mark.parametrize("verb", ["merge", "extract", "to-dense"])
@pytest.mark.parametrize("how", ["link", "parent link", "empty", "slash", "deep"])
def test_a_new_folder_through_a_link(experts, merged_folder, text, tmp_path, verb, how):
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    out, real = {
        "link": (tmp_path / "link", tmp_path / "disk" / "real"),
        "parent link": (tmp_path / "link" / "new", tmp_path / "disk" / "real" / "new"),
        "empty": (tmp_path / "disk" / "real", tmp_path / "disk" / "real"),
        "slash": (f"{tmp_path}/disk/new/", tmp_path / "disk" / "new"),
        "deep": (tmp_path / "a" / "b" / "c", tmp_path / "a" / "b" / "c"),
    }[how]
    VERBS[verb](experts, merged_folder, text, out)
    assert (real / "config.json").is_file() and not describe_checkpoint(real, verify=True)["problems"]
    assert (tmp_path / "link").is_symlink()
    left = {path.name for path in (*tmp_path.iterdir(), *(tmp_path / "disk").iterdir(), *real.parent.iterdir())}
    assert not [name for name in left if name.endswith((".tmp", ".lock"))]


@pytest.mark.parametrize("how", ["link", "."])
def test_a_run_grows_and_resumes_through_a_link_and_in_the_current_folder(
    substrate, tiny_training, tmp_path, monkeypatch, how
):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    substrate.save_pretrained(tmp_path / "glyphs")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    recipe = {
        "name": "x", "model": {"hidden_size": 48, "num_attention_heads": 4}, "stages": [{"steps": 1}],
        "training": tiny_training | {"batch_tokens": 64},
        "data": {"sources": [{"files": [str(tmp_path / "text.txt")]}]},
    }  # fmt: skip
    (tmp_path / "growth.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "real")
    out = tmp_path / "link" if how == "link" else "."
    for _ in range(2):
        grow_from_recipe(load_recipe(tmp_path / "growth.yaml"), out, substrate=tmp_path / "glyphs")
    assert not describe_checkpoint(tmp_path / "real", verify=True)["problems"]
    assert (tmp_path / "real" / "README.md").read_text().count("# real") == 1


def test_a_mirror_through_a_link(tmp_path):
    (tmp_path / "data" / "text").mkdir(parents=True)
    (tmp_path / "data" / "text" / "en.valid.txt").write_text(TEXT)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for change in ("", "more"):
        (tmp_path / "data" / "text" / "en.valid.txt").write_text(TEXT + change)
        write_mirror(tmp_path / "data", tmp_path / "link")
        assert (tmp_path / "real" / "text" / "en.valid.txt").read_text() == TEXT + change
    assert (tmp_path / "link").is_symlink()
    shutil.rmtree(tmp_path / "real")
