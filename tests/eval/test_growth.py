"""The growth study: what its arms read and cost, one run of it, its report."""

import numpy as np
import pytest

from eval.studies.common.arms import rates_of
from eval.studies.common.ground import prepare_ground, source_file
from eval.studies.common.tables import circumstances
from eval.studies.common.training import flops_of
from eval.studies.growth.picture import draw, figure_of
from eval.studies.growth.report import as_markdown, summarise
from eval.studies.growth.runs import (
    ARMS,
    BEFORE,
    CONTROL,
    CORE,
    GROWN,
    MEMORY,
    RIVALS,
    SIZES,
    measure_memory,
    recipe_of,
    run_arm,
)
from frozen_glyph.growth.estimate import estimate, totals

SMOKE = SIZES["tiny"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """(data, work): texts and substrate of the tiny size."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    (data / "text").mkdir()
    sentence = "The cat sat on the mat, and the hat is on the cat.\n"
    source_file(data, "en").write_text(f"{sentence}\n" * 200, encoding="utf-8")
    source_file(data, "en", development=True).write_text(sentence * 12, encoding="utf-8")
    prepare_ground(data, ["en"], SMOKE, work)
    return data, work


@pytest.fixture(scope="module")
def result(ground):
    """A run of the control at the tiny size."""
    return run_arm(CONTROL, 2e-3, 0, SMOKE, *ground)


@pytest.mark.slow
def test_more_blocks_that_train_take_more_memory(ground):
    one, both = (measure_memory(arm, SMOKE, ground[1])["peak_mebibytes"] for arm in (CONTROL, "joint"))
    assert 0 < one < both


def test_arms_read_as_many_tokens_and_cost_what_they_say():
    recipes = {arm: recipe_of(arm, 0, SMOKE) for arm in ARMS}
    for arm in GROWN:
        assert [stage.layers for stage in recipes[arm].stages] == [1] * SMOKE.stages
    tokens = {arm: sum(stage.tokens for stage in recipe.stages) for arm, recipe in recipes.items()}
    every = SMOKE.stages * SMOKE.stage_tokens
    assert {tokens[arm] for arm in ARMS if not arm.endswith(("compute", "double"))} == {every}
    assert tokens["one-block-double"] == 2 * every
    flops = {arm: flops_of(recipe) for arm, recipe in recipes.items()}
    for arm in ("one-block-compute", "joint-compute"):
        assert flops[arm] == pytest.approx(flops["newest-carried"], rel=0.1)
    assert flops[CONTROL] < flops[BEFORE] == flops["newest-carried"] < flops["top-two"] < flops["joint"]
    assert flops["top-two"] < flops["stacking"] < flops["joint"] > flops["turns"]
    assert flops["turns"] < flops["lisa"] < flops["joint"] and flops["lora"] == flops["relora"]
    foretold = {arm: totals(estimate(recipe_of(arm, 0, SIZES["small"])))["memory_bytes"] for arm in ARMS}
    assert foretold["turns"] < foretold["lisa"] == foretold["segments"] < foretold["joint"] == foretold["relora-warm"]
    assert foretold["relora"] == foretold["lora"] < foretold["joint"]
    assert not [arm for arm in CORE if arm.startswith(RIVALS)] and all(
        any(arm.startswith(rival) for arm in ARMS) for rival in RIVALS
    )
    for scale in SIZES.values():
        assert all(recipe_of(arm, 0, scale) for arm in ARMS)
    scale = SIZES["saturated"]  # its first stage reads more
    for arm in ("newest-carried", CONTROL):
        first, *later = (stage.tokens for stage in recipe_of(arm, 0, scale).stages)
        assert first > sum(later) and sum([first, *later]) == recipe_of("joint", 0, scale).stages[0].tokens


def test_the_control_trains_its_one_block_on(result):
    assert [stage["blocks"] for stage in result["stages"]] == [1] * SMOKE.stages
    assert result["tokens"] == SMOKE.stages * SMOKE.stage_tokens and result["development"] > 0
    losses = [sum(stage["nats"]) / sum(stage["characters"]) for stage in result["stages"]]
    assert len(set(losses)) == SMOKE.stages  # it goes on learning
    assert len(set(result["stages"][0]["documents"])) >= 6
    assert len({stage["trainable_parameters"] for stage in result["stages"]}) == 1


def test_report_compares_at_the_same_seeds_and_leaves_out_what_is_not_done(tmp_path):
    """Made-up runs: each stage lowers the loss by 0.1, the control is better by 0.2, ``newest-copy`` lacks a seed."""
    base = np.random.default_rng(0).uniform(8, 12, 40)

    def run(shift, rate):
        stages = [
            {
                "blocks": stage + 1,
                "trainable_parameters": 7,
                "tokens": 5,
                "characters": [10.0] * 40,
                "documents": list(range(40)),
                "nats": (base + 10 * (shift - 0.1 * stage)).tolist(),
            }
            for stage in range(SMOKE.stages)
        ]
        cost = {"tokens": 1, "flops": 1e15, "seconds": 1.0, "foretold_mebibytes": 1}
        return {"stages": stages, "development": abs(rate - best)} | cost

    rates = rates_of(SMOKE)
    best, arms = rates[1], (BEFORE, CONTROL, "newest-copy")
    results = {(arm, rate, 0): run(-0.2 * (arm != BEFORE), rate) for arm in arms for rate in rates}
    results |= {(arm, best, seed): run(0.4 * seed - 0.2 * (arm != BEFORE), best) for arm in arms[:2] for seed in (1, 2)}
    results[CONTROL, MEMORY, 0] = {"peak_mebibytes": 7.5}
    report = summarise(results, SMOKE, list(ARMS), range(3))
    report |= circumstances([]) | {"picture": "growth.png"}
    assert list(report["arms"]) == [CONTROL, BEFORE]
    assert [row["against_stage_before"]["difference"] for row in report["depth"][1:]] == pytest.approx([-0.1, -0.1])
    assert [row["against_control"]["difference"] for row in report["depth"]] == pytest.approx([0.2] * 3)
    assert report["arms"][CONTROL]["minus"][BEFORE]["difference"] == pytest.approx(-0.2)
    assert report["arms"][BEFORE]["minus"][BEFORE] is None
    assert [stage["tokens"] for stage in report["arms"][CONTROL]["by_stage"]] == [5, 10, 15]
    draw(report, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    many = report | {"arms": {f"{arm} {number}": row for arm, row in report["arms"].items() for number in range(15)}}
    assert {text.get_text() for text in figure_of(many).legends[0].get_texts()} == many["arms"].keys()
    text = as_markdown(report)
    assert "](growth.png)" in text
    assert "-0.2000 (text -0.2000 to -0.2000; seeds -0.2000 to -0.2000: -0.2000, -0.2000, -0.2000)" in text
    assert "Not finished, so not reported: one-block-compute" in text and "newest-copy" in report["rates"]
    with pytest.raises(SystemExit, match="run the study first"):
        summarise({("newest-copy", best, 0): run(0.0, best)}, SMOKE, list(ARMS), range(3))
