"""Scores, losses, comparisons and trends from per-item parts, against sums and resamples written out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from frozen_glyph.evaluation.measurements import TaskPart, TextPart
from frozen_glyph.evaluation.report.compare import adjust, compare_losses, compare_runs, compare_scores, trends
from frozen_glyph.evaluation.report.schema import Comparison
from frozen_glyph.evaluation.report.summarise import (
    ALL_TEXTS,
    pool_texts,
    summarise_loss,
    summarise_runs,
    summarise_task,
)
from frozen_glyph.statistics import binomial_interval, holm

SENTENCES = [
    ("the cat sat on the mat today", "the cat sat on the mat"),
    ("a dog barks at the moon", "the dog barks at the full moon"),
    ("nothing fits here at all", "it is raining in the city"),
    ("we will meet again tomorrow morning", "we will meet again tomorrow"),
    ("she reads an old book of tales", "she reads an old book of fairy tales"),
    ("the river is wide and slow", "the river here is wide and slow"),
]


def task_part(values: list[float], groups: list[str] | None = None, items: str = "same") -> TaskPart:
    part: TaskPart = {"protocol": "p", "values": {"acc": values}, "options": [4] * len(values), "items": items}
    if groups is not None:
        part["groups"] = groups
    return part


def bleu_part(sentences: list[tuple[str, str]] = SENTENCES) -> TaskPart:
    hypotheses, references = (list(column) for column in zip(*sentences, strict=True))
    translations = {"hypotheses": hypotheses, "references": references, "tokenize": "13a"}
    return {
        "protocol": "published protocol", "values": {}, "options": None, "items": "same", "published": True,
        "translations": translations,  # type: ignore[typeddict-item]
    }  # fmt: skip


def text_part(nats: list[float]) -> TextPart:
    return {
        "nats": nats,
        "characters": [10, 20, 10, 15],
        "bytes": [20, 25, 20, 30],
        "documents": [0, 1, 2, 3],
        "tokens": 9,
    }


def test_groups_are_exact_and_add_up() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    (score,) = summarise_task("m", "t", task_part(values, list("aababba")))
    groups = {group["group"]: group for group in score["groups"]}
    assert list(groups) == ["a", "b"]
    assert (groups["a"]["correct"], groups["a"]["total"]) == (3, 4)
    assert (groups["a"]["low"], groups["a"]["high"]) == binomial_interval(3, 4)
    assert sum(group["correct"] for group in groups.values()) == score["correct"] == 4
    assert "published" not in score and "runs" not in score
    assert "groups" not in summarise_task("m", "t", task_part(values))[0]


def test_a_score_that_a_constant_answer_reaches_is_not_called_above_chance() -> None:
    part = task_part([1.0] * 62 + [0.0] * 38)
    assert summarise_task("m", "t", part)[0]["verdict"] == "above chance"
    part["baselines"] = {"always 'yes'": 0.62, "the shortest answer": 0.1}
    (score,) = summarise_task("m", "t", part)
    assert score["verdict"] == "not above always 'yes'" and score["baselines"] == part["baselines"]
    part["baselines"] = {"always 'yes'": 0.3}
    assert summarise_task("m", "t", part)[0]["verdict"] == "above chance"


def test_ten_runs_keep_both_intervals() -> None:
    generator = np.random.default_rng(0)
    ability = generator.uniform(0.0, 0.6, size=200)
    runs = [(generator.uniform(size=200) < ability).astype(float) for _ in range(10)]
    parts = [task_part(run.tolist(), ["g"] * 200) for run in runs]
    (score,) = summarise_runs("m", "t", parts)
    means = [run.mean() for run in runs]
    assert score["runs"] == pytest.approx(means)
    assert score["value"] == pytest.approx(np.mean(means)) == score["groups"][0]["value"]
    half = 2.2622 * np.std(means, ddof=1) / math.sqrt(10)
    assert (score["runs_low"], score["runs_high"]) == pytest.approx(
        (np.mean(means) - half, np.mean(means) + half), 1e-4
    )
    spread = 1.96 * np.mean(runs, axis=0).std() / math.sqrt(200)
    assert (score["low"], score["high"]) == pytest.approx((np.mean(means) - spread, np.mean(means) + spread), abs=0.005)
    # Items differ in what they ask, so another choice of items moves the score more than another ten draws.
    assert score["high"] - score["low"] > score["runs_high"] - score["runs_low"]
    with pytest.raises(ValueError, match="different items"):
        summarise_runs("m", "t", [parts[0], task_part([1.0], items="other")])


def test_bleu_is_sacrebleus_and_its_interval_a_bootstrap_over_sentences() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")

    def corpus(rows: list[int]) -> float:
        hypotheses, references = zip(*(SENTENCES[row] for row in rows), strict=True)
        return sacrebleu.corpus_bleu(hypotheses, [references]).score / 100

    (score,) = summarise_task("m", "t", bleu_part())
    assert score["value"] == pytest.approx(corpus([*range(6)]))
    assert (score["metric"], score["correct"], score["total"], score["chance"]) == ("bleu", None, 6, None)
    assert score["published"] and "tok:13a" in score["protocol"] and "version:" in score["protocol"]
    draws = np.random.default_rng(1).integers(0, 6, size=(1500, 6)).tolist()
    tail = stats.norm.cdf(-np.sqrt(6 / 5) * stats.t.ppf(0.975, 5))
    expected = np.quantile([corpus(rows) for rows in draws], [tail, 1 - tail])
    assert (score["low"], score["high"]) == pytest.approx(expected, abs=0.05)


def test_bleu_of_runs_is_their_mean_and_pairs_are_drawn_together() -> None:
    pytest.importorskip("sacrebleu")
    worse = bleu_part([("so " + hypothesis, reference) for hypothesis, reference in SENTENCES])
    (one,), (other,) = summarise_task("m", "t", bleu_part()), summarise_task("m", "t", worse)
    (both,) = summarise_runs("m", "t", [bleu_part(), worse])
    assert both["runs"] == [one["value"], other["value"]]
    assert both["value"] == pytest.approx((one["value"] + other["value"]) / 2)
    found = compare_scores("t", ("worse", worse), ("m", bleu_part()))
    assert found is not None and "effect" not in found
    assert found["difference"] == pytest.approx(one["value"] - other["value"])
    assert found["low"] >= 0 and found["high"] - found["low"] < one["high"] - one["low"]
    few = compare_scores("t", ("worse", bleu_part(SENTENCES[:4])), ("m", bleu_part(SENTENCES[:4])))
    assert few is not None and few["p_value"] is None and math.isnan(few["low"])


def test_bits_per_byte_are_nats_over_bytes_inside_their_interval() -> None:
    loss = summarise_loss("m", "t", text_part([20.0, 30.0, 25.0, 31.0]))
    bits = loss["bits_per_byte"]
    assert bits["value"] == pytest.approx(106 / 95 / math.log(2))
    assert bits["low"] < bits["value"] < bits["high"]


def test_documents_are_the_units_of_a_text() -> None:
    """Many windows of few documents tell no more than the documents; of one document its passages are told of."""
    noise = np.random.default_rng(0).normal(0, 1, 60)

    def compared(count: int) -> Comparison:
        documents = sorted(place % count for place in range(60))
        sizes = [10] * 60

        def part(nats: list[float | None]) -> TextPart:
            return {"nats": nats, "characters": sizes, "bytes": sizes, "documents": documents, "tokens": 60}

        assert summarise_loss("m", "t", part([20.0] * 60))["documents"] == count
        found = compare_losses("t", ("a", part([20.0] * 60)), ("b", part((17 + noise).tolist())))
        assert found is not None
        return found

    few, many, single = compared(4), compared(30), compared(1)
    assert few["p_value"] is None and few["test"] == "studentised bootstrap over 4 documents"
    assert many["p_value"] is not None and many["p_value"] < 0.01
    assert many["test"] == "studentised bootstrap over 30 documents"
    assert single["test"].endswith("passages of one document")
    rows, _ = adjust([few, many], [])
    assert [row["adjusted_p"] for row in rows] == [None, many["p_value"]]


def test_pooled_texts_keep_their_documents_apart() -> None:
    pooled = pool_texts({"en": text_part([1, 2, 3, 4]), "ru": text_part([5, 6, 7, 8])})[ALL_TEXTS]
    assert pooled["documents"] == list(range(8)) and pooled["nats"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_comparisons_carry_the_effect_that_fits_their_test() -> None:
    right = compare_scores("t", ("a", task_part([1, 0, 0, 0, 1, 1])), ("b", task_part([1, 1, 1, 1, 0, 1])))
    assert right is not None and right["test"] == "exact McNemar test"
    assert (right["effect_name"], right["effect"]) == ("Cohen's g", 0.25)
    same = compare_scores("t", ("a", task_part([1, 0])), ("b", task_part([1, 0])))
    assert same is not None and same["p_value"] == 1.0 and "effect" not in same
    runs = [task_part([1, 0, 0, 1]), task_part([0, 0, 1, 1])]
    sampled = compare_runs("t", ("a", runs), ("b", [task_part([1, 1, 1, 1]), task_part([1, 0, 1, 1])]))
    assert sampled is not None and sampled["difference"] == pytest.approx(3 / 8)
    assert sampled["effect"] == pytest.approx(np.mean([0.5, 0.5, 0.5, 0]) / np.std([0.5, 0.5, 0.5, 0], ddof=1))
    loss = compare_losses("t", ("a", text_part([20, 30, 25, 31])), ("b", text_part([18, 29, 25, 28])))
    assert loss is not None and loss["effect_name"] == "Cohen's d"
    per_character = [-0.2, -0.05, 0.0, -0.2]
    assert loss["effect"] == pytest.approx(np.mean(per_character) / np.std(per_character, ddof=1))
    assert compare_scores("t", ("a", task_part([1])), ("b", task_part([1], items="other"))) is None


def test_items_about_one_text_are_one_unit_of_score_comparison_and_trend() -> None:
    """Ten questions of each of eight articles, all answered alike: eight units, whatever the number of questions."""
    by_article = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    clusters = np.repeat(range(8), 10).tolist()
    better, worse = ({**task_part(np.repeat(v, 10).tolist()), "clusters": clusters} for v in (by_article, [0.0] * 8))
    (score,), (alone,) = (summarise_task("m", "t", {**better, **own}) for own in ({}, {"clusters": [*range(80)]}))
    few = binomial_interval(6, 8)
    assert score["low"] <= few.low + 0.02 < alone["low"] - 0.15 and score["high"] >= few.high - 0.02
    found = compare_scores("t", ("worse", worse), ("better", better))
    assert found is not None and found["test"] == "studentised bootstrap over 8 texts that the items are about"
    assert found["p_value"] is not None and found["p_value"] > 0.01 and found["effect_name"] == "Cohen's g"
    (trend,) = trends("m", [1, 2], [{}, {}], [{"t": worse}, {"t": better}])
    assert trend["p_value"] == found["p_value"] and "8 texts" in trend["test"]
    two = {**task_part([1.0, 1.0, 0.0, 0.0]), "clusters": [0, 0, 1, 1]}
    (score,) = summarise_task("m", "t", two)
    assert math.isnan(score["low"]) and score["verdict"] == "too few items to tell"


def test_models_that_agree_on_every_item_may_differ_on_others() -> None:
    part = task_part([1.0, 0.0] * 10)
    found = compare_scores("t", ("a", part), ("b", part))
    most = binomial_interval(0, 20).high
    assert found is not None and (found["low"], found["high"], found["p_value"]) == (-most, most, 1.0)


def test_stages_without_a_new_block_have_no_trend() -> None:
    assert trends("m", [2, 2], [{"x": text_part([1.0] * 4)}] * 2) == []


def test_trends_are_slopes_over_depth_and_need_the_same_items() -> None:
    texts = [{"ru": text_part([20 - depth, 30 - depth, 25.0, 31 - depth])} for depth in (2, 4, 9)]
    tasks = [
        {"t": task_part(values), "odd": task_part(values, items=str(values)), "bleu": bleu_part()}
        for values in ([0.0, 0, 0, 1], [0, 1, 0, 1], [1, 1, 1, 1])
    ]
    loss, score = trends("m", [2, 4, 9], texts, tasks)
    assert (loss["kind"], loss["name"], score["kind"], score["name"]) == ("loss", "ru", "score", "t")
    assert loss["value"] == pytest.approx(-3 / 55)
    assert score["value"] == pytest.approx(np.polyfit([2, 4, 9], [0.25, 0.5, 1.0], 1)[0])
    assert score["low"] <= score["value"] <= score["high"] and score["p_value"] is None  # four items
    assert trends("m", [1, 2], [{}, {}]) == []


def test_holm_runs_over_everything_in_the_report() -> None:
    comparison = compare_scores("t", ("a", task_part([1, 0, 0, 0, 1])), ("b", task_part([1, 1, 1, 1, 1])))
    assert comparison is not None
    slopes = trends("m", [1, 2], [], [{"t": task_part([0, 0, 0, 1])}, {"t": task_part([1, 1, 1, 1])}])
    comparisons, adjusted = adjust([comparison, comparison], slopes)
    expected = holm([comparison["p_value"]] * 2 + [slopes[0]["p_value"]])
    assert [row["adjusted_p"] for row in [*comparisons, *adjusted]] == expected
    assert "adjusted_p" not in comparison
    assert adjust([], []) == ([], [])
