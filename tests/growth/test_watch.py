"""A stage that does not learn is seen: recorded, warned of, or refused with what it trained kept."""

import json
import warnings

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.contract import WORK_FOLDER
from frozen_glyph.checkpoint.files import read_tensors
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.growth.watch import StageCollapsed
from frozen_glyph.health.measure import model_health
from frozen_glyph.training.data import TokenWindows

SICK = {"model.linear_kinds": [["layers.1.*", "additive"], ["layers.2.*", "additive"]]}


def test_the_newest_blocks_are_recorded_stage_by_stage(finished):
    folder, provenance = finished
    names = [[block["name"] for block in entry["health"]["blocks"]] for entry in provenance["stages"]]
    assert names == [["model.layers.0"], ["model.layers.1", "model.layers.2"]]
    assert read_provenance(folder)["stages"][1]["health"] == provenance["stages"][1]["health"]
    for entry in provenance["stages"]:
        assert entry["health"]["collapsed"] == [] and "seconds" not in entry["health"]
        lines = [json.loads(line) for line in (folder / f"metrics-{entry['stage']}.jsonl").read_text().splitlines()]
        assert lines[-1]["health"] == entry["health"] and not any("health" in line for line in lines[:-1])


def test_the_record_is_that_of_the_stage_as_it_is_written(finished):
    """Distances depend on the weights alone; so they can be measured again without the run's windows."""
    folder, provenance = finished
    model = FrozenGlyphForCausalLM.from_pretrained(folder)
    batch = torch.randint(3, 300, (8, 32), generator=torch.Generator().manual_seed(0))
    again = model_health(model, [batch], ["model.layers.1", "model.layers.2"])
    for block, recorded in zip(again["blocks"], provenance["stages"][1]["health"]["blocks"], strict=True):
        assert block["metrics"]["distance"] == recorded["metrics"]["distance"]


def test_a_healthy_run_warns_of_nothing(grow_tiny, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        grow_tiny(tmp_path / "run", {"health": "stop", "stages": [{"steps": 12}]})


def test_warn_writes_a_collapsed_stage_and_says_so(grow_tiny, tmp_path):
    with pytest.warns(UserWarning, match=r"tiny stage 2/2 does not learn .*model\.layers\.1.*; and \d+ more"):
        provenance = grow_tiny(tmp_path / "run", SICK)
    assert provenance["stages"][1]["health"]["collapsed"] == ["model.layers.1", "model.layers.2"]
    assert FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run").config.num_hidden_layers == 3


def test_stop_refuses_it_keeps_what_it_trained_and_warn_then_writes_it(grow_tiny, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(StageCollapsed, match=r"not written; .*kept in .*stage-2.*health: warn"):
        grow_tiny(folder, SICK | {"health": "stop"})
    assert [entry["stage"] for entry in read_provenance(folder)["stages"]] == [1]
    assert not (folder / "head-2.safetensors").exists()
    assert FrozenGlyphForCausalLM.from_pretrained(folder).config.num_hidden_layers == 1
    kept = folder / WORK_FOLDER / "stage-2" / "blocks"
    trained, changed = read_tensors(kept / "trained.safetensors"), (kept / "phase.json").stat().st_mtime_ns
    with pytest.raises(StageCollapsed):
        grow_tiny(folder, SICK | {"health": "stop"})
    assert (kept / "phase.json").stat().st_mtime_ns == changed  # it was not trained again
    with pytest.warns(UserWarning, match="does not learn"):
        grow_tiny(folder, SICK | {"health": "warn"})
    state = FrozenGlyphForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in trained.items())


def test_off_looks_at_nothing(grow_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("frozen_glyph.growth.stage.watch_stage", None)
    provenance = grow_tiny(tmp_path / "run", SICK | {"health": False, "stages.0.steps": 2, "stages.1.steps": 2})
    assert [entry["health"] for entry in provenance["stages"]] == [None, None]
    assert provenance["recipe"]["health"] == "off"  # which YAML reads as false


def test_health_does_not_change_whose_run_a_folder_holds(make_recipe):
    assert make_recipe({"health": "stop"}).sha256 == make_recipe().sha256
    assert make_recipe().health == "warn"
    with pytest.raises(ValueError, match="health='halt' is not allowed: it must be one of stop, warn, off"):
        make_recipe({"health": "halt"})


def test_too_short_a_text_is_not_measured(finished):
    from frozen_glyph.growth.watch import watch_stage

    model = FrozenGlyphForCausalLM.from_pretrained(finished[0])
    windows = TokenWindows(torch.arange(20).numpy(), 8)
    assert watch_stage(model, windows, 1e-3, "stop", "stage", finished[0]) is None
