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

from eval.studies.substrate import arms, comparison, rarity, rivals, runs
from eval.studies.substrate import data as texts
from eval.studies.substrate.data import SMOKE
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.font import load_font
from frozen_glyph.substrate.glyphs import draw_tokens_grid
from frozen_glyph.text.documents import split_documents
from frozen_glyph.text.loss import text_loss

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
        (folder / "text" / f"{language}.txt").write_text("\n\n".join([sentence * 40] * 10), encoding="utf-8")
        (folder / "text" / f"{language}.valid.txt").write_text(
            "\n\n".join([(sentence * 6).strip()] * 2), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    folder = texts.study_folder(SMOKE, data, tmp_path_factory.mktemp("work"))
    texts.prepare(SMOKE, data, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_languages_make_another_study_and_leave_the_folder_of_the_usual_ones(data, tmp_path):
    """What names a folder of three languages is what named it before there was a choice."""
    found = texts.identity(SMOKE, data)
    assert set(found["settings"]) == {field.name for field in dataclasses.fields(SMOKE)} - {"languages"}
    other = dataclasses.replace(SMOKE, languages=("zh", "en"))
    assert list(texts.identity(other, data)["texts"]) == ["zh.txt", "zh.valid.txt", "en.txt", "en.valid.txt"]
    texts.prepare(other, data, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.training.txt")) == ["en.training.txt", "zh.training.txt"]
    assert texts.chance_levels(tmp_path, other).keys() == {"zh", "en"}


def test_training_text_is_drawn_in_equal_shares_of_whole_paragraphs():
    text = "".join(f"paragraph {number} " + "x" * 1000 + "\n" for number in range(100))
    taken = texts.sample_text(text, 30_000)
    assert 30_000 <= len(taken) < 30_000 + 2 * texts.PIECE
    assert set(taken.split("\n")) - {""} <= set(text.split("\n"))
    assert taken == texts.sample_text(text, 30_000)


def test_kinds_differ_in_the_embedding_alone(tokenizer):
    kinds = ("binary", "random", "trainable", "random-trained")
    models = {kind: arms.build_model(kind, 0, tokenizer, SMOKE)[0] for kind in kinds}
    digests = {runs.digest(arms.shared_tensors(model)) for model in models.values()}
    assert len(digests) == 1
    other, _ = arms.build_model("binary", 1, tokenizer, SMOKE)
    assert runs.digest(arms.shared_tensors(other)) not in digests
    vectors = {kind: model.substrate.weight for kind, model in models.items()}
    assert not torch.equal(vectors["binary"], vectors["random"])
    assert torch.equal(vectors["random"], vectors["random-trained"])
    trained = {kind: {n for n, p in model.named_parameters() if p.requires_grad} for kind, model in models.items()}
    assert trained["binary"] == trained["random"] == trained["trainable"] - {"model.embed_tokens.weight"}
    assert trained["random-trained"] == trained["trainable"]


def test_whitening_by_the_text_weighs_tokens_as_often_as_they_are_read(folder, tokenizer):
    """Moments are those of a list in which every token stands as often as it was read."""
    glyphs = arms.ARMS["grid-whitened"].build(tokenizer, SMOKE.hidden_size, seed=0)
    weights = (arms.times_in_text(tokenizer) + 1) / (arms.times_in_text(tokenizer) + 1).sum()
    mean, covariance = rivals.weighted_moments(glyphs.packed_bits, weights)
    bits = np.unpackbits(glyphs.packed_bits.numpy(), axis=1)
    np.testing.assert_allclose(mean, np.average(bits, axis=0, weights=weights))
    np.testing.assert_allclose(covariance, np.cov(bits.T, aweights=weights, bias=True), atol=1e-12)
    by_text = arms.ARMS["grid-by-text"].build(tokenizer, SMOKE.hidden_size, seed=0)
    assert torch.equal(by_text.packed_bits, glyphs.packed_bits) and by_text.scale == glyphs.scale
    assert not torch.equal(by_text.projection, glyphs.projection)


def test_a_script_is_whitened_by_itself_where_it_has_more_tokens_than_numbers(tokenizer):
    """Its centre is then zero and its directions vary alike, before lengths are made equal."""
    bits = rivals.unpack(arms.ARMS["grid"].build(tokenizer, 8, seed=0).packed_bits)
    rows = rivals.whitened_rows(bits, 8)
    torch.testing.assert_close(torch.cov(rows.T, correction=0), torch.eye(8).double(), atol=1e-6, rtol=0)
    tokens = rivals.list_tokens(tokenizer)
    scripts = rivals.script_of("".join(token.text for token in tokens))
    script_V = np.array([rivals.main_script(token, scripts) for token in tokens])
    cyrillic, rest = script_V == "Cyrillic", ~np.isin(script_V, ["Cyrillic", "Latin", "Han"])
    assert cyrillic.sum() > 8 and tokenizer.convert_tokens_to_ids("к") in np.flatnonzero(cyrillic)
    found = rivals.by_script(tokenizer, 8)
    torch.testing.assert_close(found[cyrillic], rivals.as_table(rivals.whitened_rows(bits[cyrillic], 8)))
    torch.testing.assert_close(found[rest], rivals.as_table(rows)[rest])
    assert not torch.allclose(found[cyrillic], rivals.as_table(rows)[cyrillic], atol=0.1)


def test_a_larger_canvas_shows_the_same_of_short_tokens(tokenizer):
    """Each pixel of 64x64 is one of 32x32, so that whitened components are equal: no arm can tell them apart."""
    tokens = [token for token in rivals.list_tokens(tokenizer) if token.kind == "text" and len(token.text) <= 4]
    small, large = (
        rivals.as_table(rivals.whitened_rows(draw_tokens_grid(tokens, load_font(), side).reshape(len(tokens), -1), 64))
        for side in (32, 64)
    )
    torch.testing.assert_close(small @ small.T, large @ large.T, atol=1e-4, rtol=0)


def test_the_tables_of_rivals_do_not_train(folder, tokenizer):
    scale = dataclasses.replace(SMOKE, steps=2)
    model, _ = arms.build_model("published-48", 0, tokenizer, scale)
    before = model.substrate.weight.detach().clone()
    torch.testing.assert_close(before, rivals.outlines(tokenizer, SMOKE.hidden_size, 48))
    assert runs.digest(arms.shared_tensors(model)) == runs.digest(
        arms.shared_tensors(arms.build_model("random", 0, tokenizer, scale)[0])
    )
    runs.train(model, texts.open_windows(folder, tokenizer, SMOKE.context_length), 0, 1e-2, scale)
    assert torch.equal(before, model.substrate.weight)


@pytest.fixture(scope="module")
def trained(folder, tokenizer):
    """``random`` and ``random-trained`` at seed 0 after 20 steps: model, vectors before, losses, windows as read."""
    scale = dataclasses.replace(SMOKE, steps=20)
    windows = texts.open_windows(folder, tokenizer, SMOKE.context_length)
    found = {}
    for kind in ("random", "random-trained"):
        model, _ = arms.build_model(kind, 0, tokenizer, scale)
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
    assert arms.effective_dimensions(torch.nn.functional.pad(corners, (0, 5))) == pytest.approx(3)
    assert arms.effective_dimensions(corners * torch.tensor([1.0, 1.0, 0.001])) == pytest.approx(2, abs=1e-3)


def test_uniform_guessing_costs_the_logarithm_of_the_vocabulary(folder, tokenizer):
    levels = texts.chance_levels(folder, SMOKE)
    documents = split_documents(texts.text_of(folder, "zh", "held-out"))
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in documents)
    characters = sum(map(len, documents))
    assert levels["zh"]["uniform"] == pytest.approx(tokens * np.log(len(tokenizer)) / characters)
    assert all(level["unigram"] < level["uniform"] for level in levels.values())


def test_texts_to_choose_by_and_to_report_are_not_trained_on(data, tmp_path):
    numbered = "\n\n".join(f"Document {number} of the cat.\n" + SENTENCES["en"] * 20 for number in range(20))
    (tmp_path / "text").mkdir()
    for path in (data / "text").iterdir():
        (tmp_path / "text" / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    (tmp_path / "text" / "en.txt").write_text(numbered, encoding="utf-8")
    scale = dataclasses.replace(SMOKE, held_out_documents=5)
    folder = tmp_path / "work"
    texts.prepare(scale, tmp_path, folder)
    found = {}
    for part in ("training", "development", "held-out"):
        lines = texts.text_of(folder, "en", part).splitlines()
        found[part] = {line for line in lines if line.startswith("Document")}
    assert found["development"] == {"Document 19 of the cat."}
    assert found["held-out"] == {f"Document {number} of the cat." for number in (16, 17, 18)}  # beside two
    assert found["training"] and not found["training"] & (found["development"] | found["held-out"])


def test_every_token_is_scored_by_how_often_the_one_before_it_was_read(trained, folder, tokenizer):
    """Limits add up: nothing was read less than never, and a limit above all counts takes the whole text."""
    model, _, _, order = trained["random"]
    windows = texts.open_windows(folder, tokenizer, SMOKE.context_length)
    read = rarity.times_read(windows, order, len(tokenizer))
    assert read.sum() == len(order) * (SMOKE.context_length - 1)
    text = texts.text_of(folder, "ru", "held-out")
    found = rarity.score_text(model, tokenizer, text, SMOKE.context_length, read)
    expected = text_loss(model, tokenizer, text, SMOKE.context_length)
    np.testing.assert_allclose(found["nats"], expected.nats, rtol=1e-5)
    assert found["characters"] == expected.characters.tolist() and found["tokens"] == expected.tokens
    seldom = rarity.score_text(model, tokenizer, text, SMOKE.context_length, np.zeros_like(read))["rare"]["0"]
    assert sum(seldom["nats"]) == pytest.approx(sum(found["nats"])) and sum(seldom["tokens"]) == found["tokens"]
    counts = [sum(found["rare"][str(most)]["tokens"]) for most in rarity.MOST_READ]
    assert counts == sorted(counts)


def run_of(kind, seed, rate=2e-3, shift=0.0, blocks=40, development=0.0, rare=()):
    """A run that finished, by its job: every block costs 150 nats and ``shift``."""
    noise = np.random.default_rng(1).normal(0, 1, blocks) * (kind == "grid")
    text = {"nats": (150 + shift + noise).tolist(), "characters": [100.0] * blocks, "documents": list(range(blocks))}
    text["rare"] = {str(most): {"documents": [], "nats": [], "tokens": []} for most in rarity.MOST_READ} | dict(rare)
    point = {"step": 1, "en": 2.0 + development}
    return {(kind, rate, seed): {"texts": {"en": text}, "curve": [point], "development": 2.0 + development}}


def test_verdict_needs_the_text_and_the_seeds():
    """Three seeds that agree decide; three that do not, two seeds, or too few units decide nothing."""

    def verdict(shifts, blocks=40):
        found = {}
        for seed, shift in enumerate(shifts):
            found |= run_of("trainable", seed, blocks=blocks) | run_of("grid", seed, shift=shift, blocks=blocks)
        for kind in ("trainable", "grid"):
            found |= run_of(kind, 0, 1e-3, development=1) | run_of(kind, 0, 4e-3, development=1)
        (row,) = comparison.compare(comparison.arms_of(found, ("grid", "trainable"), SMOKE))
        return row["verdict"]

    assert verdict([5.0, 5.1, 4.9]) == "higher"
    assert verdict([-5.0, -5.1, -4.9]) == "lower"
    assert verdict([-2.0, 1.0, 4.0]) == "undecided"
    assert verdict([5.0, 5.1]) == "undecided"
    assert verdict([5.0, 5.1, 4.9], blocks=5) == "undecided"


def test_an_arm_is_read_at_the_rate_that_the_development_text_chose():
    """Whatever the reported text says, and at the first seed alone."""
    best = run_of("grid", 0, 2e-3, development=-0.1) | run_of("grid", 1, 2e-3)
    found = best | run_of("grid", 0, 1e-3, shift=-9) | run_of("grid", 0, 4e-3) | run_of("grid", 1, 1e-3, development=-5)
    assert comparison.arms_of(found, ["grid", "random"], SMOKE) == {"grid": dict(enumerate(best.values()))}


def test_rare_tokens_are_compared_at_the_same_tokens():
    """Documents in which nothing rare was read at a seed count for nothing there."""

    def rare(nats):
        return {"3": {"documents": [4, 7], "nats": nats, "tokens": [2, 1]}}.items()

    ((_, base),) = run_of("random", 0, rare=rare([10.0, 5.0])).items()
    (_, first), (_, second) = (run_of("grid", 0, rare=rare([8.0, 4.0])) | run_of("grid", 1)).items()
    found = {"random": {0: base}, "grid": {0: first, 1: second}}
    (row,) = rarity.curve_of(found, "grid", "random")
    assert (row["read_at_most"], row["tokens"], row["difference"], row["loss"]) == (3, 3, -1.0, 4.0)
    assert row["p_value"] is None and row["by_seed"] == [-1.0]


def test_runs_that_started_differently_are_refused():
    runs = {(name, 2e-3, 0): {"initial_blocks_and_head": name, "batch_order": "x"} for name in "ab"}
    with pytest.raises(FrozenGlyphError, match="seed 0 differ in initial_blocks_and_head"):
        comparison.check_equal_starts(runs)


@pytest.mark.slow
def test_the_command_writes_a_report_and_resumes(data, tmp_path):
    arguments = ["--data", data, "--out", tmp_path / "study", "--work", tmp_path / "work", "--smoke"]
    arguments += ["--kinds", "binary", "trainable", "--seeds", "2"]
    command = [sys.executable, "-m", "eval.studies.substrate", *arguments]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    report = json.loads((tmp_path / "study.json").read_text("utf-8"))
    assert len(report["comparisons"]) == 3 and 6 <= len(report["rates"]) <= 8
    for row in report["comparisons"]:
        losses = [report["kinds"][row[key]]["losses"][row["language"]]["loss"] for key in ("kind", "baseline")]
        assert row["difference"] == pytest.approx(losses[0] - losses[1])
        assert np.mean(row["by_seed"]) == pytest.approx(row["difference"])
    markdown = (tmp_path / "study.md").read_text("utf-8")
    assert "## What it does not show" in markdown and "`binary` against `trainable` (2 of the 3 seeds" in markdown

    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*-0.00*-[01].json")}
    assert len(runs) == len(report["rates"]) + 2
    gone = min(runs)
    gone.unlink()
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*-0.00*-[01].json")}
    assert {path for path in runs if again[path] != runs[path]} == {gone}
    assert json.loads((tmp_path / "study.json").read_text("utf-8"))["comparisons"] == report["comparisons"]
