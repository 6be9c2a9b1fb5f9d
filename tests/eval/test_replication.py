"""The replication table: verdicts on made-up numbers on each side of every limit; it follows its files."""

import json
import shutil
from pathlib import Path

import pytest

import eval.replication.__main__ as replication
from eval.replication import rules

EVAL = Path(__file__).parents[2] / "eval"


def verdict(*estimates):
    claim = rules.Claim("", [rules.Estimate("x", *estimate) for estimate in estimates], "")
    return claim.verdict, claim.why


CLEAR = (-0.2, -0.3, -0.1, [-0.21, -0.19, -0.2], "below")
CONTRARY = (0.2, 0.1, 0.3, [0.21, 0.19, 0.2], "below")
OPEN = "cannot be told at this scale"


@pytest.mark.parametrize(
    ("estimates", "expected", "why"),
    [
        ([CLEAR], "holds", "certain"),
        ([CLEAR, CLEAR], "holds", "certain"),
        ([CONTRARY], "does not hold", "the contrary is certain: x"),
        ([CLEAR, CONTRARY], "does not hold", "the contrary is certain: x"),
        ([(-0.2, -0.3, 0.001, [-0.21, -0.19, -0.2], "below")], OPEN, "open over the text: x"),
        ([(-0.2, -0.3, -0.1, [-0.3, -0.1, -0.2], "below")], OPEN, "open between seeds: x"),  # t: 4.3, half 0.248
        ([(0.2, 0.1, 0.3, [0.3, 0.1, 0.2], "below")], OPEN, "open between seeds: x"),
        ([(-0.2, -0.3, -0.1, [-0.2], "below")], OPEN, "fewer than 3 seeds: x"),
        ([(0.2, 0.1, 0.3, [0.2], "below")], OPEN, "fewer than 3 seeds: x"),
        ([(0.0, 0.0, 0.0, [0.0, 0.0, 0], "above")], OPEN, "open over the text: x"),
        ([], OPEN, "not measured"),
        ([(0.2, 0.1, 0.3, [0.21, 0.19, 0.2], "above")], "holds", "certain"),
        ([(-0.2, -0.3, -0.1, [-0.21, -0.19, -0.2], "above")], "does not hold", "the contrary is certain: x"),
        (
            [(0.005, 0.001, 0.009, [0.0051, 0.0049, 0.005], "below", 0.01)],
            "holds",
            "certain",
        ),  # worse, but within the margin
        (
            [(0.015, 0.011, 0.019, [0.0151, 0.0149, 0.015], "below", 0.01)],
            "does not hold",
            "the contrary is certain: x",
        ),
    ],
)
def test_verdict_on_each_side_of_a_limit(estimates, expected, why):
    assert verdict(*estimates) == (expected, why)


def test_interval_between_seeds_is_students():
    found = rules.Estimate.between_seeds("x", [0.1, 0.2, 0.3], "above")
    assert (found.value, found.low) == (pytest.approx(0.2), pytest.approx(0.2 - 4.302653 * 0.1 / 3**0.5))
    assert not found.claimed  # all seeds rise, but three of them say too little
    assert rules.Estimate.between_seeds("x", [0.19, 0.2, 0.21], "above").claimed
    assert not rules.Estimate.between_seeds("x", [0.2], "above").claimed
    eleven = rules.Estimate.between_seeds("x", [0.15] * 5 + [0.2] + [0.25] * 5, "above")
    assert (eleven.low, eleven.high) == pytest.approx(
        (0.2 - 2.228139 * 0.05 / 11**0.5, 0.2 + 2.228139 * 0.05 / 11**0.5)
    )


def test_rank_trend_is_exact():
    assert rules.rank_trend([1, 2, 3, 4]) == (1.0, pytest.approx(2 / 24))
    assert rules.rank_trend([4, 3, 2, 1]) == (-1.0, pytest.approx(2 / 24))
    correlation, p_value = rules.rank_trend([2, 1, 4, 3])  # squared differences 4: 1 - 6 * 4 / 60
    assert correlation == pytest.approx(0.6) and p_value == pytest.approx(10 / 24)


def test_stored_table_follows_the_results():
    claims = replication.all_claims(EVAL / "results")
    stored = json.loads((EVAL / "replication.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(replication.as_json(claims))), "run `python -m eval.replication`"
    assert (EVAL / "replication.md").read_text("utf-8") == replication.as_markdown(claims)


def test_verdicts_change_with_the_numbers(tmp_path):
    folder = shutil.copytree(EVAL / "results", tmp_path / "results")
    content = json.loads((folder / "growth-study.json").read_text("utf-8"))
    rise = {"difference": 0.1, "low": 0.05, "high": 0.15, "by_seed": [0.1, 0.1, 0.1]}
    content["depth"][2]["against_stage_before"] = rise
    content["depth"][3]["trainable_parameters"] *= 2
    (folder / "growth-study.json").write_text(json.dumps(content), "utf-8")
    before, after = (replication.all_claims(of)["Growing and its bounded budget"] for of in (EVAL / "results", folder))
    assert [claim.verdict for claim in before[:2]] == ["holds", "holds"]
    assert [claim.verdict for claim in after[:2]] == ["does not hold", "does not hold"]
    assert after[0].why == "the contrary is certain: 2 to 3 blocks"


def test_missing_results_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"growth-study\.json"):
        replication.all_claims(tmp_path)
