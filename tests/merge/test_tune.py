"""Tuning a merged head changes the head and nothing else, survives kill -9, and says what it gained and cost."""

import copy
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from frozen_glyph import tune_head
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    read_json,
    read_tensors,
    sha256_file,
    write_index,
    write_tensors,
)
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.reweigh import reweigh_experts
from frozen_glyph.merge.tune_recipe import TuneRecipe, load_tune_recipe
from frozen_glyph.merge.tuned_head import prepare_head, tuned_tensors, tuned_weights
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.text.documents import read_text
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.trainer import TrainingDiverged, trainable

ALL = ("head", "low-rank", "scales")
RANK = 3
LONG = {"steps": 60, "save_steps": 5}
VERBS = ["sat", "is", "stood", "was", "ate", "slept"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Paths of a training text and two held-out texts."""
    folder = tmp_path_factory.mktemp("text")
    cats = [f"The cat {verb} on the mat, and {verb} there. Кот сидел на окне {verb}." for verb in VERBS * 8]
    (folder / "train.txt").write_text("\n\n".join(cats), encoding="utf-8")
    (folder / "en.txt").write_text("\n\n".join(["The cat sat on the mat."] * 6), encoding="utf-8")
    (folder / "ru.txt").write_text("\n\n".join(["Кот сидел на окне."] * 6), encoding="utf-8")
    return folder / "train.txt", folder / "en.txt", folder / "ru.txt"


@pytest.fixture(scope="module")
def content(tiny_training):
    """``content("scales", steps=3, save_steps=1)``: a tiny recipe as plain data, with changes of ``training``."""

    def content(what="head", steps=12, **training):
        return {"what": what, "rank": RANK, "steps": steps, "seed": 5, "training": tiny_training | training}

    return content


@pytest.fixture(scope="module")
def tune(content, merged_folder, texts):
    """``tune(out, "scales", ...)``: carry the tiny recipe out on the merged experts; returns the provenance."""

    def tune(out, *what, merged=merged_folder, text=texts[:1], valid=texts[1:], **changes):
        return tune_head(merged, out, parse(TuneRecipe, content(*what, **changes)), text, valid)

    return tune


@pytest.fixture(scope="module")
def tuned(tune, tmp_path_factory):
    """``tuned[what]``: (folder, provenance) of a finished tuning. Only read it."""
    folder = tmp_path_factory.mktemp("tuned")
    return {what: (folder / what, tune(folder / what, what)) for what in ALL}


def shards(folder) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def state(folder) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("what", ALL)
def test_only_the_head_changes(tuned, merged_folder, what):
    folder, provenance = tuned[what]
    changed = {name for name, tensor in state(merged_folder).items() if not tensor.equal(state(folder)[name])}
    assert changed == {
        "head": {"lm_head.weight", "lm_head.biases"}, "low-rank": {"lm_head.weight"}, "scales": set()
    }[what]  # fmt: skip
    rewritten = {name for name in shards(folder) if not (folder / name).samefile(merged_folder / name)}
    assert shards(folder) == shards(merged_folder)
    assert rewritten == (set() if what == "scales" else {"head.safetensors"})
    before, after = read_json(merged_folder / "config.json"), read_json(folder / "config.json")
    if what == "scales":
        assert after["rule"] == "weighted" and after["expert_weights"] == provenance["expert_weights"] != [0.5, 0.5]
    else:
        assert after == before
    assert {path.name for path in folder.iterdir()} - {path.name for path in merged_folder.iterdir()} == {
        "metrics.jsonl"
    }


@pytest.mark.parametrize("what", ALL)
def test_loss_falls_and_is_what_the_folder_gives(tuned, merged_folder, experts, texts, tokenizer, what):
    folder, provenance = tuned[what]
    records = provenance["nats_per_character"]
    assert list(records) == ["en.txt", "ru.txt"]
    for path in texts[1:]:
        record = records[path.name]
        for where, name in ((merged_folder, "merged"), (folder, "tuned")):
            loss = text_loss(AutoModelForCausalLM.from_pretrained(where), tokenizer, read_text(path))
            assert loss.nats_per_character == record[name]
        for expert in experts:
            loss = text_loss(AutoModelForCausalLM.from_pretrained(expert), tokenizer, read_text(path), 128)
            assert loss.nats_per_character == pytest.approx(record["experts"][expert.name], rel=1e-5)
        assert record["change"]["difference"] == pytest.approx(record["tuned"] - record["merged"])
        assert record["change"]["high"] < 0
        best = record["best_expert"]
        assert record["experts"][best] == min(record["experts"].values())
        assert record["against_best_expert"]["difference"] == pytest.approx(record["tuned"] - record["experts"][best])


def test_folder_says_what_was_done(tuned, merged_folder, texts):
    folder, provenance = tuned["head"]
    stored = read_json(folder / "provenance.json")
    assert stored == provenance and stored["kind"] == "tune-head"
    assert stored["recipe"]["what"] == "head" and stored["seed"] == 5
    assert [source["name"] for source in stored["data"] + stored["valid"]] == [path.name for path in texts]
    (parent,) = stored["parents"]
    assert parent["config_sha256"] == sha256_file(merged_folder / "config.json")
    assert stored["trainable_parameters"] == sum(map(torch.numel, read_tensors(folder / "head.safetensors").values()))
    assert stored["tokens"] == 12 * 128
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 10, 12]
    card = (folder / "README.md").read_text()
    assert f"{stored['nats_per_character']['ru.txt']['tuned']:.4f}" in card and "`mean`" in card
    assert not describe_checkpoint(str(folder), verify=True)["problems"]


class TestWhatTrains:
    """Against the plain computation with the same numbers."""

    @pytest.fixture
    def model(self, merged_folder):
        model = AutoModelForCausalLM.from_pretrained(merged_folder)
        model.config.rule, model.config.expert_weights = "weighted", [0.7, -0.2]
        return model

    @pytest.fixture
    def ids(self, token_ids):
        return token_ids(2, 20)

    def randomise(self, model):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in trainable(model).values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    @pytest.mark.parametrize("what", ALL)
    def test_starts_as_the_merged_model(self, model, ids, what):
        before = model(ids).logits
        prepare_head(model, TuneRecipe(what, RANK))
        assert torch.equal(model(ids).logits, before)
        names = {name.removeprefix("lm_head.") for name in trainable(model)}
        assert names == {
            "head": {"weight", "biases"},
            "low-rank": {"parametrizations.weight.0.up", "parametrizations.weight.0.down"},
            "scales": {"parametrizations.weight.0.change"},
        }[what]  # fmt: skip

    def test_low_rank_is_the_explicit_product(self, model, ids):
        plain = copy.deepcopy(model)
        prepare_head(model, TuneRecipe("low-rank", RANK))
        self.randomise(model)
        part = model.lm_head.parametrizations.weight[0]
        with torch.no_grad():
            plain.lm_head.weight += part.up @ part.down
        assert torch.linalg.matrix_rank(part.up @ part.down) == RANK
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)
        torch.testing.assert_close(tuned_tensors(model)["lm_head.weight"], plain.lm_head.weight.detach())
        plain(input_ids=ids, labels=ids).loss.backward()
        model(input_ids=ids, labels=ids, skip_logits=True).loss.backward()
        gradient = plain.lm_head.weight.grad
        torch.testing.assert_close(part.up.grad, gradient @ part.down.T, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(part.down.grad, part.up.T @ gradient, rtol=1e-4, atol=1e-6)

    def test_scales_are_expert_weights(self, model, ids):
        plain = copy.deepcopy(model)
        prepare_head(model, TuneRecipe("scales"))
        self.randomise(model)
        plain.config.expert_weights = tuned_weights(model)
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)
        model(input_ids=ids, labels=ids, skip_logits=True).loss.backward()
        (change,) = trainable(model).values()
        for expert, weight in enumerate(model.config.expert_weights):
            losses = []
            for sign in (-1, 1):
                plain.config.expert_weights = tuned_weights(model)
                plain.config.expert_weights[expert] += sign * 0.01 * weight
                losses.append(plain(input_ids=ids, labels=ids).loss.item())
            assert change.grad[expert].item() == pytest.approx((losses[1] - losses[0]) / 0.02, rel=0.02)


def test_low_rank_result_has_the_rank(tuned, merged_folder):
    before, after = (read_tensors(folder / "head.safetensors") for folder in (merged_folder, tuned["low-rank"][0]))
    change = after["lm_head.weight"].double() - before["lm_head.weight"].double()
    assert torch.linalg.matrix_rank(change, rtol=1e-5) == RANK


STRANGER = """
import sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "frozen_glyph":
            raise ImportError("frozen_glyph is not installed here")

sys.meta_path.insert(0, NoPackage())
import numpy, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
numpy.save(sys.argv[2], model(torch.arange(3, 23)[None]).logits.detach().numpy())
"""


def test_loads_with_and_without_the_package(tuned, tmp_path):
    folder, ids = tuned["scales"][0], torch.arange(3, 23)[None]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", STRANGER, str(folder), str(tmp_path / "logits.npy")]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model(ids).logits.detach().numpy())
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 24)


RUN = """
import json, sys, torch
from frozen_glyph import tune_head
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.recipes.fields import parse
torch.set_num_threads(1)
recipe, merged, out, text, *valid = sys.argv[1:]
tune_head(merged, out, parse(TuneRecipe, json.loads(recipe)), [text], valid)
"""


class TestRuns:
    """Killed, repeated, refused."""

    def written(self, folder) -> dict[str, str]:
        """Hashes of all files but those that tell the time."""
        return {
            path.name: sha256_file(path)
            for path in folder.iterdir()
            if path.name not in ("provenance.json", "metrics.jsonl")
        }

    def test_finished_run_is_left_as_it_is(self, tuned, tune):
        folder, provenance = tuned["head"]
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert tune(folder, "head") == provenance
        assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert {path.name for path in folder.parent.iterdir()} == set(ALL)  # no work folder is left

    @pytest.fixture
    def start(self, content, merged_folder, texts, tmp_path):
        """``start(what)``: a process that tunes into ``tmp_path / "killed" / "out"``."""

        def start(what):
            arguments = [json.dumps(content(what, **LONG)), *map(str, (merged_folder, tmp_path / "killed/out", *texts))]
            command = [sys.executable, "-c", RUN, *arguments]
            return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)

        return start

    @pytest.fixture
    def finish(self, tune, tmp_path):
        """``finish(what)``: a new call ends with what a run that never stopped writes, and nothing else is left."""

        def finish(what):
            tune(tmp_path / "killed" / "out", what, **LONG)
            tune(tmp_path / "straight" / "out", what, **LONG)
            assert self.written(tmp_path / "killed" / "out") == self.written(tmp_path / "straight" / "out")
            assert [path.name for path in (tmp_path / "killed").iterdir()] == ["out"]

        return finish

    def test_killed_run_ends_with_the_same_bytes(self, start, finish, tmp_path):
        """Killed between two checkpoints, then while the new folder is written."""
        out = tmp_path / "killed" / "out"
        for what_is_there in (".out.tune/head/checkpoint-20/manifest.json", ".out.*.tmp/head.safetensors"):
            process = start("head")
            while not list(out.parent.glob(what_is_there)):
                assert process.poll() is None, process.stderr.read().decode()[-4000:]
                time.sleep(0.002)
            process.kill()
            process.communicate()
            assert not out.exists()
        finish("head")

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ALL)
    def test_killed_ten_times_at_random_instants(self, start, finish, tmp_path, what):
        """Packing, steps, checkpoints, scoring, publishing: killed wherever the clock falls."""
        out, instants, kills = tmp_path / "killed" / "out", random.Random(0), 0

        def latest() -> float:
            return max((path.stat().st_mtime for path in out.parent.rglob("*") if path.is_file()), default=0.0)

        while kills < 10:
            before, process = latest(), start(what)
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
            else:
                assert process.returncode == 0, process.stderr.read().decode()[-4000:]
                shutil.rmtree(out)
            process.communicate()
            assert not out.exists() or (out / "provenance.json").exists()
        finish(what)

    def test_checkpoints_of_another_run_are_not_used(self, tune, tmp_path, monkeypatch):
        monkeypatch.setattr("frozen_glyph.merge.tune.write_tuned", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(tmp_path / "out")
        monkeypatch.undo()
        message = r"'.*\.out\.tune' holds checkpoints of a tuning with another recipe.*\(training\.learning_rate is"
        with pytest.raises(CheckpointError, match=message):
            tune(tmp_path / "out", learning_rate=1e-3)
        assert tune(tmp_path / "out")["steps"] == 12

    def test_what_does_not_change_the_result_may_change(self, tuned, tune, tmp_path, monkeypatch):
        """Where a run was stopped, and where it is finished."""
        monkeypatch.setattr("frozen_glyph.merge.tune.write_tuned", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(tmp_path / "out")
        monkeypatch.undo()
        provenance = tune(tmp_path / "out", micro_batch_size=1, save_steps=7)
        assert {(change["field"], change["to"]) for change in provenance["changes"]} == {
            ("training.micro_batch_size", 1),
            ("training.save_steps", 7),
        }
        assert tune(tmp_path / "out") == provenance
        assert shards(tmp_path / "out") == shards(tuned["head"][0])

    def test_a_run_of_the_version_before_goes_on(self, tuned, tune, tmp_path, monkeypatch):
        monkeypatch.setattr("frozen_glyph.merge.tune.write_tuned", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(tmp_path / "out")
        monkeypatch.undo()
        path = tmp_path / ".out.tune" / "run.json"
        old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("recipe", "corpus")}
        path.write_text(json.dumps(old))
        with pytest.raises(CheckpointError, match=r"with another recipe.*\(recipe_sha256 is '"):
            tune(tmp_path / "out", micro_batch_size=1)
        tune(tmp_path / "out")
        assert (tmp_path / "out" / "head.safetensors").read_bytes() == (
            tuned["head"][0] / "head.safetensors"
        ).read_bytes()

    def test_divergence_writes_nothing(self, tune, tmp_path):
        with pytest.raises(TrainingDiverged, match="diverged"):
            tune(tmp_path / "out", learning_rate=1e30)
        assert not (tmp_path / "out").exists()

    def test_lower_rate_after_a_divergence(self, tune, tmp_path):
        """The run begins again, and is what a new one with that rate is; no higher rate is taken."""
        with pytest.raises(TrainingDiverged):
            tune(tmp_path / "out", learning_rate=1e30)
        with pytest.raises(CheckpointError, match=r"training\.learning_rate is 1e\+30 there, 1e\+31 here"):
            tune(tmp_path / "out", learning_rate=1e31)
        provenance = tune(tmp_path / "out", learning_rate=1e-3)
        assert "diverged" in provenance["changes"][0]["why"] and "diverged" not in provenance
        tune(tmp_path / "straight", learning_rate=1e-3)
        written = [(tmp_path / name / "head.safetensors").read_bytes() for name in ("out", "straight")]
        assert written[0] == written[1]

    def test_weights_are_written_in_the_type_they_had(self, tune, merged_folder, tmp_path):
        half = shutil.copytree(merged_folder, tmp_path / "half")
        (half / "provenance.json").unlink()
        config = read_json(half / "config.json") | {"dtype": "bfloat16"}
        (half / "config.json").write_text(json.dumps(config))
        head = read_tensors(half / "head.safetensors")
        write_tensors(half / "head.safetensors", {name: tensor.bfloat16() for name, tensor in head.items()})
        weight_map = read_json(half / "model.safetensors.index.json")["weight_map"]
        write_index(half / "model.safetensors.index.json", weight_map)
        provenance = tune(tmp_path / "out", merged=half)
        written = read_tensors(tmp_path / "out" / "head.safetensors")
        assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
        assert provenance["nats_per_character"]["ru.txt"]["change"]["high"] < 0
        assert provenance["experts"] == []

    def test_evaluation_and_no_held_out_text(self, tune, tmp_path):
        assert tune(tmp_path / "with", steps=4, eval_steps=2)["eval_loss"] > 0
        assert tune(tmp_path / "without", steps=4, valid=())["nats_per_character"] == {}
        assert "Not measured" in (tmp_path / "without" / "README.md").read_text()

    def test_tuned_again_on_top(self, tuned, tune, tmp_path):
        folder, before = tuned["scales"]
        provenance = tune(tmp_path / "out", "head", merged=folder)
        assert read_json(tmp_path / "out" / "config.json") == read_json(folder / "config.json")
        assert provenance["parents"][0]["parents"] == before["parents"]
        record = provenance["nats_per_character"]["ru.txt"]
        assert record["merged"] == before["nats_per_character"]["ru.txt"]["tuned"] and record["experts"] == {}


class TestRefusals:
    """Before anything is written, naming what is wrong and what to do."""

    def refused(self, call, kind, message, *places) -> None:
        with pytest.raises(kind, match=message):
            call()
        assert not [place for place in places if place.exists()]

    def test_what_cannot_be_tuned(self, tune, experts, merged_folder, tmp_path):
        out, work = tmp_path / "out", tmp_path / ".out.tune"
        self.refused(lambda: tune(out, merged=experts[0]), FrozenGlyphError, "is no merged checkpoint", out, work)
        other = reweigh_experts(shutil.copytree(merged_folder, tmp_path / "other"), "posterior")
        message = "rule 'posterior'.*only under mean and weighted.*reweigh --rule mean"
        self.refused(lambda: tune(out, merged=other), FrozenGlyphError, message, out, work)
        message = "context_length=256 exceeds max_position_embeddings=128"
        self.refused(lambda: tune(out, context_length=256, batch_tokens=256), FrozenGlyphError, message, out, work)
        single = tmp_path / "single"
        AutoModelForCausalLM.from_pretrained(merged_folder).save_pretrained(single)
        self.refused(lambda: tune(out, merged=single), CheckpointError, "holds the head together with", out, work)

    def test_damaged_expert_of_the_merge_is_named(self, tune, merged_folder, tmp_path):
        damaged = shutil.copytree(merged_folder, tmp_path / "damaged")
        data = bytearray((damaged / "expert-1.safetensors").read_bytes())
        data[-10] ^= 1
        (damaged / "expert-1.safetensors").write_bytes(data)
        out = tmp_path / "out"
        self.refused(lambda: tune(out, merged=damaged), CheckpointError, r"expert-1\.safetensors' is damaged", out)

    def test_place_that_is_taken(self, tune, tuned, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(CheckpointError, match="exists and is not empty"):
            tune(tmp_path / "out")
        message = r"exists and is not empty: .*\(training\.learning_rate is [\d.]+ there, 0\.001 here\)"
        with pytest.raises(CheckpointError, match=message):
            tune(tuned["head"][0], "head", learning_rate=1e-3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"what": "heads"}, "what='heads' is not allowed: it must be one of head, low-rank, scales"),
            ({"rank": 0}, "rank=0 is not allowed: it must be from 1 to 65536"),
            ({"tokens": 100}, "steps=12 is not allowed: it must be left out where tokens is given"),
            ({"step": 1}, "unknown recipe key 'step'.* Did you mean 'steps'"),
            ({"training": {"prefix_cache": "disk"}}, r"training\.prefix_cache='disk' .* none: only growth has it"),
            (
                {"training": {"quantize_frozen": "int8"}},
                r"training\.quantize_frozen='int8' .* none: only growth has it",
            ),
        ],
    )
    def test_bad_recipe_field_is_named_with_what_is_allowed(self, content, changes, message):
        with pytest.raises(RecipeError, match=message):
            parse(TuneRecipe, content() | changes)

    def test_missing_or_ambiguous_texts_are_refused(self, tune, texts, tmp_path):
        out = tmp_path / "out"
        self.refused(lambda: tune(out, text=()), RecipeError, "no training text", out)
        self.refused(lambda: tune(out, text=[tmp_path / "none.txt"]), FrozenGlyphError, "does not exist", out)
        self.refused(lambda: tune(out, valid=[tmp_path / "none.txt"]), FrozenGlyphError, "does not exist", out)
        (tmp_path / "empty.txt").write_text(" ")
        self.refused(lambda: tune(out, valid=[tmp_path / "empty.txt"]), FrozenGlyphError, "is empty", out)
        self.refused(lambda: tune(out, valid=[texts[1], texts[1]]), RecipeError, "different file names", out)


def test_recipe_file_options_and_settings(content, texts, tmp_path):
    shutil.copy(texts[0], tmp_path / "train.txt")
    data = {"sources": [{"files": ["train.txt"]}]}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(content(steps=7) | {"data": data}), encoding="utf-8")
    recipe = load_tune_recipe(tmp_path / "tune.yaml", ["training.save_steps=2"], tokens=500, what="scales", rank=None)
    assert (recipe.what, recipe.rank, recipe.steps, recipe.tokens) == ("scales", RANK, None, 500)
    assert recipe.training.save_steps == 2 and recipe.training.steps_of(recipe.steps, recipe.tokens) == 4
    assert recipe.data.sources[0].files == [str((tmp_path / "train.txt").resolve())]
    assert recipe.to_dict()["data"]["sources"][0]["files"] == ["train.txt"]
    assert load_tune_recipe(None) == TuneRecipe()


@pytest.mark.slow
def test_two_processes_tune_what_one_does(tuned, content, merged_folder, texts, tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    for what in ALL:
        folder, expected = tuned[what]
        arguments = [json.dumps(content(what)), *map(str, (merged_folder, tmp_path / what, *texts))]
        command = [*launch, str(tmp_path / "run.py"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        found = read_json(tmp_path / what / "provenance.json")
        assert found["tokens"] == expected["tokens"] and found["train_loss"] == pytest.approx(expected["train_loss"])
        for text, record in expected["nats_per_character"].items():
            assert found["nats_per_character"][text]["tuned"] == pytest.approx(record["tuned"], rel=1e-4)
        assert shards(folder) == shards(tmp_path / what)
