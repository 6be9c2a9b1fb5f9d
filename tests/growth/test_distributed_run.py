"""A whole run on two processes, with copies or shards of the model: its folder is what one process would write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from frozen_glyph.checkpoint.files import check_hashes, read_tensors

LORA = {"lora": {"rank": 2, "from_stage": 2, "steps": 4}}
SCHEDULED = LORA | {"decay": "run", "stages.1": {"layers": 2, "steps": 12, "init": "copy", "active": 3}}
CARRIED = SCHEDULED | {"stages.1": SCHEDULED["stages.1"] | {"optimizer": "carried"}}
RUN = """
import json, os, sys
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.recipes.fields import parse
recipe, out, text, valid, substrate = sys.argv[1:]

if "ACCELERATE_USE_FSDP" in os.environ:  # Accelerate shards on accelerators alone, and falls back to copies on a CPU
    from accelerate import accelerator, state
    from torch.distributed.fsdp import FSDPModule

    initialise, prepare = state.AcceleratorState.__init__, accelerator.fsdp2_prepare_model

    def on_a_cpu_too(self, *args, fsdp_plugin=None, **kwargs):
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = state.DistributedType.FSDP, fsdp_plugin

    def prepared(*args):
        model = prepare(*args)
        print("sharded blocks:", sum(isinstance(block, FSDPModule) for block in model.model.layers), flush=True)
        return model

    state.AcceleratorState.__init__, accelerator.fsdp2_prepare_model = on_a_cpu_too, prepared

grow_from_recipe(parse(GrowthRecipe, json.loads(recipe)), out, [text], [valid], substrate)
"""


FSDP2 = {  # what `accelerate launch` makes of hub_configs/accelerate/fsdp2.yaml
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "FrozenGlyphBlock",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launch", "changes"),
    [({}, LORA), (FSDP2, LORA), ({}, CARRIED), (FSDP2, SCHEDULED)],
    ids=["copies", "shards", "copies-scheduled", "shards-scheduled"],
)
def test_two_processes_write_one_run(launch, changes, recipe_content, texts, substrate_folder, grow_tiny, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    expected = grow_tiny(alone, changes)
    (tmp_path / "run.py").write_text(RUN)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "run.py")]
    arguments = [json.dumps(recipe_content(changes)), *map(str, (together, *texts, substrate_folder))]
    environment = os.environ | launch | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *command, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    shards = [line for line in done.stdout.splitlines() if line.startswith("sharded blocks:")]
    assert shards == ([f"sharded blocks: {blocks}" for blocks in (1, 1, 3, 3, 3, 3)] if launch else [])
    found = json.loads((together / "provenance.json").read_text())
    for mine, theirs in zip(found["stages"], expected["stages"], strict=True):
        check_hashes(together, mine["files"])
        assert mine["files"].keys() == theirs["files"].keys()
        assert mine["tokens"] == theirs["tokens"]
        assert mine["nats_per_character"]["valid.txt"] == pytest.approx(
            theirs["nats_per_character"]["valid.txt"], rel=1e-3
        )
    for name in found["stages"][-1]["files"]:
        first, second = read_tensors(alone / name), read_tensors(together / name)
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=1e-2, atol=2e-3)
    assert not list(together.rglob("*.tmp"))
