"""The forgetting study, tiny but whole: frozen blocks stay, others learn, stages stay readable; its report."""

import dataclasses

import numpy as np
import pytest
import torch

from eval.studies.common.arms import rate_jobs
from eval.studies.common.ground import prepare_ground
from eval.studies.common.tables import circumstances
from eval.studies.forgetting.report import as_markdown, difference, summarise
from eval.studies.forgetting.runs import FIRST, LANGUAGES, MERGED, NEXT, SMOKE, folder_of, measure, train
from frozen_glyph import FrozenGlyphForCausalLM

SENTENCES = {
    "en": "The cat sat on the mat, and the hat is on the cat.\n",
    "ru": "Кот сидел на окне, другой кот тоже сидел там.\n",
}


@pytest.fixture(scope="module")
def scale():
    return dataclasses.replace(SMOKE, tokens=2048, learning_rate=2e-2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a little text in both languages."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    for language, sentence in SENTENCES.items():
        (folder / "text" / f"{language}.txt").write_text(f"{sentence}\n" * 400, encoding="utf-8")
        (folder / "text" / f"{language}.valid.txt").write_text(sentence * 12, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def results(scale, data, work):
    """Every training and the measuring of seed 0."""
    prepare_ground(data, LANGUAGES, scale, work)
    rate, english = scale.learning_rate, folder_of(work, "english", scale.learning_rate, 0)
    found = {
        (kind, rate, 0): train(kind, rate, 0, english if kind in NEXT else None, scale, data, work)
        for kind in FIRST | NEXT
    }
    return found | {("measure", 0): measure(0, dict.fromkeys(FIRST | NEXT, rate), scale, work)}


def blocks(folder, first, **stage):
    """The tensors of the ``first`` blocks of a checkpoint."""
    model = FrozenGlyphForCausalLM.from_pretrained(folder, **stage)
    return {name: value for layer in model.model.layers[:first] for name, value in layer.state_dict().items()}


def test_every_training_reads_and_trains_as_much(results, scale):
    costs = [results[kind, scale.learning_rate, 0] for kind in FIRST | NEXT]
    assert {cost["tokens"] for cost in costs} == {scale.tokens}
    assert len({cost["trainable_parameters"] for cost in costs}) == 1
    grown, tuned = (results[kind, scale.learning_rate, 0]["flops"] for kind in ("grown", "tuned"))
    assert grown > tuned  # it also reads through the frozen blocks


@pytest.mark.parametrize(("kind", "frozen"), [("grown", True), ("grown-replay", True), ("tuned", False)])
def test_frozen_blocks_stay_and_others_learn(results, work, scale, kind, frozen):
    before, after = (blocks(folder_of(work, name, scale.learning_rate, 0), scale.layers) for name in ("english", kind))
    assert all(torch.equal(before[name], after[name]) for name in before) == frozen


def test_first_stage_stays_readable_and_is_cheaper_to_keep_when_blocks_are_shared(results):
    measured = results["measure", 0]
    assert measured["first_stage_identical"]
    assert 0 < measured["bytes_of_first_stage"]["grown"] < measured["bytes_of_first_stage"]["tuned"]


def test_models_learn_what_they_read_and_forget_the_rest(results, scale):
    report = summarise(results, scale, [], [0])
    losses = {
        text: {model: entry["loss"] for model, entry in models.items()} for text, models in report["losses"].items()
    }
    merged = {f"{name}/{rule}" for name, rules in MERGED.items() for rule in rules}
    assert set(losses["en"]) == set(losses["ru"]) == set(FIRST | NEXT) | merged
    assert losses["en"]["english"] < losses["en"]["russian"] and losses["ru"]["russian"] < losses["ru"]["english"]
    for kind in ("grown", "tuned"):
        assert losses["ru"][kind] < losses["ru"]["english"] and losses["en"][kind] > losses["en"]["english"]
        assert losses["en"][f"{kind}-replay"] < losses["en"][kind]
    assert losses["en"]["english+russian/posterior"] < losses["en"]["english+russian/mean"]


def test_report_says_second_minus_first():
    """Losses made up so that ``tuned`` forgets 0.5 nats per character of English, ``grown`` 0.2."""
    characters = [10.0] * 40
    base = np.random.default_rng(0).uniform(8, 12, 40)
    shifts = dict.fromkeys([*FIRST, *NEXT, "english+grown/evidence 16"], 0.0) | {"tuned": 0.5, "grown": 0.2}
    entry = {
        "characters": characters,
        "documents": list(range(40)),
        "nats": {model: (base + 10 * shift).tolist() for model, shift in shifts.items()},
    }
    measured = {
        "losses": {"en": entry, "ru": entry},
        "first_stage_identical": True,
        "bytes_of_first_stage": {"grown": 1, "tuned": 2},
        "cpu_seconds": 1.0,
    }
    cost = {"tokens": 1, "flops": 1e12, "seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1, "trainable_parameters": 1}
    jobs = [*rate_jobs(["grown"], SMOKE), ("grown", SMOKE.learning_rate, 1)]
    results = {("measure", seed): measured for seed in (0, 1)} | {
        (kind, rate, seed): cost | {"development": float(rate != SMOKE.learning_rate)} for kind, rate, seed in jobs
    }
    report = circumstances([]) | summarise(results, SMOKE, ["grown"], range(2))
    assert "grown 0.002." in report["rates"] and list(report["costs"]) == ["grown"]
    forgot = difference(report, "en", "english", "tuned")
    assert forgot["difference"] == pytest.approx(0.5) and forgot["low"] > 0
    assert forgot["by_seed"] == pytest.approx([0.5, 0.5])
    assert difference(report, "en", "tuned", "grown")["difference"] == pytest.approx(-0.3)
    assert (
        "| grown - tuned | -0.300 (text -0.300 to -0.300; seeds 3 seeds needed, 2 run: -0.300, -0.300)"
        in as_markdown(report)
    )
