"""Decay branches off every stage, and blocks that take turns: what is learnt, written and estimated, killed or not."""

import json
import re

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.files import CheckpointError, read_weight_map
from frozen_glyph.growth import stage as stage_module
from frozen_glyph.growth.estimate import estimate
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.training import turns
from frozen_glyph.training.callbacks import StageProgress

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


def test_turns_want_one_process(grow_tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"stages\.rotate=2: processes that share a step wait for gradients"):
        grow_tiny(tmp_path / "run", CHANGES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.schedule": "cosine"}, "training.schedule='cosine' is not allowed: it must be warmup_stable_decay"),
        ({"lora": {"steps": 2}}, "lora.merge=True is not allowed: it must be false with decay: branch"),
        ({"stages.0.rotate": 2, "stages.0.train": ["head"]}, "stages[0].rotate=2 is not allowed: it must be left out"),
    ],
)
def test_what_makes_no_sense_together_is_refused(recipe_content, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse(GrowthRecipe, recipe_content(CHANGES | changes))
