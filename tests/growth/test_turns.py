"""Decay branches off every stage, and blocks that take turns: what is learnt, written and estimated, killed or not."""

import copy
import dataclasses
import itertools
import json
import re

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.files import CheckpointError, read_weight_map
from frozen_glyph.growth import stage as stage_module
from frozen_glyph.growth.estimate import estimate, estimate_phase, flops_per_token, memory_bytes
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.growth.shape import shape_of_fields
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.training import turns
from frozen_glyph.training.callbacks import StageProgress
from frozen_glyph.training.recipe import TrainingRecipe

CHANGES = {
    "stages": [
        {"steps": 10},
        {"layers": 2, "steps": 10, "rotate": 2, "init": "copy_zero", "optimizer": "carried"},
    ],
    "decay": "branch",
    "training.schedule": "warmup_stable_decay",
    "training.warmup_steps": 2,
    "health": "off",
}


def weights(folder, stage: int) -> dict[str, torch.Tensor]:
    return FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage).state_dict()


def stopping_at(steps):
    """A callback's ``on_step_end`` that ends the process at the so manyeth of its calls."""
    calls = iter(range(1, 1000))

    def on_step_end(self, args, state, control, **kwargs):
        if next(calls) == steps:
            raise InterruptedError

    return on_step_end


@pytest.fixture(scope="module")
def branched(grow_tiny, tmp_path_factory):
    """(folder, provenance, trunk of stage 1, (blocks that train, those with moments) at each step of stage 2)."""
    trunk, seen, load, begin = {}, [], stage_module.load_tensors, turns.Turns.on_step_begin

    def keep(model, tensors):
        trunk.update(tensors)
        load(model, tensors)

    def on_step_begin(self, args, state, control, **kwargs):
        begin(self, args, state, control, **kwargs)
        weights = [next(block.parameters()) for block in self.blocks]
        moments = [place for place, weight in enumerate(weights) if weight in kwargs["optimizer"].state]
        seen.append(([place for place, weight in enumerate(weights) if weight.requires_grad], moments))

    folder = tmp_path_factory.mktemp("runs") / "branched"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "load_tensors", keep)
        patch.setattr(turns.Turns, "on_step_begin", on_step_begin)
        provenance = grow_tiny(folder, CHANGES)
    return folder, provenance, trunk, seen


def test_the_next_stage_stands_on_what_had_not_decayed(branched):
    """Its frozen block is the trunk's, not the one that was written before; the folder has both, each in a shard."""
    folder, _, trunk, _ = branched
    first, second = weights(folder, 1), weights(folder, 2)
    name = "model.layers.0.mlp.fc_in.weight"
    assert torch.equal(second[name], trunk[name]) and not torch.equal(first[name], trunk[name])
    shards = [read_weight_map(folder / f"stage-{stage}.safetensors.index.json") for stage in (1, 2)]
    assert [found[name] for found in shards] == ["blocks-1.safetensors", "blocks-1.stage-2.safetensors"]
    rates = {
        (stage, entry["step"]): entry["learning_rate"]
        for stage in (1, 2)
        for entry in map(json.loads, (folder / f"metrics-{stage}.jsonl").read_text().splitlines())
    }
    assert rates[1, 8] == rates[2, 8] == pytest.approx(1e-2)
    assert rates[1, 10] == rates[2, 10] < 6e-3
    card = (folder / "README.md").read_text("utf-8")
    assert re.search(r"\| 2 \| 3 \| [\d,]+ \| blocks-1.stage-2, blocks-2 \|", card)


def test_blocks_take_turns_from_the_top_and_lose_their_moments_with_them(branched):
    """The first to train has the moments that its copy was given; who comes back has new ones."""
    _, provenance, _, seen = branched
    assert [training for training, _ in seen] == [[1], [1], [0], [0], [1], [1], [0], [0], [1], [1]]
    assert [moments for _, moments in seen] == [[1], [1], [], [0], [], [1], [], [0], [], [1]]
    assert provenance["stages"][1]["rotate"] == 2


def test_a_killed_run_ends_with_the_same_bytes(branched, grow_tiny, monkeypatch, tmp_path):
    """Stopped within the decay of stage 1, and between two turns of stage 2; a trunk that is lost is named."""
    for step in (10, 7):
        monkeypatch.setattr(StageProgress, "on_step_end", stopping_at(step))
        with pytest.raises(InterruptedError):
            grow_tiny(tmp_path / "run", CHANGES)
        monkeypatch.undo()
    trunk = tmp_path / "run" / ".work" / "stage-2" / "trunk.safetensors"
    trunk.rename(tmp_path / "aside")
    with pytest.raises(
        CheckpointError, match=r"trunk.safetensors', the trunk that stage 1 left for stage 2, is missing"
    ):
        grow_tiny(tmp_path / "run", CHANGES)
    (tmp_path / "aside").rename(trunk)
    provenance = grow_tiny(tmp_path / "run", CHANGES)
    assert [entry["files"] for entry in provenance["stages"]] == [entry["files"] for entry in branched[1]["stages"]]
    assert not list((tmp_path / "run" / ".work").glob("stage-*"))


def test_stages_are_not_appended_where_no_trunk_is_left(branched, grow_tiny):
    with pytest.raises(RunFolderError, match=r"another recipe \(stages\[2\] is None there"):
        grow_tiny(branched[0], CHANGES | {"stages": [*CHANGES["stages"], {"steps": 4}]})


def test_turns_are_estimated_with_one_block_at_a_time(make_recipe):
    """Its optimiser is that of one block, norm and head; its FLOPs lie between the top block's and all blocks'."""
    stages = [{"layers": 3, "steps": 8, "rotate": 2}], [{"layers": 3, "steps": 8}], [{"layers": 2}, {"steps": 8}]
    turn, together, newest = (estimate(make_recipe({"stages": plan}))[-1] for plan in stages)
    assert turn["trainable_parameters"] == together["trainable_parameters"]
    assert turn["memory_bytes"]["optimizer"] == newest["memory_bytes"]["optimizer"]
    assert newest["flops"] < turn["flops"] < together["flops"]


def test_drawn_blocks_are_those_of_seed_and_turn_alone():
    """Every block gets its turn, several train at a time, a later process draws the same, another seed others."""
    drawn = [turns.Turns([torch.nn.Identity()] * 4, 3, draw=2, seed=7).training(step) for step in range(90)]
    again = turns.Turns([torch.nn.Identity()] * 4, 3, draw=2, seed=7)
    assert drawn[::-1] == [again.training(step) for step in reversed(range(90))]
    assert all(len(now) == 2 and now == drawn[step - step % 3] for step, now in enumerate(drawn))
    assert set().union(*drawn) == {0, 1, 2, 3} and len(set(map(frozenset, drawn))) == 6
    assert drawn != [turns.Turns(again.blocks, 3, draw=2, seed=8).training(step) for step in range(90)]
    assert turns.Turns(again.blocks[:1], 3, draw=2).training(5) == {0} and turns.Turns([], 3).training(5) == set()


def test_drawn_blocks_and_adapters_of_all_blocks_end_with_the_same_bytes(grow_tiny, make_recipe, monkeypatch, tmp_path):
    """Adapters on random blocks, merged, then new ones (ReLoRA); then one drawn block at a time below one that always
    trains. Killed in the second and in the third stage."""
    adapters = {"train": ["norm", "head"], "lora_below": 2, "steps": 3}
    rotating = {"layers": 0, "steps": 8, "rotate": 2, "draw": 1, "always": 1}
    stages = [{"layers": 3, **adapters}, {"layers": 0, **adapters}, rotating]
    changes = {"stages": stages, "decay": "run", "training.warmup_steps": 1}
    resting, begin = [], turns.Turns.on_step_begin

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        begin(self, args, state, control, model=model, **kwargs)
        weights = [block.mlp.fc_in.weight for block in model.model.layers]
        resting.append(tuple(place for place, weight in enumerate(weights) if not weight.requires_grad))

    with monkeypatch.context() as patch:
        patch.setattr(turns.Turns, "on_step_begin", on_step_begin)
        provenance = grow_tiny(tmp_path / "whole", changes)
    assert set(resting) == {(0,), (1,)} and len(resting) == 8
    first, second = weights(tmp_path / "whole", 1), weights(tmp_path / "whole", 2)
    for name in (f"model.layers.{layer}.mlp.fc_in.weight" for layer in range(3)):
        assert torch.linalg.matrix_rank(second[name] - first[name]) == 2, "that of the adapters"
    fields = json.loads((tmp_path / "whole" / "config.json").read_text())
    sizes = {f"model.{name}": fields[name] for name in ("vocab_size", "substrate_bits")}
    costs = estimate(make_recipe(changes | sizes))
    assert [entry["trainable_parameters"] for entry in provenance["stages"]] == [
        phase["trainable_parameters"] for phase in costs
    ]
    assert costs[1]["memory_bytes"]["optimizer"] < costs[2]["memory_bytes"]["optimizer"]
    for step in (5, 5):
        monkeypatch.setattr(StageProgress, "on_step_end", stopping_at(step))
        with pytest.raises(InterruptedError):
            grow_tiny(tmp_path / "run", changes)
        monkeypatch.undo()
    again = grow_tiny(tmp_path / "run", changes)
    assert [entry["files"] for entry in again["stages"]] == [entry["files"] for entry in provenance["stages"]]
    assert (again["stages"][2]["draw"], again["stages"][2]["always"]) == (1, 1)


def test_drawn_blocks_are_estimated_with_the_mean_of_all_draws():
    """Of five blocks whose topmost always trains, two of the others at a time; memory is that of the largest."""
    shape = shape_of_fields(
        {"hidden_size": 48, "num_attention_heads": 4, "vocab_size": 300, "substrate_bits": 48}, 5, 0
    )
    training = TrainingRecipe(context_length=16, batch_tokens=32)
    plan = StageRecipe(layers=5, rotate=2, draw=2, always=1)
    drawn = [shape.trained(plan.train)._replace(blocks=[*own, 4]) for own in itertools.combinations(range(4), 2)]
    costs = estimate_phase(shape, plan, training)
    assert costs["flops_per_token"] == round(sum(flops_per_token(shape, now, training) for now in drawn) / len(drawn))
    assert costs["memory_bytes"] == max(
        (memory_bytes(shape, now, training) for now in drawn), key=lambda memory: memory["total"]
    )
    more = estimate_phase(shape, dataclasses.replace(plan, draw=9), training)  # all there are
    assert more["flops"] == estimate_phase(shape, StageRecipe(layers=5), training)["flops"]
    assert more == estimate_phase(shape, dataclasses.replace(plan, always=9), training)


def test_turns_want_one_process(grow_tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"stages\.rotate=2: processes that share a step wait for gradients"):
        grow_tiny(tmp_path / "run", CHANGES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.schedule": "cosine"}, "training.schedule='cosine' is not allowed: it must be warmup_stable_decay"),
        ({"lora": {"steps": 2}}, "lora.merge=True is not allowed: it must be false with decay: branch"),
        ({"stages.0.draw": 2}, "stages[0].draw=2 is not allowed: it must be left out where blocks do not rotate"),
        ({"stages.0.always": 1}, "stages[0].always=1 is not allowed: it must be left out where blocks do not rotate"),
        ({"stages.1.draw": 0}, "stages[1].draw=0 is not allowed: it must be from 1"),
        ({"stages.0.rotate": 2, "stages.0.train": ["head"]}, "stages[0].rotate=2 is not allowed: it must be left out"),
    ],
)
def test_what_makes_no_sense_together_is_refused(recipe_content, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse(GrowthRecipe, recipe_content(copy.deepcopy(CHANGES) | changes))
