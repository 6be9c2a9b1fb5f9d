"""`accelerate launch` on two processes from the first step to the finished folder; a run that goes on with another
number of processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.files import check_hashes
from tests.growth.test_distributed_run import RUN

THREE_STAGES = {
    "stages": [{"steps": 12}, {"steps": 12}, {"steps": 12}],
    "training.save_steps": 4,
    "training.batch_tokens": 128,
}
TELL = """
from accelerate import PartialState
print("one of", PartialState().num_processes, flush=True)
"""
CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU  # on a CPU the processes speak gloo; MULTI_CPU would start one, without a word
mixed_precision: "no"
num_machines: 1
num_processes: 2
machine_rank: 0
rdzv_backend: c10d
main_process_port: 0
use_cpu: false
"""


@pytest.fixture
def start(recipe_content, texts, substrate_folder, tmp_path):
    """``start(out, processes)``: the recipe of three stages under ``accelerate launch``."""
    (tmp_path / "run.py").write_text(RUN + TELL)
    (tmp_path / "two.yaml").write_text(CONFIG)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(out, processes):
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "two.yaml")]
        arguments = [json.dumps(recipe_content(THREE_STAGES)), *map(str, (out, *texts, substrate_folder))]
        command = [sys.executable, *launch, "--num_processes", str(processes), str(tmp_path / "run.py"), *arguments]
        log = (tmp_path / f"{out.name}-{processes}.log").open("w")
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    return start


def finished_run(out: Path) -> dict:
    """The provenance of a whole run whose files are as they were written, and load."""
    found = json.loads((out / "provenance.json").read_text("utf-8"))
    assert [stage["num_hidden_layers"] for stage in found["stages"]] == [1, 2, 3]
    for stage in found["stages"]:
        check_hashes(out, stage["files"])
    assert FrozenGlyphForCausalLM.from_pretrained(out).config.num_hidden_layers == 3
    assert not list(out.rglob("*.tmp"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_ends_on_another_number_of_processes(start, tmp_path, first, then):
    """Stopped in stage 2: its loss is that of the run that two processes carry to the end, within rounding."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert start(whole, 2).wait(timeout=600) == 0, (tmp_path / "whole-2.log").read_text()[-4000:]
    assert (tmp_path / "whole-2.log").read_text().count("one of 2") == 2
    process = start(resumed, first)
    deadline = time.monotonic() + 600
    while not list(resumed.glob(".work/stage-2/*/checkpoint-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline, next(tmp_path.glob("resumed-*.log")).read_text()
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.wait()
    assert start(resumed, then).wait(timeout=600) == 0, (tmp_path / f"resumed-{then}.log").read_text()[-4000:]
    for mine, theirs in zip(finished_run(resumed)["stages"], finished_run(whole)["stages"], strict=True):
        loss = theirs["nats_per_character"]["valid.txt"]
        assert mine["nats_per_character"]["valid.txt"] == pytest.approx(loss, rel=2e-3)
        assert mine["tokens"] == theirs["tokens"]
