"""The study of SQuAD heads: answers as tokens and back, arms that differ in what they say, a run, its report."""

import json

import pytest
import torch

from eval.studies.common.arms import rates_of
from eval.studies.common.tables import circumstances
from eval.studies.emergence import runs as emergence
from eval.studies.squad_heads.questions import Question, answer_of, best_span, encode, first_words, random_spans
from eval.studies.squad_heads.report import as_markdown, summarise
from eval.studies.squad_heads.runs import (
    GROWN,
    SMOKE,
    UNTRAINED,
    baselines,
    fine_tune,
    load_parts,
    make_model,
    start_of,
)

PARAGRAPH = "The cat is on the mat. Кот тоже, и 猫. The hat is there."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny SQuAD: 4 training and 3 test articles of 6 questions, whose answers are the words of a paragraph."""
    folder = tmp_path_factory.mktemp("data") / "squad"
    folder.mkdir()
    for name, articles in (("train-v1.1.subset", 4), ("dev-v1.1", 3)):
        found = []
        for article in range(articles):
            questions = []
            for place in range(6):
                answer = PARAGRAPH.split()[place + article]
                start = len(" ".join([*PARAGRAPH.split()[: place + article], ""]))
                questions.append(
                    {"question": f"What is {place}?", "answers": [{"text": answer, "answer_start": start}]}
                )
            found.append({"title": f"{name}-{article}", "paragraphs": [{"context": PARAGRAPH, "qas": questions}]})
        (folder / f"{name}.json").write_text(json.dumps({"data": found}), encoding="utf-8")
    return folder.parent


def test_an_answer_is_found_in_tokens_and_read_back(tokenizer):
    """Logits that point at the tokens of an answer give its text again, padding behind them or not."""
    words, start = PARAGRAPH.split(), 0
    for word in words:
        start = PARAGRAPH.index(word, start)
        (example,) = encode([Question("a", "Where?", PARAGRAPH, (word,), start)], tokenizer, 200)
        length = len(example.inputs["input_ids"])
        logits = torch.zeros(2, length + 5)
        logits[0, example.inputs["start_positions"]] = logits[1, example.inputs["end_positions"]] = 1
        assert answer_of(example, *logits, longest=30) == word
        assert tokenizer.decode(example.inputs["input_ids"][: example.first]) == "Where?\n"
    assert encode([Question("a", "Where?", PARAGRAPH, ("cat",), 4)], tokenizer, length - 1) == []


def test_the_best_span_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    for longest in (1, 3, 20):
        start, end = torch.randn(2, 9, generator=generator)
        spans = [(i, j) for i in range(9) for j in range(i, min(9, i + longest))]
        assert best_span(start, end, longest) == max(spans, key=lambda span: start[span[0]] + end[span[1]])


def test_baselines_know_no_model():
    asked = [Question("a", "?", "one two three four", ("two three",), 4)]
    train = [Question("b", "?", "ten eleven twelve", ("ten eleven",), 0)]
    scores, words = first_words(asked, train)
    assert words == 2 and scores == [{"exact": 0.0, "f1": pytest.approx(0.5)}]
    assert random_spans(asked, train, draws=300)[0]["exact"] == pytest.approx(1 / 3, abs=0.1)


def test_an_untrained_control_shares_the_substrate_and_no_weight(experts):
    """The grown shape: all blocks of both train."""
    own, control = (make_model(experts[1], arm, seed=3) for arm in (GROWN, UNTRAINED))
    trained, fresh = (dict(model.named_parameters()) for model in (own, control))
    assert trained.keys() == fresh.keys() and all(p.requires_grad for p in [*trained.values(), *fresh.values()])
    assert own.substrate.fingerprint(None) == control.substrate.fingerprint(None)
    assert not any(torch.equal(p, fresh[n]) for n, p in trained.items() if n.endswith("_proj.weight"))


@pytest.mark.parametrize(("stage", "blocks"), [(1, 1), (2, 3)])
def test_an_arm_may_name_a_stage(experts, stage, blocks):
    assert make_model(experts[1], f"{GROWN}@{stage}", seed=0).config.num_hidden_layers == blocks


def test_a_model_that_the_other_study_lacks_is_named(tmp_path):
    with pytest.raises(SystemExit, match=f"no finished '{GROWN}' of seed 2; run eval.studies.emergence first"):
        start_of(UNTRAINED, 2, tmp_path, emergence.SMOKE)


def test_no_article_is_in_two_parts(experts, data):
    parts = load_parts(experts[1], data, SMOKE)
    articles = [{example.question.article for example in part} for part in parts]
    assert len(set.union(*articles)) == sum(map(len, articles)) and all(articles)
    assert [len(part) for part in parts] == [SMOKE.train, SMOKE.kept, SMOKE.test]


def test_runs_and_their_report(experts, data):
    """Two arms, the better one at the rate that is best for kept articles; then the table."""
    folder, arms, rates = experts[1], (GROWN, UNTRAINED), rates_of(SMOKE)
    found = {arm: fine_tune(folder, data, SMOKE, arm, 1e-2, 0) for arm in arms}
    for run in found.values():
        assert (run["blocks"], len(run["test"]["f1"]), -1 <= run["development"] <= 0) == (3, SMOKE.test, True)
        assert all(0 <= value <= 1 for value in run["test"]["f1"])
    results = {(arm, rate, 0): run for arm, run in found.items() for rate in rates}
    right = {"exact": [1.0] * SMOKE.test, "f1": [1.0] * SMOKE.test}
    results[GROWN, rates[1], 0] = found[GROWN] | {"test": right, "development": -2.0}
    report = summarise(results, SMOKE, arms, [0], baselines(folder, data, SMOKE)) | circumstances([])
    grown, untrained = report["arms"][GROWN], report["arms"][UNTRAINED]
    assert (grown["f1"]["loss"], grown["exact"]["loss"]) == (100.0, 100.0)
    expected = 100 - 100 * sum(found[UNTRAINED]["test"]["f1"]) / SMOKE.test
    assert grown["minus"][UNTRAINED]["difference"] == pytest.approx(expected)
    assert untrained["minus"] == {UNTRAINED: None}
    assert len(report["baselines"]) == 2 and report["articles"] == 3
    text = as_markdown(report)
    assert f"| {GROWN} | 3 |" in text and "| random span |" in text
    with pytest.raises(SystemExit, match="run the study first"):
        summarise({}, SMOKE, arms, [0], baselines(folder, data, SMOKE))
