"""The study of additive layers runs at a tiny size from runs to report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import eval.studies.additive.layers as layers_module
from eval.studies.additive.runs import SMOKE
from frozen_glyph.model.configuration_frozen_glyph import LINEAR_KINDS

ROOT = Path(__file__).parents[2]


def test_of_single_layers_the_additive_one_has_rank_one(monkeypatch):
    monkeypatch.setattr(layers_module, "LINEAR_KINDS", [kind for kind in LINEAR_KINDS if kind != "compiled"])  # slow
    layers = layers_module.study_layers(SMOKE)
    ranks = {kind: entry["mixing_rank"] for kind, entry in layers["kinds"].items() if "mixing_rank" in entry}
    assert ranks["additive"] == pytest.approx(1, abs=1e-3) and ranks["matmul"] > 2
    assert layers["additive"]["fast_against_naive"] < 1e-4
    assert layers["additive"]["gradient_of_output_at_other_weights"] == 0
    assert layers["kinds"]["fused"]["forward_ratio"] > 0


@pytest.mark.slow
def test_the_study_runs_and_reports(real_data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "eval.studies.additive",
        "--smoke",
        "--seeds",
        "1",
        "--data",
        real_data,
        "--work",
        tmp_path / "work",
    ]
    subprocess.run([*map(str, command), "--out", str(tmp_path / "report")], cwd=ROOT, check=True, capture_output=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seeds"] == [0]
    assert report["health"]["additive"]["flagged"] == report["health"]["additive"]["blocks"] == 10
    assert report["health"]["matmul"]["flagged"] == 0
    assert all(entry["flagged"] == (name != "healthy") for name, entry in report["sick"].items())
    text = (tmp_path / "report.md").read_text()
    assert text.count("| additive |") == 3 and "statement by statement" in text
