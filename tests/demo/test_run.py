"""The demo end to end on a small corpus: every file it promises, a report with every section, and a second call."""

import json

import pytest

from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus, build_corpus
from frozen_glyph.demo.run import EXPERTS, STAGES, run_demo
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.substrate.font import FontError, load_font

KEPT_QUESTIONS = 3  # of each task and language


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


@pytest.fixture(scope="module")
def demo_folder(small_corpus, tmp_path_factory):
    try:
        load_font()
    except FontError as error:
        pytest.skip(f"the demo draws with GNU Unifont: {error}")
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, seed=0, steps=2, corpus=small_corpus)
    return folder


def test_report_has_every_section(demo_folder, small_corpus):
    report = json.loads((demo_folder / "report.json").read_text("utf-8"))
    assert report["note"] == SYNTHETIC_NOTE
    models = {f"merged ({rule})" for rule in RULES} | set(EXPERTS)
    assert {loss["model"] for loss in report["losses"]} == models
    assert {loss["text"] for loss in report["losses"]} == set(small_corpus.valid)
    assert {score["model"] for score in report["scores"]} == models
    assert all(
        score["chance"] is not None and score["low"] <= score["value"] <= score["high"] for score in report["scores"]
    )
    assert {len(stages) for stages in report["growth"].values()} == {STAGES}
    assert [stage["num_hidden_layers"] for stage in report["growth"]["ru"]] == [1, 2, 3]
    compared = {(row["first"], row["second"]) for row in report["comparisons"] if row["name"] == "mixed"}
    assert compared == {(expert, f"merged ({rule})") for expert in EXPERTS for rule in RULES}
    grown = {(row["first"], row["second"]) for row in report["comparisons"] if "stage" in row["first"]}
    assert grown == {(f"{expert} stage 1", f"{expert} stage {STAGES}") for expert in EXPERTS}
    assert {(row["model"], row["name"]) for row in report["trends"]} >= {("ru", "en"), ("ru", "ru"), ("zh", "zh")}
    assert all(row["adjusted_p"] >= row["p_value"] for row in report["trends"] + report["comparisons"])
    rules = {facts["label"]: facts["rule"] for facts in report["provenance"]["models"]}
    assert rules == {f"merged ({rule})": rule for rule in RULES} | dict.fromkeys(EXPERTS)
    assert report["pictures"] and report["samples"]


def test_report_page_is_self_contained_and_labelled_synthetic(demo_folder):
    page = (demo_folder / "report.html").read_text("utf-8")
    assert "Synthetic data" in page
    assert "<script src" not in page and "<link" not in page and "data:image/png;base64," in page


def test_merged_model_counts_all_blocks_of_both_experts(demo_folder):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(demo_folder / "merged")
    assert [len(expert.layers) for expert in model.model.experts] == [STAGES, STAGES]


def test_second_call_trains_nothing_again(demo_folder, small_corpus):
    weights = sorted(demo_folder.glob("*/*.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    run_demo(demo_folder, seed=0, steps=2, corpus=small_corpus)
    assert [path.stat().st_mtime_ns for path in weights] == before
