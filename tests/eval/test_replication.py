"""The replication table: verdicts on made-up numbers on each side of every limit; it follows its files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

import eval.replication.__main__ as replication
from eval.replication import claims, rules

EVAL = Path(__file__).parents[2] / "eval"
OPEN = "cannot be told at this scale"
ANY = rules.Claim("", "", lambda study: [], "")


def estimate(value=-0.2, half=0.05, spread=0.01, side="below", limit=0.0, units=40, seeds=3):
    by_seed = [value + spread * (place - (seeds - 1) / 2) for place in range(seeds)]
    low, high = (None, None) if half is None else (value - half, value + half)
    return rules.Estimate("x", value, low, high, units, by_seed, side, limit)


def verdict(*estimates):
    (row,) = rules.judged([rules.Row(ANY, list(estimates))])
    return row.verdict, row.why


CLEAR, CONTRARY = estimate(), estimate(0.2)


@pytest.mark.parametrize(
    ("estimates", "expected", "why"),
    [
        ([CLEAR], "holds", "adjusted p"),
        ([CLEAR, CLEAR], "holds", "adjusted p"),
        ([CONTRARY], "does not hold", "adjusted p"),
        ([CONTRARY, CONTRARY], "does not hold", "adjusted p"),
        ([CLEAR, CONTRARY], OPEN, "both sides"),
        ([estimate(half=0.21)], OPEN, "adjusted p = 0.06"),
        ([estimate(0.2, half=0.21)], OPEN, "adjusted p = 0.06"),
        ([estimate(spread=0.2)], OPEN, "adjusted p = 0.2"),
        ([CLEAR, estimate(spread=0.2)], OPEN, "adjusted p = 0.2"),
        ([estimate(seeds=2)], OPEN, "2 of at least 3 seeds"),
        ([estimate(0.2, seeds=1)], OPEN, "1 of at least 3 seeds"),
        ([estimate(units=5)], OPEN, "no interval over enough documents"),
        ([estimate(half=None)], OPEN, "no interval over enough documents"),
        ([estimate(half=None, units=None)], "holds", "adjusted p"),  # each seed has text of its own
        ([estimate(0.0, half=0.0, spread=0.0)], OPEN, "adjusted p = 1.0"),
        ([estimate(0.2, side="above")], "holds", "adjusted p"),
        ([estimate(side="above")], "does not hold", "adjusted p"),
        ([estimate(0.005, half=0.003, spread=0.0005, limit=0.01)], "holds", "adjusted p"),  # within the margin
        ([estimate(0.015, half=0.003, spread=0.0005, limit=0.01)], "does not hold", "adjusted p"),
    ],
)
def test_verdict_on_each_side_of_a_limit(estimates, expected, why):
    """Both verdicts by one rule: every estimate on one side, over text and between seeds."""
    found = verdict(*estimates)
    assert found[0] == expected and why in found[1]


def test_a_row_without_results_is_open():
    (row,) = rules.judged([rules.Row(ANY, None)])
    assert (row.verdict, row.why) == (OPEN, "results withdrawn or not there yet")


def test_p_values_are_students():
    by_seed = [-0.3, -0.1, -0.15, -0.2]
    found = replace(CLEAR, by_seed=by_seed)
    assert found.p_between_seeds == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    # The facing end of the interval lies on the limit: exactly 0.05.
    assert replace(CLEAR, low=-0.9, high=0.0).p_over_text == pytest.approx(0.05)
    assert replace(CONTRARY, low=0.0, high=0.9).p_over_text == pytest.approx(0.05)
    assert found.p_value == max(found.p_between_seeds, found.p_over_text)


def test_rows_of_a_list_are_corrected_for_their_number():
    one = rules.Row(ANY, [estimate(spread=0.075)])  # p between seeds about 0.04
    assert rules.judged([one])[0].verdict == "holds"
    many = rules.judged([one, one, rules.Row(ANY, None)])
    assert [row.verdict for row in many] == [OPEN] * 3
    assert many[0].adjusted_p == pytest.approx(2 * one.p_value)


def test_rank_trend_is_exact():
    assert rules.rank_trend([1, 2, 3, 4]) == (1.0, pytest.approx(2 / 24))
    assert rules.rank_trend([4, 3, 2, 1]) == (-1.0, pytest.approx(2 / 24))
    correlation, p_value = rules.rank_trend([2, 1, 4, 3])  # squared differences 4: 1 - 6 * 4 / 60
    assert correlation == pytest.approx(0.6) and p_value == pytest.approx(10 / 24)


def test_published_claims_name_paper_and_figure_and_questions_do_not():
    assert all(claim.published and claim.source for claim in claims.PUBLISHED)
    assert not any(claim.published or claim.source for claim in claims.QUESTIONS)
    assert all((EVAL.parent / each.test).exists() for each in claims.GUARANTEES)


def test_stored_table_follows_the_results():
    rows = replication.all_rows(EVAL / "results")
    stored = json.loads((EVAL / "replication.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(replication.as_json(rows))), "run `python -m eval.replication`"
    assert (EVAL / "replication.md").read_text("utf-8") == replication.as_markdown(rows)


def test_verdicts_change_with_the_numbers(tmp_path):
    folder = shutil.copytree(EVAL / "results", tmp_path / "results")
    entry = {"difference": -0.1, "low": -0.15, "high": -0.05, "units": 40, "by_seed": [-0.1, -0.11, -0.09]}

    def verdict_of(step):
        arm = {"arm": "newest-identity"}
        study = {
            "depth": [arm | {"blocks": 1}, arm | {"blocks": 2, "against_stage_before": step}],
            "arms": {"newest-carried": {"minus": {"one-block": entry}}},  # the others have not run
        }
        (folder / "growth-study.json").write_text(json.dumps(study), "utf-8")
        return replication.all_rows(folder)["Published claims"][0].verdict

    assert verdict_of(entry) == "holds"
    rise = {key: [-each for each in value] if key == "by_seed" else value for key, value in entry.items()}
    assert verdict_of(rise | {"difference": 0.1, "low": 0.05, "high": 0.15}) == "does not hold"
    (folder / "growth-study.json").unlink()
    assert replication.all_rows(folder)["Published claims"][0].estimates is None
