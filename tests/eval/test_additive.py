"""The study of additive layers runs at a tiny size from runs to report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
