"""`frozen-glyph grow`: what it reports, that it goes on where it stopped, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from frozen_glyph.checkpoint.files import sha256_file

RECIPE = {
    "name": "tiny",
    "model": {"hidden_size": 48, "num_attention_heads": 4},
    "stages": [{"steps": 3}, {"steps": 3}],
    "training": {"context_length": 32, "batch_tokens": 128, "warmup_steps": 1, "precision": "fp32", "save_steps": 2},
}
GROW = ("grow", "recipe.yaml", "--text", "text.txt", "--out", "run", "--substrate", "glyphs")


@pytest.fixture
def files(files):
    """The working folder with a recipe.yaml besides."""
    write_recipe(files / "recipe.yaml")
    return files


def write_recipe(path, **changes) -> None:
    path.write_text(json.dumps(RECIPE | changes), encoding="utf-8")


def test_it_reports_every_stage_and_again_does_nothing(run, files):
    code, out, err = run(*GROW, "--valid", "text.txt")
    assert code == 0
    assert "tiny stage 2/2" in err  # the progress bar
    stages = json.loads((files / "run" / "provenance.json").read_text())["stages"]
    assert out.splitlines() == [
        f"stage {k}: {named}  nats per character: text.txt {stages[k - 1]['nats_per_character']['text.txt']:.4f}"
        for k, named in ((1, "1 block"), (2, "2 blocks"))
    ]
    before = {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in files.rglob("*.*") if path.is_file()}
    assert run(*GROW, "--valid", "text.txt") == (0, out, "")
    assert before == {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in before}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (json.dumps(RECIPE | {"stage": []}), "unknown recipe key 'stage'. Did you mean 'stages'?"),
        (json.dumps(RECIPE | {"model": {"hiden_size": 8}}), "unknown recipe key 'hiden_size' in model. Did you"),
        (
            json.dumps(RECIPE | {"model": {"hidden_size": 49}}),
            "recipe field model.hidden_size=49 must be an even multiple",
        ),
        ("a: [\n  b", "recipe 'recipe.yaml' is not YAML: "),
    ],
)
def test_bad_recipe_is_named_before_anything_is_written(refused, files, recipe, message):
    (files / "recipe.yaml").write_text(recipe)
    assert message in refused(*GROW)
    assert not (files / "run").exists()


def test_missing_recipe_is_named(refused, files):
    (files / "recipe.yaml").unlink()
    assert refused(*GROW).startswith("recipe 'recipe.yaml' does not exist; give")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "source file 'text.txt' does not exist; give the path of a file with documents"),
        (b"", "source 'text.txt' is empty; it must hold some text"),
        ("The кот".encode("cp1251"), "text file 'text.txt' is not UTF-8: byte 0xea at offset 4; convert it"),
        (b"cat", "fewer than one window of training.context_length=32; give more text"),
    ],
)
def test_unusable_text_is_named_before_the_run_starts(refused, files, content, message):
    (files / "text.txt").unlink()
    if content is not None:
        (files / "text.txt").write_bytes(content)
    assert message in refused(*GROW)
    assert not (files / "run" / "provenance.json").exists()


def test_dry_run_prints_every_stage_and_writes_nothing(run, files):
    before = sorted(files.rglob("*"))
    code, out, err = run("grow", "recipe.yaml", "--dry-run", "--set", "stages.1.steps=7", "--flops-per-second", "1e9")
    assert (code, err) == (0, "")
    header = next(line for line in out.splitlines() if "trainable" in line)
    assert header.split()[:4] == ["stage", "blocks", "steps", "tokens"] and "days" in header
    assert [line.split()[:3] for line in out.splitlines() if line.split()[:1] in (["1"], ["2"])] == [
        ["1", "1", "3"],
        ["2", "2", "7"],
    ]
    assert sorted(files.rglob("*")) == before


def test_a_dry_run_of_patient_stages_says_that_they_may_end_sooner(run, files):
    patient = ("--set", "stages.1.patience=1", "--set", "training.eval_steps=1")
    assert "at most, a stage may end sooner by its patience" in run("grow", "recipe.yaml", "--dry-run", *patient)[1]
    assert "patience" not in run("grow", "recipe.yaml", "--dry-run")[1]


def test_dry_run_as_json(run, files):
    found = json.loads(run("grow", "recipe.yaml", "--dry-run", "--json", "--out", "run")[1])
    assert [phase["stage"] for phase in found["phases"]] == [1, 2]
    assert found["totals"]["tokens"] == sum(phase["tokens"] for phase in found["phases"]) == 2 * 3 * 128
    assert not (files / "run").exists()


def test_a_memory_budget_gets_proposals_whose_settings_are_taken(run, files):
    code, out, err = run("grow", "recipe.yaml", "--dry-run", "--memory", "8GB")
    assert (code, err) == (0, "") and "proposed: joint" in out and "newest: --set 'stages=[" in out
    found = json.loads(run("grow", "recipe.yaml", "--dry-run", "--memory", "8GB", "--json")[1])["proposals"]
    settings = [word for setting in found[1]["settings"] for word in ("--set", setting)]
    estimated = json.loads(run("grow", "recipe.yaml", "--dry-run", "--json", *settings)[1])["totals"]
    assert estimated["memory_bytes"] == found[1]["memory_bytes"]
    code, _, err = run("grow", "recipe.yaml", "--memory", "8GB", "--out", "run")
    assert code == 2 and "--dry-run too" in err and not (files / "run").exists()


def test_settings_change_the_recipe(run, refused, files):
    code, _, err = run(*GROW, "--set", "stages=[{steps: 1}]", "--set", 'name="[/a]"')
    assert code == 0 and "[/a] stage 1/1" in err  # no markup
    recipe = json.loads((files / "run" / "provenance.json").read_text())["recipe"]
    assert (recipe["name"], len(recipe["stages"])) == ("[/a]", 1)
    assert "'batch_token' in training. Did you mean 'batch_tokens'?" in refused(
        *GROW, "--set", "training.batch_token=1"
    )
    assert refused(*GROW, "--set", "training").startswith("setting 'training' must look like")


def test_growth_without_any_text_is_refused(refused, files):
    assert "no training text" in refused("grow", "recipe.yaml", "--out", "run")


def test_folder_of_another_recipe(run, refused, files):
    assert run(*GROW)[0] == 0
    write_recipe(files / "recipe.yaml", seed=1)
    assert refused(*GROW).startswith("folder 'run' holds a run of another recipe (seed is 0 there, 1 here); ")


def test_missing_substrate_folder_is_named(refused, files):
    assert refused(*GROW[:-1], "absent").startswith("'absent/substrate.json' does not exist")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_interrupt_says_how_to_go_on(files):
    write_recipe(files / "recipe.yaml", stages=[{"steps": 10**6}])
    # Where the tests themselves run in the background, interrupts would be ignored.
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    words = [sys.executable, "-m", "frozen_glyph.cli", *GROW]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=files, env=environment, **pipes, **reset)
    try:
        end = time.monotonic() + 600
        while not list(files.glob("run/.work/stage-1/blocks/checkpoint-*/trainer_state.json")):
            assert process.poll() is None and time.monotonic() < end, "the run did not come to its first save"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    said = "stopped; `grow` goes on from the last save when called again"
    assert err.splitlines()[-1] == said
    assert "Traceback" not in err
