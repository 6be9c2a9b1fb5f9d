"""A run goes on under a recipe that differs in what does not change its result, and refuses any other by field."""

import json

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.training.callbacks import StageProgress
from frozen_glyph.training.trainer import TrainingDiverged

FREE = {
    "name": "other",
    "health": "off",
    "license": "mit",
    "language": ["ru"],
    "training.micro_batch_size": 1,
    "training.activation_checkpointing": True,
    "training.save_steps": 3,
    "training.report_to": [],
}


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def changes_of(folder):
    return {entry["field"]: (entry["from"], entry["to"], entry["stage"]) for entry in stored(folder)["changes"]}


def stored(folder):
    return json.loads((folder / "provenance.json").read_text())


class Stopped(Exception):
    pass


@pytest.fixture
def stop_at(monkeypatch):
    """``stop_at(18)``: the process ends at that optimiser step of the run, counted over its phases."""

    def stop_at(step):
        seen = iter(range(1, 1000))

        def on_step_end(self, args, state, control, **kwargs):
            if next(seen) == step:
                raise Stopped

        monkeypatch.setattr(StageProgress, "on_step_end", on_step_end)

    yield stop_at
    monkeypatch.undo()


def test_what_does_not_change_the_result_may_change_in_the_middle_of_a_phase(
    finished, grow_tiny, stop_at, monkeypatch, tmp_path
):
    stop_at(12 + 9)
    with pytest.raises(Stopped):
        grow_tiny(tmp_path / "run")
    assert (tmp_path / "run" / ".work" / "stage-2" / "blocks" / "checkpoint-8").is_dir()
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(StageProgress, "on_step_end", lambda self, args, state, control, **kwargs: steps.append(0))
    grow_tiny(tmp_path / "run", FREE)
    assert len(steps) == 12 - 8, "the phase went on from its checkpoint"
    changed = changes_of(tmp_path / "run")
    assert changed["training.micro_batch_size"] == (None, 1, 2) and changed["name"] == ("tiny", "other", 2)
    assert stored(tmp_path / "run")["recipe"]["name"] == "other"
    expected, got = (
        FrozenGlyphForCausalLM.from_pretrained(folder).state_dict() for folder in (finished[0], tmp_path / "run")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_what_computes_the_same_sums_keeps_the_bits(finished, grow_tiny, stop_at, monkeypatch, tmp_path):
    stop_at(5)
    with pytest.raises(Stopped):
        grow_tiny(tmp_path / "run", {"name": "run"})
    monkeypatch.undo()
    grow_tiny(tmp_path / "run", FREE | {"training.micro_batch_size": None})
    assert shards(tmp_path / "run") == shards(finished[0])


def test_a_finished_run_with_free_changes_is_left_as_it_is(copied, grow_tiny, finished):
    before = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    assert grow_tiny(copied, FREE) == finished[1]
    assert {path.name: path.stat().st_mtime_ns for path in copied.iterdir()} == before


def test_a_finished_run_goes_on_with_one_stage_more(copied, grow_tiny, make_recipe, tmp_path):
    stages = [{"steps": 12}, {"layers": 2, "steps": 12, "init": "random"}, {"steps": 4}]
    provenance = grow_tiny(copied, {"stages": stages})
    assert [entry["stage"] for entry in provenance["stages"]] == [1, 2, 3]
    assert changes_of(copied).keys() == {"stages[2]"}
    grow_tiny(tmp_path / "straight", {"stages": stages})
    assert shards(copied) == shards(tmp_path / "straight")
    with pytest.raises(RunFolderError, match=r"another recipe \(stages\[2\] is \{'layers': 1.* there, None here\)"):
        grow_tiny(copied)


def test_the_number_of_blocks_that_a_recipe_repeats_follows_its_stages(grow_tiny, tmp_path):
    grow_tiny(tmp_path / "run", {"stages": [{"steps": 2}], "model.num_hidden_layers": 1})
    grow_tiny(tmp_path / "run", {"stages": [{"steps": 2}, {"steps": 2}], "model.num_hidden_layers": 2})
    assert json.loads((tmp_path / "run" / "config.json").read_text())["ladder"] == [1, 2]


class TestDivergence:
    """A stage that diverged begins again with a lower learning rate, and becomes what a new run would make of it."""

    @pytest.fixture
    def diverged(self, grow_tiny, tmp_path):
        with pytest.raises(TrainingDiverged, match="that of the next stage alone"):
            grow_tiny(tmp_path / "run", {"stages.1.learning_rate": 1e30})
        return tmp_path / "run"

    def test_lower_rate_of_the_stage(self, diverged, grow_tiny, tmp_path):
        mark = stored(diverged)["diverged"]
        assert (mark["stage"], mark["phase"]) == (2, "blocks") and "diverged" in mark["message"]
        grow_tiny(diverged, {"stages.1.learning_rate": 5e-3})
        grow_tiny(tmp_path / "straight", {"stages.1.learning_rate": 5e-3})
        assert shards(diverged) == shards(tmp_path / "straight")
        (change,) = stored(diverged)["changes"]
        assert (change["field"], change["from"], change["to"], change["stage"]) == (
            "stages[1].learning_rate", 1e30, 5e-3, 2,
        )  # fmt: skip
        assert "diverged" in change["why"]
        assert "diverged" not in stored(diverged)

    def test_no_higher_rate_and_none_of_a_finished_stage(self, diverged, grow_tiny):
        with pytest.raises(RunFolderError, match=r"stages\[1\]\.learning_rate is 1e\+30 there, 1e\+31 here"):
            grow_tiny(diverged, {"stages.1.learning_rate": 1e31})
        message = r"training\.learning_rate is 0\.01 there, 0\.005 here\).*stages\.1\.learning_rate"
        with pytest.raises(RunFolderError, match=message):
            grow_tiny(diverged, {"stages.1.learning_rate": 5e-3, "training.learning_rate": 5e-3})

    def test_lower_rate_of_all_while_no_stage_is_finished(self, grow_tiny, finished, tmp_path):
        with pytest.raises(TrainingDiverged):
            grow_tiny(tmp_path / "run", {"training.learning_rate": 1e30})
        grow_tiny(tmp_path / "run")
        assert shards(tmp_path / "run") == shards(finished[0])

    def test_lower_rate_of_adapters(self, grow_tiny, tmp_path):
        lora = {"rank": 2, "from_stage": 1, "steps": 4}
        stages = {"stages": [{"steps": 4}]}
        with pytest.raises(TrainingDiverged):
            grow_tiny(tmp_path / "run", stages | {"lora": lora | {"learning_rate": 1e30}})
        assert stored(tmp_path / "run")["diverged"]["phase"] == "lora"
        assert (tmp_path / "run" / ".work" / "stage-1" / "blocks" / "phase.json").exists()
        grow_tiny(tmp_path / "run", stages | {"lora": lora | {"learning_rate": 1e-3}})
        grow_tiny(tmp_path / "straight", stages | {"lora": lora | {"learning_rate": 1e-3}})
        assert shards(tmp_path / "run") == shards(tmp_path / "straight")

    def test_a_lower_rate_without_divergence_is_another_run(self, copied, grow_tiny):
        with pytest.raises(RunFolderError, match=r"training\.learning_rate is 0\.01 there, 0\.005 here"):
            grow_tiny(copied, {"training.learning_rate": 5e-3})


def test_a_refusal_names_every_field_with_both_values(copied, grow_tiny, texts, tmp_path):
    other = tmp_path / "train.txt"
    other.write_text("The cat sat. " * 50)
    with pytest.raises(RunFolderError) as refusal:
        grow_tiny(copied, {"seed": 6, "stages.1.init": "copy", "name": "free"})
    assert "stages[1].init is 'random' there, 'copy' here; seed is 5 there, 6 here" in str(refusal.value)
    assert "name is" not in str(refusal.value) and "sha256" not in str(refusal.value)
    with pytest.raises(RunFolderError, match=r"other training text \(data\[0\]\.sha256 is '"):
        grow_tiny(copied, text=[other])


def test_a_run_of_the_version_before_goes_on(finished, copied, grow_tiny):
    """Its recipe is compared as it was recorded; what its hash was made of does not matter."""
    content = stored(copied)
    del content["corpus"]
    content["recipe_sha256"] = "0" * 64
    (copied / "provenance.json").write_text(json.dumps(content))
    assert grow_tiny(copied)["stages"] == finished[1]["stages"]
    assert read_provenance(copied)["recipe_sha256"] == "0" * 64
