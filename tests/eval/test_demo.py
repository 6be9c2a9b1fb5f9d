"""The table of several demo runs: which losses fall at every stage, and the merged model beside its experts."""

import json
import sys

import eval.studies.demo.__main__ as study


def report_of(seed, losses):
    """A demo's report of one expert with a loss for each stage on one text."""
    text = {"low": 0.0, "high": 3.0}
    stages = [
        {
            "num_hidden_layers": blocks,
            "losses": {"ru": {"value": loss, **text}},
            "scores": {"copy": {"value": 0.1, **text, "total": 9, "chance": 0.5}},
        }
        for blocks, loss in enumerate(losses, start=1)
    ]
    difference = {"difference": -0.25, "low": -0.5, "high": 0.0}
    return {
        "provenance": {"seed": seed, "settings": {"steps per stage": 2}},
        "note": "synthetic",
        "growth": {"ru": stages},
        "losses": [{"model": "merged (mean)", "text": "ru", "characters": 10, "value": 1.0, **text}],
        "trends": [{"name": "copy", "model": "ru", "value": 0.1, "low": 0.05, "high": 0.2}],
        "comparisons": [{"kind": "loss", "name": "ru", "first": "ru", "second": "merged (mean)", **difference}],
    }


def test_each_seed_says_whether_its_loss_falls_at_every_stage(tmp_path, monkeypatch):
    folders = []
    for seed, losses in ((0, [3.0, 2.0, 1.0]), (1, [3.0, 1.0, 2.0])):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        (folders[-1] / "report.json").write_text(json.dumps(report_of(seed, losses)), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, folders), "--out", str(tmp_path / "out")])
    study.main()
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    by_stage = report["Held-out loss by growth stage (nats per character)"]
    assert {(row["seed"], row["falls at every stage"]) for row in by_stage} == {("0", "yes"), ("1", "no")}
    ability = report["Ability, first and last stage (share right)"]
    assert {row["difference"] for row in ability} == {"+0.200 [+0.100, +0.400]"}  # two blocks more
    (merged, _) = report["Merged model against its experts (nats per character)"]
    assert merged["minus ru"] == "-0.250 [-0.500, +0.000]"
    cells, task, loss = report["All seeds"]
    assert cells["difference"].startswith("ability, all cells") and task["mean"] == cells["mean"] == "+0.000"
    assert loss["by seed"] == "-0.250, -0.250" and loss["95% interval between seeds"] == "3 seeds needed, 2 run"
    assert "# Demo, seeds 0, 1" in (tmp_path / "out.md").read_text("utf-8")
