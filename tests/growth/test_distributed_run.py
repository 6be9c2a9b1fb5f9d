"""A whole run on two processes: the first writes the folder, and it holds what one process would have written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from frozen_glyph.checkpoint.files import check_hashes, read_tensors

LORA = {"lora": {"rank": 2, "from_stage": 2, "steps": 4}}
RUN = """
import json, sys
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.recipes.fields import parse
recipe, out, text, valid, substrate = sys.argv[1:]
grow_from_recipe(parse(GrowthRecipe, json.loads(recipe)), out, [text], [valid], substrate)
"""


@pytest.mark.slow
def test_two_processes_write_one_run(recipe_content, texts, substrate_folder, grow_tiny, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    expected = grow_tiny(alone, LORA)
    (tmp_path / "run.py").write_text(RUN)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "run.py")]
    arguments = [json.dumps(recipe_content(LORA)), *map(str, (together, *texts, substrate_folder))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *command, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
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
