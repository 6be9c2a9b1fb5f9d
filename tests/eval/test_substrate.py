"""The substrate study: equal starts, what trains and what does not, resuming, statistics; the command at smoke size."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eval.studies.substrate import comparison, runs
from eval.studies.substrate import data as texts
from eval.studies.substrate.data import SMOKE
from frozen_glyph.errors import FrozenGlyphError

ROOT = Path(__file__).parents[2]
SENTENCES = {
    "en": "The cat sat on the mat, and the hat is on the cat.\n",
    "ru": "Кот сидел на окне, другой кот тоже сидел там.\n",
    "zh": "猫坐在垫子上。另一只猫也坐在那里。\n",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a little text in each language."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    for language, sentence in SENTENCES.items():
        (folder / "text" / f"{language}.txt").write_text(sentence * 400, encoding="utf-8")
        (folder / "text" / f"{language}.valid.txt").write_text((sentence * 12).strip(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    folder = texts.study_folder(SMOKE, data, tmp_path_factory.mktemp("work"))
    texts.prepare(SMOKE, data, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_training_text_is_drawn_in_equal_shares_of_whole_paragraphs():
    text = "".join(f"paragraph {number} " + "x" * 1000 + "\n" for number in range(100))
    taken = texts.sample_text(text, 30_000)
    assert 30_000 <= len(taken) < 30_000 + 2 * texts.PIECE
    assert set(taken.split("\n")) - {""} <= set(text.split("\n"))
    assert taken == texts.sample_text(text, 30_000)


def test_kinds_differ_in_the_embedding_alone(tokenizer):
    kinds = ("binary", "random", "trainable", "random-trained")
    models = {kind: runs.build_model(kind, 0, tokenizer, SMOKE)[0] for kind in kinds}
    digests = {runs.digest(runs.shared_tensors(model)) for model in models.values()}
    assert len(digests) == 1
    other, _ = runs.build_model("binary", 1, tokenizer, SMOKE)
    assert runs.digest(runs.shared_tensors(other)) not in digests
    vectors = {kind: model.substrate.weight for kind, model in models.items()}
    assert not torch.equal(vectors["binary"], vectors["random"])
    assert torch.equal(vectors["random"], vectors["random-trained"])
    trained = {kind: {n for n, p in model.named_parameters() if p.requires_grad} for kind, model in models.items()}
    assert trained["binary"] == trained["random"] == trained["trainable"] - {"model.embed_tokens.weight"}
    assert trained["random-trained"] == trained["trainable"]


@pytest.fixture(scope="module")
def trained(folder, tokenizer):
    """``random`` and ``random-trained`` at seed 0 after 20 steps: model, vectors before, losses, windows as read."""
    scale = dataclasses.replace(SMOKE, steps=20)
    windows = texts.open_windows(folder, tokenizer, SMOKE.context_length)
    found = {}
    for kind in ("random", "random-trained"):
        model, _ = runs.build_model(kind, 0, tokenizer, scale)
        before = model.substrate.weight.detach().clone()
        found[kind] = model, before, *runs.train(model, windows, 0, 1e-2, scale)
    return found


@pytest.mark.parametrize("kind", ["random", "random-trained"])
def test_training_lowers_the_loss_and_moves_only_what_trains(trained, kind):
    model, before, losses, _ = trained[kind]
    assert losses[-1] < losses[0] - 0.5
    assert torch.equal(before, model.substrate.weight) == (kind == "random")


def test_kinds_read_the_same_windows_and_every_window_before_one_again(trained, folder, tokenizer):
    (*_, order), (*_, other) = trained.values()
    assert order == other
    epoch = len(texts.open_windows(folder, tokenizer, SMOKE.context_length))
    read = 20 * SMOKE.batch_tokens // SMOKE.context_length
    assert len(order) == read and len(set(order[:epoch])) == min(epoch, read)


def test_effective_dimensions_count_directions_of_equal_spread():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    assert runs.effective_dimensions(torch.nn.functional.pad(corners, (0, 5))) == pytest.approx(3)
    assert runs.effective_dimensions(corners * torch.tensor([1.0, 1.0, 0.001])) == pytest.approx(2, abs=1e-3)


def test_uniform_guessing_costs_the_logarithm_of_the_vocabulary(data, folder, tokenizer):
    levels = texts.chance_levels(data, folder, SMOKE)
    text = (data / "text" / "zh.valid.txt").read_text("utf-8")
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert levels["zh"]["uniform"] == pytest.approx(tokens * np.log(len(tokenizer)) / len(text))
    assert all(level["unigram"] < level["uniform"] for level in levels.values())


def test_verdict_needs_the_text_and_the_seeds():
    """Three seeds that agree decide; three that do not, two seeds, or too few units decide nothing."""

    def verdict(shifts, blocks=40):
        noise = np.random.default_rng(1).normal(0, 1, blocks)

        def run(kind, shift):
            nats = (150 + shift + noise * (kind == "binary")).tolist()
            text = {"nats": nats, "characters": [100.0] * blocks, "documents": list(range(blocks))}
            return {"kind": kind, "texts": {"en": text}}

        kinds = {
            "trainable": [run("trainable", 0.0) for _ in shifts],
            "binary": [run("binary", shift) for shift in shifts],
        }
        (row,) = comparison.compare(kinds)
        return row["verdict"]

    assert verdict([5.0, 5.1, 4.9]) == "higher"
    assert verdict([-5.0, -5.1, -4.9]) == "lower"
    assert verdict([-2.0, 1.0, 4.0]) == "undecided"
    assert verdict([5.0, 5.1]) == "undecided"
    assert verdict([5.0, 5.1, 4.9], blocks=5) == "undecided"


def test_runs_that_started_differently_are_refused():
    runs = [{"seed": 0, "initial_blocks_and_head": name, "batch_order": "x"} for name in "ab"]
    with pytest.raises(FrozenGlyphError, match="seed 0 differ in initial_blocks_and_head"):
        comparison.check_equal_starts(runs)


@pytest.mark.slow
def test_the_command_writes_a_report_and_resumes(data, tmp_path):
    arguments = ["--data", data, "--out", tmp_path / "study", "--work", tmp_path / "work", "--smoke"]
    arguments += ["--kinds", "binary", "random", "trainable", "--seeds", "2", "--check-kinds", "trainable"]
    command = [sys.executable, "-m", "eval.studies.substrate", *arguments]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    report = json.loads((tmp_path / "study.json").read_text("utf-8"))
    assert len(report["comparisons"]) == 2 * 3 and len(report["rates"]) == 3
    for row in report["comparisons"]:
        kinds = report["kinds"]
        expected = [kinds[row[key]]["nats_per_character"][row["language"]] for key in ("kind", "baseline")]
        assert row["difference"] == pytest.approx(expected[0] - expected[1])
        assert np.mean(row["by_seed"]) == pytest.approx(row["difference"])
    markdown = (tmp_path / "study.md").read_text("utf-8")
    assert "## What it does not show" in markdown and "`binary` against `trainable`" in markdown

    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*-[01]-*.json")}
    assert len(runs) == 8
    gone = min(runs)
    gone.unlink()
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*-[01]-*.json")}
    assert {path for path in runs if again[path] != runs[path]} == {gone}
    assert json.loads((tmp_path / "study.json").read_text("utf-8"))["comparisons"] == report["comparisons"]
