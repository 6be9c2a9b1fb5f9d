"""The SQuAD-by-depth report: slopes over depth of made-up scores."""

import pytest

from eval.studies.common.tables import circumstances
from eval.studies.squad.report import METRICS, as_markdown, summarise


def results_of(share_right):
    """One seed, blocks 1, 2 and 4; ``share_right(blocks)`` of ten questions are right under every metric."""
    blocks, questions = [1, 2, 4], 10
    scores = [[float(question < questions * share_right(depth)) for question in range(questions)] for depth in blocks]
    articles = {"paper_squad": None, "fg_squad": [*range(8), 7, 7]}
    tasks = {task: dict.fromkeys(metrics, scores) for task, metrics in METRICS.items()}
    run = {"blocks": blocks, "scores": tasks, "articles": articles, "cpu_seconds": 1.0}
    control = run | {"scores": {task: {key: [scores[0]] for key in metrics} for task, metrics in METRICS.items()}}
    return {(arm, seed): own for arm, own in (("newest-carried", run), ("one-block", control)) for seed in (0, 1)}


def test_slope_is_the_gain_of_one_block():
    report = summarise(results_of(lambda blocks: 0.2 * blocks), "newest-carried", ["one-block"]) | circumstances([])
    for task, metrics in report["tasks"].items():
        for metric, found in metrics.items():
            assert [entry["value"] for entry in found["by_depth"]] == pytest.approx([0.2, 0.4, 0.8]), (task, metric)
            assert found["slope"]["value"] == pytest.approx(0.2)
            assert found["beside"]["one-block"]["value"] == pytest.approx(0.2)
            assert found["minus"]["one-block"]["value"] == pytest.approx(0.6)
            assert found["slope"]["by_seed"] == pytest.approx([0.2, 0.2])
        assert found["articles"] == (10 if task == "paper_squad" else 8)
    text = as_markdown(report)
    assert "+20.00" in text and "4 blocks" in text and "10 of 8 articles" in text
    alone, clustered = report["tasks"]["paper_squad"]["hit"]["slope"], report["tasks"]["fg_squad"]["f1"]["slope"]
    assert clustered["high"] - clustered["low"] > alone["high"] - alone["low"] and alone["low"] > 0


def test_nothing_right_at_any_depth_has_no_slope():
    slope = summarise(results_of(lambda blocks: 0), "newest-carried", ["one-block"])["tasks"]["fg_squad"][
        "exact_match"
    ]["slope"]
    assert (slope["value"], slope["low"], slope["high"]) == (0, 0, 0)
