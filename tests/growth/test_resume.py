"""A run that is killed at any instant goes on to the same bytes as one that never stopped."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

from frozen_glyph.checkpoint.files import sha256_file

LONG = {"stages.0.steps": 4, "stages.1.steps": 120, "training.save_steps": 10}
RUN = """
import json, sys, torch
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.recipes.fields import parse
torch.set_num_threads(1)
recipe, out, text, valid, substrate = sys.argv[1:]
grow_from_recipe(parse(GrowthRecipe, json.loads(recipe)), out, [text], [valid], substrate)
"""


def written(folder) -> dict[str, Any]:
    """What every file holds: its hash, or for metrics what does not tell the time."""
    return {
        path.name: untimed(path) if path.suffix == ".jsonl" else sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "provenance.json"
    }


def untimed(path) -> list[dict]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: entry[key] for key in entry.keys() - {"seconds", "tokens_per_second"}} for entry in entries]


def wait_for(condition, process, seconds: float = 600) -> None:
    """Until ``condition`` holds; fails when the process ends or the time is up before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended before: {process.stderr.read().decode()[-2000:]}"
        assert time.monotonic() < end, "the run is too slow"
        time.sleep(0.002)


def test_killed_run_ends_with_the_same_bytes(recipe_content, texts, substrate_folder, grow_tiny, tmp_path):
    killed, work = tmp_path / "killed" / "run", tmp_path / "killed" / "run" / ".work" / "stage-2" / "blocks"
    arguments = [json.dumps(recipe_content(LONG)), *map(str, (killed, *texts, substrate_folder))]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: (work / "checkpoint-20" / "trainer_state.json").exists(), process)
    finally:
        process.kill()
        process.communicate()
    assert len(json.loads((killed / "provenance.json").read_text())["stages"]) == 1
    # As a machine that went down while it wrote leaves it: weights, but no state.
    (work / "checkpoint-119").mkdir()
    (work / "checkpoint-119" / "model.safetensors").write_bytes(b"\0" * 100)

    resumed = grow_tiny(killed, LONG)
    straight = grow_tiny(tmp_path / "straight" / "run", LONG)
    assert written(killed) == written(tmp_path / "straight" / "run")
    for first, second in zip(resumed["stages"], straight["stages"], strict=True):
        assert (first["files"], first["nats_per_character"]) == (second["files"], second["nats_per_character"])
    left = [path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()]
    assert left == ["checkpoint-119/model.safetensors"]  # nobody recorded that it is ours


MANY_INSTANTS = {
    "stages": [{"steps": 40}, {"layers": 2, "steps": 40, "init": "random"}],
    "training.save_steps": 5,
    "lora": {"rank": 2, "from_stage": 2, "steps": 20},
}


@pytest.mark.slow
def test_twenty_kills_at_random_instants(recipe_content, texts, substrate_folder, grow_tiny, tmp_path):
    """Steps, checkpoints, hand-over of stages, LoRA phase, merge, publishing: killed wherever the clock falls."""
    grow_tiny(tmp_path / "straight" / "run", MANY_INSTANTS)
    expected = written(tmp_path / "straight" / "run")
    killed, instants = tmp_path / "killed" / "run", random.Random(0)
    arguments = [json.dumps(recipe_content(MANY_INSTANTS)), *map(str, (killed, *texts, substrate_folder))]

    def latest() -> float:
        return max((path.stat().st_mtime for path in killed.rglob("*") if path.is_file()), default=0.0)

    kills = 0
    while kills < 20:
        before = latest()
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while process.poll() is None:
            try:
                if latest() > before:
                    break
            except FileNotFoundError:  # a file was renamed while we looked
                break
        time.sleep(instants.uniform(0, 2))
        if process.poll() is None:
            process.kill()
            kills += 1
        elif kills < 20:
            assert process.returncode == 0, process.stderr.read().decode()[-4000:]
            assert written(killed) == expected
            shutil.rmtree(killed)
        process.communicate()
    grow_tiny(killed, MANY_INSTANTS)
    assert written(killed) == expected


@pytest.mark.parametrize("lost", [(), ("model.safetensors.index.json",), ("head-2.safetensors", "README.md")])
def test_run_that_stopped_before_it_recorded_a_stage(copied, finished, grow_tiny, tmp_path, lost):
    """The files of stage 2 are there, some maybe not, but provenance does not know them yet."""
    provenance = json.loads((copied / "provenance.json").read_text())
    provenance["stages"].pop()
    (copied / "provenance.json").write_text(json.dumps(provenance))
    if "model.safetensors.index.json" in lost:  # still that of stage 1
        shutil.copyfile(copied / "stage-1.safetensors.index.json", copied / "model.safetensors.index.json")
    else:
        for name in lost:
            (copied / name).unlink()
    resumed = grow_tiny(copied)
    expected = written(finished[0])
    found = written(copied)
    assert {name for name in expected if found[name] != expected[name]} == {"README.md"}  # it has the folder's name
    assert json.loads((copied / "config.json").read_text())["ladder"] == [1, 3]
    assert [entry["stage"] for entry in resumed["stages"]] == [1, 2]


def test_run_that_stopped_before_its_substrate_was_stored(finished, grow_tiny, copied):
    provenance = json.loads((copied / "provenance.json").read_text())
    for path in copied.iterdir():
        if path.is_file():
            path.unlink()
    (copied / "provenance.json").write_text(json.dumps(provenance | {"stages": []}))
    (copied / "tokenizer.json").write_text("{")
    grow_tiny(copied)
    assert written(copied).keys() == written(finished[0]).keys()
    assert sha256_file(copied / "head-2.safetensors") == sha256_file(finished[0] / "head-2.safetensors")
