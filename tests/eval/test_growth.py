"""The growth study: what its variants read and cost, one run of it, its report."""

import numpy as np
import pytest

from eval.studies.common.ground import build_ground, text_file
from eval.studies.common.training import flops_of
from eval.studies.growth.report import VARIANTS, as_markdown, summarise
from eval.studies.growth.runs import SMOKE, recipe_of, run_variant


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run of ``grown-lora`` at the smoke scale."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    (data / "text").mkdir()
    sentence = "The cat sat on the mat, and the hat is on the cat.\n"
    text_file(data, "en").write_text(f"{sentence}\n" * 200, encoding="utf-8")
    text_file(data, "en", held_out=True).write_text(sentence * 12, encoding="utf-8")
    build_ground([text_file(data, "en")], SMOKE, work)
    return run_variant("grown-lora", 0, SMOKE, data, work)


def test_variants_differ_in_what_they_say_and_in_nothing_else():
    recipes = {variant: recipe_of(variant, 0, SMOKE) for variant in VARIANTS}
    assert all(recipe.training == recipes["grown"].training for recipe in recipes.values())
    for variant, recipe in recipes.items():
        layers = [stage.layers for stage in recipe.stages]
        assert layers == ([SMOKE.stages] if variant.startswith("monolithic") else [1] * SMOKE.stages)
    tokens = {variant: sum(stage.tokens for stage in recipe.stages) for variant, recipe in recipes.items()}
    assert tokens["monolithic-tokens"] == tokens["grown"] == tokens["grown-lora"] + recipes["grown-lora"].lora.tokens
    flops = {variant: flops_of(recipe) for variant, recipe in recipes.items()}
    assert flops["monolithic-compute"] == pytest.approx(flops["grown"], rel=0.1)
    assert flops["grown"] < flops["monolithic-tokens"]


def test_a_run_tells_every_stage(result):
    assert [stage["blocks"] for stage in result["stages"]] == [1, 2, 3]
    assert result["tokens"] == SMOKE.stages * SMOKE.stage_tokens
    assert all(sum(stage["nats"]) / sum(stage["characters"]) > 0 for stage in result["stages"])
    assert result["stages"][0]["trainable_parameters"] == result["stages"][1]["trainable_parameters"]


def test_report_compares_at_the_same_seeds():
    """Made-up runs: each stage lowers the loss by 0.1, and ``grown-copy`` (one seed) is better by 0.2."""
    characters = [10.0] * 40
    base = np.random.default_rng(0).uniform(8, 12, 40)

    def run(shift):
        stages = [
            {
                "blocks": stage + 1,
                "trainable_parameters": 7,
                "characters": characters,
                "documents": list(range(40)),
                "nats": (base + 10 * (shift - 0.1 * stage)).tolist(),
            }
            for stage in range(SMOKE.stages)
        ]
        return {"stages": stages, "tokens": 1, "flops": 1e15, "seconds": 1.0, "peak_mebibytes": 1}

    results = {("grown", 0): run(0.0), ("grown", 1): run(0.4), ("grown-copy", 0): run(-0.2)}
    report = summarise(results, SMOKE)
    assert [row["against_stage_before"]["difference"] for row in report["depth"][1:]] == pytest.approx([-0.1, -0.1])
    final = {row["variant"]: row["against_grown"] for row in report["final"]}
    assert final["grown"] is None and final["grown-copy"]["difference"] == pytest.approx(-0.2)
    assert "-0.2000 (text -0.2000 to -0.2000; seeds 3 seeds needed, 1 run: -0.2000)" in as_markdown(report)
    with pytest.raises(SystemExit, match="run the study first"):
        summarise({("grown-copy", 0): run(0.0)}, SMOKE)
