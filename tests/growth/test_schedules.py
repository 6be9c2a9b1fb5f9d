"""How a run spends its steps: where the learning rate falls, which blocks train, and what is written of that."""

import json
import math
import re

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, grow, merge_experts
from frozen_glyph.checkpoint.files import CheckpointError, read_tensors, read_weight_map
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.growth import stage as stage_module
from frozen_glyph.growth.estimate import estimate
from frozen_glyph.growth.expand import choose_trainable, moments_for
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.training.callbacks import StageProgress
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.train import Phase, rate_over_run

TOP_TWO = {"steps": 6, "init": "copy_zero", "active": 2, "optimizer": "carried"}
STAGES = [{"steps": 6}, TOP_TWO, TOP_TWO]
CHANGES = {"stages": STAGES, "decay": "run", "training.schedule": "warmup_stable_decay", "training.warmup_steps": 2}


def weights(folder, stage: int) -> dict[str, torch.Tensor]:
    return FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage).state_dict()


def block(tensors: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    return tensors[f"model.layers.{layer}.mlp.fc_in.weight"]


def stop_at_stage(number: int):
    """A ``grown_model`` that ends the process when stage ``number`` begins."""
    plain = stage_module.grown_model

    def grown_model(run, stage, plan):
        if stage == number:
            raise InterruptedError
        return plain(run, stage, plan)

    return grown_model


def stop_after(calls: int, function):
    """``function``, which ends the process at its call of that number."""
    count = iter(range(1, calls + 1))

    def stopping(*arguments, **kwargs):
        if next(count) == calls:
            raise InterruptedError
        return function(*arguments, **kwargs)

    return stopping


@pytest.fixture(scope="module")
def scheduled(grow_tiny, tmp_path_factory):
    """(folder, provenance) of three stages under one decay, of which the topmost two blocks train, moments carried."""
    folder = tmp_path_factory.mktemp("runs") / "scheduled"
    return folder, grow_tiny(folder, CHANGES)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup_stable_decay"])
def test_rates_of_all_phases_together_follow_one_decay(schedule):
    """Halves of a run, each warmed up, on the curve of the whole; at its end the final share of the peak."""
    recipe = TrainingRecipe(schedule=schedule, warmup_steps=2)
    halves = [Phase(50, 1e-3, 0, run_steps=100, steps_before=before) for before in (0, 50)]
    rates = [rate_over_run(recipe, half, step) for half in halves for step in range(50)]
    expected = {
        "cosine": lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2,
        "linear": lambda done: 1 - 0.9 * done,
        "warmup_stable_decay": lambda done: 1.0 if done < 0.8 else 0.1 + 0.9 * (1 - done) / 0.2,
    }[schedule]
    warm = [0, 0.5, *[1] * 48] * 2
    carried = Phase(50, 1e-3, 0, run_steps=100, steps_before=50, moments={"head.step": torch.zeros(())})
    assert rate_over_run(recipe, carried, 0) == pytest.approx(expected(0.5)), "no second warm-up"
    assert rates == pytest.approx([share * expected(step / 100) for step, share in enumerate(warm)])
    assert rate_over_run(recipe, halves[1], 50) == pytest.approx(0.1)


def test_a_run_decays_once(scheduled):
    rates = {
        (stage, entry["step"]): entry["learning_rate"]
        for stage in (1, 2, 3)
        for entry in map(json.loads, (scheduled[0] / f"metrics-{stage}.jsonl").read_text().splitlines())
    }
    assert rates[1, 6] == rates[2, 6] == pytest.approx(1e-2)
    assert rates[3, 6] < 5e-3


def test_blocks_below_the_newest_that_train_get_new_shards(scheduled):
    folder, provenance = scheduled
    first, second, third = (weights(folder, stage) for stage in (1, 2, 3))
    assert not torch.equal(block(first, 0), block(second, 0)), "both blocks of stage 2 train"
    assert torch.equal(block(second, 0), block(third, 0)), "the lowest of stage 3 is frozen"
    assert not torch.equal(block(second, 1), block(third, 1))
    names = [f"model.layers.{layer}.mlp.fc_in.weight" for layer in range(3)]
    shards = [read_weight_map(folder / f"stage-{stage}.safetensors.index.json") for stage in (1, 2, 3)]
    assert [[found.get(name) for name in names] for found in shards] == [
        ["blocks-1.safetensors", None, None],
        ["blocks-1.stage-2.safetensors", "blocks-2.safetensors", None],
        ["blocks-1.stage-2.safetensors", "blocks-2.stage-3.safetensors", "blocks-3.safetensors"],
    ]
    assert [entry.get("active") for entry in provenance["stages"]] == [None, 2, 2]
    assert json.loads((folder / "config.json").read_text())["num_frozen_layers"] == 1
    card = (folder / "README.md").read_text("utf-8")
    assert re.search(r"\| 3 \| 3 \| 2 \| [\d,]+ \|", card), "the card says how many blocks trained"


def test_the_estimate_counts_what_is_active(scheduled, make_recipe):
    config = json.loads((scheduled[0] / "config.json").read_text())
    sizes = {f"model.{name}": config[name] for name in ("vocab_size", "substrate_bits")}
    phases = estimate(make_recipe(CHANGES | sizes))
    assert [phase["trainable_parameters"] for phase in phases] == [
        entry["trainable_parameters"] for entry in scheduled[1]["stages"]
    ]
    newest = estimate(make_recipe(CHANGES | sizes | {"stages": [{"steps": 6}] * 3}))
    assert phases[0] == newest[0]
    for phase, less in zip(phases[1:], newest[1:], strict=True):
        assert phase["flops"] > less["flops"]
        assert all(phase["memory_bytes"][part] > less["memory_bytes"][part] for part in ("optimizer", "activations"))


def test_more_active_blocks_than_there_are_means_all(make_recipe):
    (one, both), (same, again) = (
        estimate(make_recipe({"stages": [{"active": 9}, {"active": count}]})) for count in (9, 2)
    )
    assert one == same and both == again and both["frozen_parameters"] == 0


def test_newest_blocks_go_on_alone_after_more_were_active(grow_tiny, tmp_path):
    provenance = grow_tiny(
        tmp_path / "run", {"stages": [STAGES[0], STAGES[1], {"layers": 0, "steps": 2}], "health": "off"}
    )
    second, third = (weights(tmp_path / "run", stage) for stage in (2, 3))
    assert torch.equal(block(second, 0), block(third, 0)) and not torch.equal(block(second, 1), block(third, 1))
    assert provenance["stages"][2]["trainable_parameters"] == provenance["stages"][0]["trainable_parameters"]


def test_a_killed_run_ends_with_the_same_bytes(scheduled, grow_tiny, monkeypatch, tmp_path):
    """Stopped after the last checkpoint of stage 1, before it was marked as finished, and in the middle of stage 2."""
    work, steps = tmp_path / "run" / ".work" / "stage-2", iter(range(1, 100))

    def stop(*arguments, **kwargs):
        raise InterruptedError

    def stop_in_the_middle(self, args, state, control, **kwargs):
        if next(steps) == 5:
            raise InterruptedError

    for name, place, ends in (
        ("write_phase", stage_module, stop),
        ("on_step_end", StageProgress, stop_in_the_middle),
    ):
        (work / "moments.safetensors").unlink(missing_ok=True)  # is read off the checkpoint again
        monkeypatch.setattr(place, name, ends)
        with pytest.raises(InterruptedError):
            grow_tiny(tmp_path / "run", CHANGES)
        monkeypatch.undo()
    assert (work / "blocks" / "checkpoint-4").is_dir()
    provenance = grow_tiny(tmp_path / "run", CHANGES)
    assert [entry["files"] for entry in provenance["stages"]] == [entry["files"] for entry in scheduled[1]["stages"]]
    assert not list((tmp_path / "run" / ".work").glob("stage-*"))


@pytest.mark.slow
def test_adapters_below_train_beside_the_newest_block_and_are_merged(grow_tiny, make_recipe, monkeypatch, tmp_path):
    """Blocks below get new shards, earlier stages stay; a killed run ends with the same bytes."""
    more = {"steps": 6, "init": "copy_zero", "optimizer": "carried", "lora_below": 2}
    changes = CHANGES | {"stages": [STAGES[0], more, more]}
    provenance = grow_tiny(tmp_path / "run", changes)
    first, second, third = (weights(tmp_path / "run", stage) for stage in (1, 2, 3))
    assert first.keys() < second.keys() < third.keys() and not any("lora" in name for name in third)
    for below, above, layer in ((first, second, 0), (second, third, 0), (second, third, 1)):
        difference = block(above, layer) - block(below, layer)
        assert torch.linalg.matrix_rank(difference) == 2, "that of the adapters"
    shards = read_weight_map(tmp_path / "run" / "stage-3.safetensors.index.json")
    assert shards["model.layers.0.mlp.fc_in.weight"] == "blocks-1.stage-3.safetensors"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    sizes = {f"model.{name}": config[name] for name in ("vocab_size", "substrate_bits")}
    assert [phase["trainable_parameters"] for phase in estimate(make_recipe(changes | sizes))] == [
        entry["trainable_parameters"] for entry in provenance["stages"]
    ]
    for name in ("write_stage", "write_phase"):  # when all is trained, and before that is kept
        monkeypatch.setattr(stage_module, name, stop_after(2, getattr(stage_module, name)))
        with pytest.raises(InterruptedError):
            grow_tiny(tmp_path / name, changes)
        monkeypatch.undo()
        again = grow_tiny(tmp_path / name, changes)
        assert [entry["files"] for entry in again["stages"]] == [entry["files"] for entry in provenance["stages"]]


def test_moments_go_on_and_are_copied_with_their_block(build_model):
    """Norm, head and the block that goes on have theirs; the copy has its source's, but not of outputs of zero."""
    model = grow(build_model(num_hidden_layers=2), 1, "copy_zero")
    plan = StageRecipe(init="copy_zero", active=2)
    model.config.num_frozen_layers = plan.frozen_blocks(3, 2)
    choose_trainable(model, plan.train)
    left = {
        f"{name}.{part}": torch.full((), float(place))
        for place, (name, _) in enumerate(model.named_parameters())
        for part in ("step", "exp_avg", "exp_avg_sq")
        if name.startswith(("model.layers.1.", "model.norm.", "lm_head."))
    }
    begin = moments_for(model, left, plan)
    assert left.items() <= begin.items()
    copied = {name: value for name, value in begin.items() if name.startswith("model.layers.2.")}
    assert copied == {
        name.replace("layers.1.", "layers.2."): value
        for name, value in left.items()
        if name.startswith("model.layers.1.") and not any(part in name for part in ("o_proj", "fc_out"))
    }
    assert not any("layers.2." in name for name in moments_for(model, left, StageRecipe(init="random")))


def test_carried_moments_change_what_is_learnt_and_lost_ones_are_named(scheduled, grow_tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(stage_module, "grown_model", stop_at_stage(3))
    with pytest.raises(InterruptedError):
        grow_tiny(tmp_path / "new", CHANGES | {"stages": [STAGES[0], TOP_TWO | {"optimizer": "new"}, TOP_TWO]})
    first, second = (
        [read_provenance(folder)["stages"][place]["train_loss"] for folder in (scheduled[0], tmp_path / "new")]
        for place in (0, 1)
    )
    assert first[0] == first[1] and second[0] != second[1]
    assert [entry.get("optimizer") for entry in scheduled[1]["stages"]] == [None, "carried", "carried"]
    monkeypatch.setattr(stage_module, "grown_model", stop_at_stage(2))
    with pytest.raises(InterruptedError):
        grow_tiny(tmp_path / "run", CHANGES)
    monkeypatch.undo()
    path = tmp_path / "run" / ".work" / "stage-2" / "moments.safetensors"
    assert float(read_tensors(path)["lm_head.weight.step"]) == 6
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"moments.safetensors', the optimiser state that stage 1 left for stage"):
        grow_tiny(tmp_path / "run", CHANGES)


def test_such_runs_merge_and_give_their_experts_back(scheduled, finished, tmp_path):
    merged = merge_experts([scheduled[0], finished[0]], tmp_path / "merged", names=["scheduled", "plain"])
    extract_expert(merged, "scheduled", tmp_path / "back")
    back = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights(scheduled[0], 3).items())


def test_stages_are_not_appended_to_a_decay_that_is_over(scheduled, grow_tiny):
    with pytest.raises(RunFolderError, match=r"another recipe \(stages\[3\] is None there"):
        grow_tiny(scheduled[0], CHANGES | {"stages": [*STAGES, {"steps": 6}]})


def test_moments_are_not_carried_where_processes_divide_them(grow_tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(
        RecipeError, match=r"stages\.optimizer='carried': FSDP and DeepSpeed divide the optimiser state"
    ):
        grow_tiny(tmp_path / "run", CHANGES)
    assert not (tmp_path / "run").exists()


def test_an_appended_stage_finds_no_moments(finished, grow_tiny, make_recipe):
    stages = [entry.to_dict() for entry in make_recipe().stages]
    with pytest.raises(RunFolderError, match=r"another recipe \(stages\[2\] is None there"):
        grow_tiny(finished[0], {"stages": [*stages, {"optimizer": "carried"}]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "never"}, "decay='never' is not allowed: it must be one of stage, run"),
        ({"decay": "run", "training.schedule": "constant"}, "training.schedule='constant' is not allowed: it must be"),
        (
            {"decay": "run", "training.eval_steps": 2, "stages.1.patience": 1},
            "stages[1].patience=1 is not allowed: it must be left out with decay: run",
        ),
        (
            {"stages.0.optimizer": "carried"},
            "stages[0].optimizer='carried' is not allowed: it must be new in the",
        ),
        ({"stages.1.active": 0}, "stages[1].active=0 is not allowed: it must be from 1"),
        ({"stages.0.lora_below": 2}, "stages[0].lora_below=2 is not allowed: it must be left out in a first stage"),
        ({"stages.1.lora_below": 2, "training.prefix_cache": "memory"}, "stages[1].lora_below=2 is not allowed"),
        (
            {"stages.1.lora_below": 2, "stages.1.rotate": 2},
            "stages[1].lora_below=2 is not allowed: it must be left out",
        ),
        ({"stages.1.active": 2, "stages.1.train": ["head"]}, "stages[1].active=2 is not allowed: it must be left out"),
    ],
)
def test_what_makes_no_sense_together_is_refused(recipe_content, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse(GrowthRecipe, recipe_content({"stages.1.active": None} | changes))


def test_a_recipe_without_them_is_recorded_as_before(make_recipe):
    content = make_recipe().to_dict()
    assert "decay" not in content and "active" not in content["stages"][0]
    changed = make_recipe({"decay": "run", "stages.1.active": 2})
    assert (changed.to_dict()["decay"], changed.to_dict()["stages"][1]["active"]) == ("run", 2)
    assert changed.sha256 != make_recipe().sha256
