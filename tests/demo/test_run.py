"""The demo end to end on a small corpus: stopped while it measures, gone on with, and called a second time."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus, build_corpus
from frozen_glyph.demo.documents import EXPERTS
from frozen_glyph.demo.run import STAGES, run_demo
from frozen_glyph.demo.tasks import task_name
from frozen_glyph.evaluation import measure
from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.summarise import ALL_TEXTS
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.substrate.font import FontError, load_font

TOLD_APART = [rule for rule in RULES if rule != "weighted"]  # which is the mean at equal weights
KEPT_QUESTIONS = 3  # of each task and language
STOPPED_AT = 6  # text: in the midst of the second model


@pytest.fixture(scope="module")
def small_corpus() -> Corpus:
    whole = build_corpus(seed=0)
    kept: dict[tuple[str, str, str], list] = {}
    for question in whole.questions:
        kept.setdefault((question.task, question.expert, question.language), []).append(question)
    return Corpus(
        train={expert: text[:60_000] for expert, text in whole.train.items()},
        valid={language: text[:3_000] for language, text in whole.valid.items()},
        questions=[question for group in kept.values() for question in group[:KEPT_QUESTIONS]],
    )


def measure_texts(patch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[str]:
    """Return a list that fills with the texts that models are measured on; stop at one of them as Ctrl-C does."""
    measured: list[str] = []

    def followed(model: Any, tokenizer: Any, text: str, context_length: int) -> Any:
        measured.append(text)
        if len(measured) == stop_at:
            raise KeyboardInterrupt
        return measure_text(model, tokenizer, text, context_length)

    measure_text = measure.measure_text
    patch.setattr(measure, "measure_text", followed)
    return measured


def parts_of(folder: Path) -> dict[str, int]:
    """The finished measurements and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}


@pytest.fixture(scope="module")
def stopped(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A demo that was stopped while it measured, and what it had measured."""
    try:
        load_font()
    except FontError as error:
        pytest.skip(f"the demo draws with GNU Unifont: {error}")
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        measure_texts(patch, STOPPED_AT)
        run_demo(folder, seed=0, steps=2, corpus=small_corpus)
    return folder, parts_of(folder)


@pytest.fixture(scope="module")
def gone_on(stopped: tuple[Path, dict[str, int]], small_corpus: Corpus) -> list[str]:
    """The texts that the stopped demo measured when it went on."""
    with pytest.MonkeyPatch.context() as patch:
        measured = measure_texts(patch)
        run_demo(stopped[0], seed=0, steps=2, corpus=small_corpus)
    return measured


@pytest.fixture(scope="module")
def demo_folder(stopped: tuple[Path, dict[str, int]], gone_on: list[str]) -> Path:
    return stopped[0]


def test_a_stopped_demo_keeps_what_it_measured(stopped, gone_on, small_corpus):
    folder, finished = stopped
    assert len(finished) > STOPPED_AT and not set(finished.items()) - set(parts_of(folder).items())
    models = len(TOLD_APART) + len(EXPERTS) * STAGES
    assert len(gone_on) == models * len(small_corpus.valid) - (STOPPED_AT - 1)


def test_report_has_every_section(demo_folder, small_corpus):
    report = shown(json.loads((demo_folder / "report.json").read_text("utf-8")))
    assert report["note"] == SYNTHETIC_NOTE
    models = {f"merged ({rule})" for rule in TOLD_APART} | set(EXPERTS)
    assert {loss["model"] for loss in report["losses"]} == models
    assert {loss["text"] for loss in report["losses"]} == {*small_corpus.valid, ALL_TEXTS}
    assert {score["model"] for score in report["scores"]} == models
    assert {score["task"] for score in report["scores"]} == set(map(task_name, small_corpus.questions))
    assert all(
        score["chance"] is not None and score["low"] <= score["value"] <= score["high"] for score in report["scores"]
    )
    assert {len(stages) for stages in report["growth"].values()} == {STAGES}
    assert [stage["num_hidden_layers"] for stage in report["growth"]["ru"]] == [1, 2, 3]
    compared = {(row["first"], row["second"]) for row in report["comparisons"] if row["name"] == "mixed"}
    assert compared == {(expert, f"merged ({rule})") for expert in EXPERTS for rule in TOLD_APART}
    told = [row for row in report["trends"] + report["comparisons"] if row["p_value"] is not None]  # of enough units
    assert told and all(row["adjusted_p"] >= row["p_value"] for row in told)
    rules = {facts["label"]: facts["rule"] for facts in report["provenance"]["models"]}
    assert rules == {f"merged ({rule})": rule for rule in TOLD_APART} | dict.fromkeys(EXPERTS)
    assert report["pictures"] and report["samples"]
    assert report["provenance"]["settings"]["peak memory (MiB)"] > 100


def test_growth_is_told_on_what_an_expert_was_trained_for(demo_folder):
    report = shown(json.loads((demo_folder / "report.json").read_text("utf-8")))
    for expert, stages in report["growth"].items():
        tasks = {"facts", "sums", "extraction", *(f"{task}_{expert}" for task in ("facts", "sums", "extraction"))}
        tasks.add(f"options_{expert}")
        for stage in stages:
            assert set(stage["losses"]) == {"en", expert} and set(stage["scores"]) == tasks
        assert {row["name"] for row in report["trends"] if row["model"] == expert} == {"en", expert} | tasks


def slow_accuracy(model: Any, tokenizer: Any, questions: list) -> float:
    """The obvious way: one sequence for each choice, no padding, one token's log-probability at a time."""
    right = 0
    for question in questions:
        scores = []
        for choice in question.choices:
            ids = tokenizer.encode(question.prompt + choice, add_special_tokens=False)
            first = len(tokenizer.encode(question.prompt, add_special_tokens=False))
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(logits[at - 1, ids[at]]) for at in range(first, len(ids))))
        right += scores.index(max(scores)) == question.answer
    return right / len(questions)


@pytest.mark.parametrize("expert", EXPERTS)
def test_scores_are_of_the_log_likelihood_of_each_choice(demo_folder, small_corpus, expert):
    report = shown(json.loads((demo_folder / "report.json").read_text("utf-8")))
    found = {score["task"]: score["value"] for score in report["scores"] if score["model"] == expert}
    model = FrozenGlyphForCausalLM.from_pretrained(demo_folder / expert)
    tokenizer = AutoTokenizer.from_pretrained(demo_folder / expert)
    for task, value in found.items():
        own = [question for question in small_corpus.questions if task_name(question) == task]
        assert value == pytest.approx(slow_accuracy(model, tokenizer, own)), task


def test_report_page_is_self_contained_and_labelled_synthetic(demo_folder):
    page = (demo_folder / "report.html").read_text("utf-8")
    assert "Synthetic data" in page
    assert "<script src" not in page and "<link" not in page and "data:image/png;base64," in page


def test_merged_model_counts_all_blocks_of_both_experts(demo_folder):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(demo_folder / "merged")
    assert [len(expert.layers) for expert in model.model.experts] == [STAGES, STAGES]


def test_second_call_trains_and_measures_nothing_again_and_needs_no_resource(demo_folder, small_corpus, monkeypatch):
    """``resource`` is blocked, as on Windows, which has none: then peak memory is left out."""
    weights = sorted(demo_folder.glob("*/*.safetensors"))
    before, parts = [path.stat().st_mtime_ns for path in weights], parts_of(demo_folder)
    monkeypatch.setitem(sys.modules, "resource", None)
    run_demo(demo_folder, seed=0, steps=2, corpus=small_corpus)
    assert [path.stat().st_mtime_ns for path in weights] == before and parts_of(demo_folder) == parts
    settings = json.loads((demo_folder / "report.json").read_text("utf-8"))["provenance"]["settings"]
    assert settings["steps per stage"] == 2 and "peak memory (MiB)" not in settings
