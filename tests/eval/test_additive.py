"""The study of additive layers runs at a tiny size from runs to report."""

from pathlib import Path

import pytest

import eval.studies.additive.layers as layers_module
import eval.studies.additive.report as report_module
import eval.studies.additive.runs as runs_module
from eval.studies.additive.report import HELPS, as_markdown, summarise, told
from eval.studies.additive.runs import ARMS, SMOKE, make_sick, prepare, train
from eval.studies.common.arms import rates_of
from eval.studies.common.tables import circumstances
from frozen_glyph.model.configuration_frozen_glyph import LINEAR_KINDS


@pytest.fixture(autouse=True)
def without_compiled(monkeypatch):
    """Compiling is slow, and torch warns while it does."""
    monkeypatch.setattr(layers_module, "LINEAR_KINDS", [kind for kind in LINEAR_KINDS if kind != "compiled"])
    for module in (runs_module, report_module):
        monkeypatch.setattr(module, "SAME", ("fused",))


def test_of_single_layers_the_additive_one_has_rank_one():
    layers = layers_module.study_layers(SMOKE)
    ranks = {kind: entry["mixing_rank"] for kind, entry in layers["kinds"].items() if "mixing_rank" in entry}
    assert ranks["additive"] == pytest.approx(1, abs=1e-3) and ranks["matmul"] > 2
    assert layers["additive"]["fast_against_naive"] < 1e-4
    assert layers["additive"]["gradient_of_output_at_other_weights"] == 0
    assert layers["kinds"]["fused"]["forward_ratio"] > 0


def test_depth_helps_where_text_and_seeds_say_so():
    clear = {"low": -0.3, "high": -0.1, "seeds_low": -0.4, "seeds_high": -0.05}
    assert told(clear) == HELPS
    assert told({name: -value for name, value in clear.items()}) == "depth harms"
    assert told(clear | {"seeds_high": 0.1}) == "not told from no difference"
    assert told(clear | {"seeds_low": None, "seeds_high": None}) == "too few documents or seeds to tell"


@pytest.mark.slow
def test_the_study_runs_and_reports(real_data, tmp_path):
    """Of two kinds, and each at one rate that stands for all three."""
    rates, arms = rates_of(SMOKE), [arm for arm in ARMS if arm.startswith(("matmul-", "additive-"))]
    prepare(SMOKE, Path(real_data), tmp_path)
    runs = {arm: train(arm, rates[1], 0, SMOKE, Path(real_data), tmp_path) for arm in arms}
    results = {
        (arm, rate, 0): run | {"development": run["development"] + abs(rate - rates[1])}
        for arm, run in runs.items()
        for rate in rates
    } | {("layer", 0): layers_module.study_layers(SMOKE), ("sick", 0): make_sick(rates[1], 0, SMOKE, tmp_path)}
    found = summarise(results, SMOKE, [0])
    assert list(found["losses"]) == ["matmul", "additive"] and f"matmul-2 {rates[1]:g}" in found["rates"]
    assert found["health"]["additive"]["flagged"] == found["health"]["additive"]["blocks"] == 10
    assert found["health"]["matmul"]["flagged"] == 0
    assert all(entry["flagged"] == (name != "healthy") for name, entry in found["sick"].items())
    text = as_markdown(circumstances([]) | found)
    assert text.count("| additive |") == 3 and "statement by statement" in text
    assert "additive: too few documents or seeds to tell" in text
