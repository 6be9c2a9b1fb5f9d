"""A phase trains what it should, survives being stopped, and raises when anything frozen moves."""

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from transformers import TrainerCallback, set_seed

from frozen_glyph import grow
from frozen_glyph.checkpoint.files import CheckpointError, read_json, read_tensors, sha256_file, write_json
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.callbacks import StageProgress
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.precision import uses_bf16
from frozen_glyph.training.train import (
    CHECKPOINTING,
    FrozenWeightsChanged,
    Phase,
    device_batches,
    frozen_digest,
    train_phase,
    training_arguments,
)
from frozen_glyph.training.trainer import TrainingDiverged, newest_checkpoint, trainable

STEPS = 6


@pytest.fixture
def model(build_model):
    set_seed(0)
    return grow(build_model(seed=5, num_hidden_layers=1), 1)


class Windows(TokenWindows):
    """Remembers which windows were read."""

    def __init__(self, *arguments):
        self.read = []
        super().__init__(*arguments)

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


@pytest.fixture
def windows(substrate):
    """Twenty windows: five steps, so that the six of a phase pass their end."""
    ids = np.random.default_rng(0).integers(3, substrate.vocab_size, 20 * 32).astype(np.uint16)
    return Windows(ids, 32)


@pytest.fixture
def held_out(substrate):
    ids = np.random.default_rng(1).integers(3, substrate.vocab_size, 3 * 32).astype(np.uint16)
    return TokenWindows(ids, 32)


@pytest.fixture
def train(make_training, windows, tmp_path):
    """``train(model, work name, *callbacks, changes={...})``: six steps, saved every two."""

    def train(
        model, name="work", *callbacks, changes=None, steps=STEPS, rate=1e-2, patience=None, min_gain=0.0, **arguments
    ):
        recipe = make_training(**({"save_steps": 2} | (changes or {})))
        phase = Phase(steps, rate, seed=0, patience=patience, min_gain=min_gain)
        return train_phase(model, windows, phase, recipe, tmp_path / name, callbacks, **arguments)

    return train


def same(model, state) -> dict[str, bool]:
    return {name: torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items()}


def test_bfloat16_is_for_training_only(model, train):
    """The model that comes back computes in the precision of its weights."""
    train(model, changes={"precision": "bf16"})
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    model(torch.tensor([[1, 2, 3]]))
    assert seen == [(torch.float32, torch.float32)]


def test_what_is_trainable_changes_and_nothing_else(model, train):
    before = copy.deepcopy(model.state_dict())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    metrics = train(model)
    unchanged = {name for name, equal in same(model, before).items() if equal}
    assert unchanged == before.keys() - trainable
    assert metrics["train_loss"] > 0


class FlipOneBit(TrainerCallback):
    """Changes one bit of a tensor after the first step."""

    def __init__(self, tensor):
        self.tensor = tensor

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.tensor.view(torch.uint8).view(-1)[3] ^= 1


@pytest.mark.parametrize("name", ["model.layers.0.mlp.fc_in.weight", "model.embed_tokens.packed_bits"])
def test_one_changed_bit_of_a_frozen_tensor_is_noticed(model, train, name):
    with pytest.raises(FrozenWeightsChanged, match=r"frozen weights changed while training in .*work"):
        train(model, "work", FlipOneBit(model.state_dict()[name]))


def test_digest_sees_frozen_tensors_only(model):
    digest = frozen_digest(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
        model.model.layers[1].mlp.fc_in.bias.add_(1)
    assert frozen_digest(model) == digest
    with torch.no_grad():
        model.model.layers[0].mlp.fc_in.bias[0] += 1
    assert frozen_digest(model) != digest


class FirstStep(TrainerCallback):
    step = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.step = state.global_step


def resume_at(tmp_path, step: int, damage=None):
    """Folder "twice" is as the run in "once" was after ``step``; ``damage(folder)`` makes a broken newer checkpoint."""
    shutil.copytree(tmp_path / "once" / f"checkpoint-{step}", tmp_path / "twice" / f"checkpoint-{step}")
    if damage is not None:
        newer = shutil.copytree(tmp_path / "once" / f"checkpoint-{step}", tmp_path / "twice" / f"checkpoint-{step + 1}")
        damage(newer)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def untimed(history):
    return [{key: entry[key] for key in entry.keys() - {"seconds", "tokens_per_second"}} for entry in history]


class TestResume:
    @pytest.mark.parametrize(
        ("damage", "named"),
        [
            (None, None),
            (lambda folder: (folder / "manifest.json").unlink(), "manifest.json' does not exist"),
            (lambda folder: cut(folder / "model.safetensors"), "model.safetensors' is damaged"),
            (lambda folder: cut(folder / "optimizer.pt"), "optimizer.pt' is damaged"),
            (lambda folder: (folder / "rng_state.pth").unlink(), "rng_state.pth' is missing"),
        ],
        ids=["whole", "unfinished", "weights", "optimizer", "random"],
    )
    @pytest.mark.parametrize("micro", [None, 2])
    def test_ends_with_the_same_bits_and_history(self, model, train, windows, tmp_path, caplog, damage, named, micro):
        again, first, changes = copy.deepcopy(model), FirstStep(), {"micro_batch_size": micro}
        straight = train(model, "once", changes=changes)
        assert sorted(path.name for path in (tmp_path / "once").iterdir()) == ["checkpoint-4", "checkpoint-6"]
        resume_at(tmp_path, 4, damage)
        all_read, windows.read = windows.read, []
        resumed = train(again, "twice", first, changes=changes)
        assert first.step == 4
        assert all(same(again, model.state_dict()).values())
        assert untimed(resumed["history"]) == untimed(straight["history"])
        assert windows.read == all_read[4 * 4 :]  # nothing before the resume point is read again
        assert [record.levelname for record in caplog.records if "passed over" in record.message] == (
            ["WARNING"] if named else []
        )
        assert named is None or named in caplog.text

    def test_nothing_whole_is_a_new_start(self, model, train, tmp_path):
        again, first = copy.deepcopy(model), FirstStep()
        train(model, "once")
        resume_at(tmp_path, 4)
        cut(tmp_path / "twice" / "checkpoint-4" / "scheduler.pt")
        train(again, "twice", first)
        assert first.step == 0
        assert all(same(again, model.state_dict()).values())

    def test_a_finished_phase_is_only_loaded(self, model, train, windows):
        again = copy.deepcopy(model)
        straight = train(model)
        windows.read = []
        assert train(again)["history"] == straight["history"]
        assert windows.read == []
        assert all(same(again, model.state_dict()).values())

    def test_seconds_add_up(self, model, train, tmp_path):
        again = copy.deepcopy(model)
        train(model, "once")
        resume_at(tmp_path, 4)
        state = read_json(tmp_path / "twice" / "checkpoint-4" / "trainer_state.json")
        state["log_history"][-1]["seconds"] = 1000.0
        (tmp_path / "twice" / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state))
        shutil.copy(tmp_path / "once" / "checkpoint-4" / "manifest.json", tmp_path / "twice" / "checkpoint-4")
        rehash(tmp_path / "twice" / "checkpoint-4")
        metrics = train(again, "twice")
        assert 1000 < metrics["seconds"] < 1600
        assert metrics["history"][-1]["tokens_per_second"] > 1  # of the last two steps alone

    def test_checkpoint_of_another_phase_is_refused(self, model, build_model, train):
        train(model, steps=4)
        with pytest.raises(CheckpointError, match=r"checkpoint-4.* holds other tensors than the model trains"):
            train(build_model(seed=5, num_hidden_layers=1), steps=4)


class RunsCode:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_planted_pickle_does_not_run(model, train, tmp_path, name):
    """Trainer keeps its state as pickles: what is no plain tensor in them is refused, whatever the manifest says."""
    again = copy.deepcopy(model)
    train(model, "once")
    resume_at(tmp_path, 4)
    (tmp_path / "twice" / "checkpoint-4" / name).write_bytes(pickle.dumps(RunsCode(), protocol=2))
    rehash(tmp_path / "twice" / "checkpoint-4")
    with pytest.raises(CheckpointError, match=r"checkpoint-4.*more than tensors"):
        train(again, "twice")


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_nor_does_one_in_a_phase_that_is_finished(model, make_training, windows, tmp_path, name):
    """Whose optimizer state a later phase goes on from."""
    again, recipe = copy.deepcopy(model), make_training(save_steps=2)
    train_phase(model, windows, Phase(2, 1e-2, seed=0), recipe, tmp_path)
    (tmp_path / "checkpoint-2" / name).write_bytes(pickle.dumps(RunsCode(), protocol=2))
    rehash(tmp_path / "checkpoint-2")
    with pytest.raises(CheckpointError, match=r"checkpoint-2.*more than tensors"):
        train_phase(again, windows, Phase(2, 1e-2, seed=0, moments_to=tmp_path / "moments"), recipe, tmp_path)


def rehash(folder):
    """Make the manifest true again."""
    manifest = read_json(folder / "manifest.json")
    manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"]}
    write_json(folder / "manifest.json", manifest)


def test_checkpoint_holds_what_trains_only(model, train, tmp_path):
    train(model)
    stored = read_tensors(tmp_path / "work" / "checkpoint-6" / "model.safetensors")
    assert stored.keys() == trainable(model).keys()
    optimizer = torch.load(tmp_path / "work" / "checkpoint-6" / "optimizer.pt", weights_only=True)
    assert len(optimizer["state"]) == len(stored)


class TestBatches:
    def test_accumulated_steps_are_whole_steps(self, model, train):
        again = copy.deepcopy(model)
        whole = train(model, "whole")
        parts = train(again, "parts", changes={"micro_batch_size": 1})
        assert parts["tokens"] == whole["tokens"] == STEPS * 128
        for mine, theirs in zip(parts["history"], whole["history"], strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        for name, tensor in trainable(again).items():
            torch.testing.assert_close(tensor, trainable(model)[name], rtol=1e-3, atol=1e-4)

    def test_every_step_is_full_and_every_window_comes_in_turn(self, model, train, windows):
        train(model, steps=7)
        assert len(windows.read) == 7 * 4
        assert sorted(windows.read[:20]) == list(range(20))
        assert len(set(windows.read[20:])) == 8

    def test_less_text_than_a_step(self, model, train, windows):
        windows.tokens = windows.tokens[: 3 * 32]
        train(model, steps=3)
        assert sorted(windows.read) == sorted([0, 1, 2] * 4)

    def test_devices_share_a_batch_evenly_or_it_is_refused(self, make_training):
        recipe = make_training(batch_tokens=32 * 24)
        assert [device_batches(recipe, world) for world in (1, 2, 8)] == [(24, 1), (12, 1), (3, 1)]
        micro = make_training(batch_tokens=32 * 24, micro_batch_size=3)
        assert [device_batches(micro, world) for world in (1, 2, 8)] == [(3, 8), (3, 4), (3, 1)]
        for refused, world in ((recipe, 5), (recipe, 32), (micro, 16)):
            with pytest.raises(RecipeError, match=rf"batch_tokens=768 is 24 sequences, which {world} processes"):
                device_batches(refused, world)


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1, 1), ("warmup_stable_decay", 1, 0.1)],
)
def test_schedules_warm_up_and_fall_to_the_final_ratio(make_training, tmp_path, schedule, middle, last):
    changes = {"schedule": schedule, "warmup_steps": 10}
    for ratio in (0.1, 1.0):
        recipe = make_training(**changes, final_learning_rate_ratio=ratio)
        arguments = training_arguments(Phase(110, 1e-2, seed=0), recipe, tmp_path, evaluates=False)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
        scheduler = transformers.get_scheduler(
            arguments.lr_scheduler_type, optimizer, arguments.warmup_steps, 110, arguments.lr_scheduler_kwargs
        )
        rates = []
        for _ in range(111):
            rates.append(scheduler.get_last_lr()[0] / 1e-2)
            optimizer.step()
            scheduler.step()
        assert rates[5] < rates[10] == pytest.approx(1)
        assert (rates[60], rates[110]) == pytest.approx((middle, last) if ratio < 1 else (1, 1), abs=1e-6)


class TestHeldOut:
    def test_loss_is_that_of_the_model(self, model, train, held_out):
        metrics = train(model, changes={"eval_steps": 3}, held_out=held_out)
        steps = [entry["step"] for entry in metrics["history"] if "eval_loss" in entry]
        assert steps == [3, 6]
        ids = torch.stack([window["input_ids"] for window in (held_out[place] for place in range(3))])
        with torch.no_grad():
            loss = model.eval()(input_ids=ids, labels=ids).loss
        assert metrics["eval_loss"] == pytest.approx(loss.item(), rel=1e-5)

    def test_does_not_change_what_is_trained(self, model, train, held_out):
        again = copy.deepcopy(model)
        train(model, "with", changes={"eval_steps": 2}, held_out=held_out)
        train(again, "without")
        assert all(same(again, model.state_dict()).values())

    def test_patience_ends_the_phase_and_survives_a_resume(self, model, train, held_out, windows, tmp_path):
        """Random text: the held-out loss rises from the first evaluation on."""
        again, third = copy.deepcopy(model), copy.deepcopy(model)
        options = {"changes": {"eval_steps": 1}, "held_out": held_out, "steps": 40, "rate": 0.1, "patience": 3}
        metrics = train(model, "once", **options)
        losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
        assert len(losses) - 1 - losses.index(min(losses)) == 3
        assert metrics["steps"] == len(losses) < 40
        earlier = min((tmp_path / "once").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        shutil.copytree(earlier, tmp_path / "twice" / earlier.name)
        assert untimed(train(again, "twice", **options)["history"]) == untimed(metrics["history"])
        windows.read = []
        assert train(third, "once", **options)["steps"] == metrics["steps"]
        assert windows.read == []
        for other in (again, third):
            assert all(same(other, model.state_dict()).values())

    def test_gains_below_the_least_count_as_none(self, model, train, held_out):
        options = {"changes": {"eval_steps": 2}, "held_out": held_out, "steps": 40, "patience": 2, "min_gain": 9.0}
        assert train(model, **options)["steps"] == 6

    def test_patience_without_held_out_text_is_refused(self, model, train):
        with pytest.raises(RecipeError, match=r"stages\.patience=3 needs held-out text and training\.eval_steps"):
            train(model, patience=3)


def test_files_of_others_among_the_checkpoints_stay(model, train, tmp_path):
    """Also those that are called as Trainer's are, where a checkpoint is to be, and what replaced one of its files."""
    straight = copy.deepcopy(model)
    mine = ["checkpoint-2/optimizer.pt", "checkpoint-6/scheduler.pt", "checkpoint-6/notes.txt", "checkpoint-9/latest"]
    for name in mine:
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text("mine")

    class Replace(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 2:
                (tmp_path / "work" / "checkpoint-2.1" / "rng_state.pth").write_text("mine")

    train(model, "work", Replace())
    left = [path.relative_to(tmp_path / "work") for path in (tmp_path / "work").rglob("*") if path.is_file()]
    ours = {"checkpoint-4", "checkpoint-6.1"}
    assert {path.as_posix() for path in left if path.parts[0] not in ours} == {*mine, "checkpoint-2.1/rng_state.pth"}
    assert {path.read_text() for path in map((tmp_path / "work").joinpath, left) if path.parent.name not in ours} == {
        "mine"
    }
    assert newest_checkpoint(tmp_path / "work").name == "checkpoint-6.1"
    train(straight, "straight")
    assert all(same(model, straight.state_dict()).values())


KILLED_IN_A_SAVE = """
import os, pickle, sys
from transformers import Trainer
from frozen_glyph.training.train import train_phase
Trainer._save_rng_state = lambda *_: os._exit(9)
train_phase(*pickle.load(open(sys.argv[1], "rb")))
"""


def test_what_a_kill_left_of_a_save(model, train, windows, make_training, tmp_path, caplog):
    """The trainable tensors, which were noted, go; the rest is not known to be ours: it stays, and is told."""
    arguments = (copy.deepcopy(model), TokenWindows(windows.tokens, 32), Phase(STEPS, 1e-2, seed=0))
    arguments = (*arguments, make_training(save_steps=2), tmp_path / "work")
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_SAVE, str(tmp_path / "arguments")], check=False)
    assert done.returncode == 9
    (stale,) = (tmp_path / "work").iterdir()
    assert (stale / "checkpoint-2" / "model.safetensors").exists()
    (stale / "checkpoint-2" / "rng_state.pth").write_text("mine")
    train(model)
    assert f"{str(stale)!r} was left by a command that was killed" in caplog.text
    assert sorted(path.name for path in (stale / "checkpoint-2").iterdir()) == [
        "optimizer.pt", "rng_state.pth", "scheduler.pt",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "work").glob("c*")) == ["checkpoint-4", "checkpoint-6"]


class Poison(TrainerCallback):
    """Makes one trainable weight NaN after the third step."""

    def __init__(self, tensor):
        self.tensor = tensor

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            with torch.no_grad():
                self.tensor.view(-1)[0] = float("nan")


class TestDiverged:
    def test_stops_before_it_saves(self, model, train, tmp_path):
        again, straight = copy.deepcopy(model), copy.deepcopy(model)
        message = (
            r"training of 'work' diverged: loss is nan at step 4, learning rate 0\.00.* Lower it \(training\.learning_r"
        )
        with pytest.raises(TrainingDiverged, match=message):
            train(model, "work", Poison(model.lm_head.weight))
        assert newest_checkpoint(tmp_path / "work") == tmp_path / "work" / "checkpoint-2"
        assert not (tmp_path / "work" / "checkpoint-4").exists()
        train(again)  # the poison is gone: the run goes on
        train(straight, "straight")
        assert all(same(again, straight.state_dict()).values())

    def test_weights_that_the_loss_has_not_seen(self, model, train, tmp_path):
        with pytest.raises(TrainingDiverged, match=r"lm_head\.weight is not finite at step 3"):
            train(model, "work", Poison(model.lm_head.weight), changes={"save_steps": 3})
        assert list((tmp_path / "work").glob("checkpoint-*")) == []


FULL_DISK = """
import pickle, resource, sys
from frozen_glyph.training.train import train_phase
arguments = pickle.load(open(sys.argv[1], "rb"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
train_phase(*arguments)
"""


@pytest.mark.parametrize("limit", [1000, 200_000], ids=["weights", "optimizer"])
def test_full_disk_is_named_and_nothing_is_lost(model, train, windows, make_training, tmp_path, limit):
    """No file may grow beyond ``limit`` bytes, as on a disk that is full at that instant."""
    again = copy.deepcopy(model)
    train(model, "once")
    resume_at(tmp_path, 4)
    recipe = make_training(save_steps=2)
    arguments = (again, TokenWindows(windows.tokens, 32), Phase(STEPS, 1e-2, seed=0), recipe, tmp_path / "twice")
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "arguments"), str(limit)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "CheckpointError: checkpoint" in done.stderr.splitlines()[-1], done.stderr
    assert "twice/checkpoint-6' could not be written" in done.stderr.splitlines()[-1]
    assert newest_checkpoint(tmp_path / "twice") == tmp_path / "twice" / "checkpoint-4"
    train(again, "twice")
    assert all(same(again, model.state_dict()).values())


def test_activation_checkpointing_computes_the_same(model, train):
    again = copy.deepcopy(model)
    train(model, "plain")
    train(again, "saved", changes={"activation_checkpointing": True})
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again.modules())
    for name, tensor in trainable(again).items():
        torch.testing.assert_close(tensor, trainable(model)[name])


def test_no_graph_under_the_frozen_prefix(model, token_ids):
    """Checkpointing must not ask for gradients of the frozen input: then every frozen block would run backwards."""
    model.train()
    getattr(model, f"{CHECKPOINTING}_enable")()
    seen = {}
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(
            lambda module, args, output, index=index: seen.update({index: output.requires_grad})
        )
    model(input_ids=token_ids(1, 8), labels=token_ids(1, 8), skip_logits=True).loss.backward()
    assert seen == {0: False, 1: True}


def test_missing_reporter_is_named(model, train, tmp_path):
    with pytest.raises(RecipeError, match=r"report_to=\['wandbb'\]: 'wandbb' is not installed .*pip install wandbb"):
        train(model, changes={"report_to": ["wandbb"]})
    assert not (tmp_path / "work").exists()


def test_inputs_are_prepared_in_training_only(model, train, held_out):
    seen = []

    def prepare(inputs):
        seen.append(inputs["input_ids"].shape)
        return inputs

    train(model, changes={"eval_steps": 2}, held_out=held_out, prepare_inputs=prepare)
    assert seen == [(4, 32)] * STEPS


def test_progress_in_a_log_file(model, train, caplog):
    with caplog.at_level("INFO", "frozen_glyph"):
        train(model, "work", StageProgress("tiny", visible=True))
    (line,) = (record.getMessage() for record in caplog.records if "tokens/s" in record.getMessage())
    assert re.fullmatch(r"tiny 6/6 loss \d\.\d{3} [\d,]+ tokens/s, 0 s left", line)


def test_precision_is_what_the_recipe_says():
    assert uses_bf16("bf16") is True
    assert uses_bf16("fp32") is False
    assert uses_bf16("auto") in (True, False)
