"""The demo's study: what it says of all cells, of its control and of the merged model; one run, tiny but whole."""

import pytest
import torch

from eval.studies.common.tables import circumstances
from eval.studies.demo.report import as_markdown, summarise
from eval.studies.demo.runs import TINY_STEPS, control_of, run_seed
from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.demo.documents import EXPERTS
from frozen_glyph.demo.run import demo_recipe


def run_of(facts, extraction, control=0.25):
    """A run of one expert with two tasks; the merged model is better by a quarter."""
    scores = {"facts_ru": facts, "extraction": extraction}
    return {
        "experts": {
            "ru": {
                "losses": {"en": {"grown": [3.0, 2.0], "control": 1.5}},
                "scores": {
                    name: {"grown": grown, "control": control, "items": 9, "chance": 0.25}
                    for name, grown in scores.items()
                },
            }
        },
        "merged": [{"rule": "merged (mean)", "text": "en", "expert": "ru", "difference": -0.25}],
        "note": "Synthetic.",
        "flops": {"grown": 4.0, "one-block": 3.0},
        "cpu_seconds": 1.0,
    }


def test_all_cells_come_first_and_stand_beside_their_control():
    """One cell gains 0.6 and the other nothing: what is said first is 0.3, and what training on would have given."""
    runs = {("demo", seed): run_of([0.3, 0.9], [0.4, 0.4 + seed / 100], 0.5) for seed in range(3)}
    report = circumstances([]) | summarise(runs, 2)
    found = report["scores"]["differences"]
    assert list(found) == ["all cells", "facts", "extraction"]
    assert found["all cells"]["first"]["by_seed"] == pytest.approx([0.3, 0.305, 0.31])
    assert found["all cells"]["control"]["difference"] == pytest.approx(0.155)
    assert found["all cells"]["first"]["seeds_low"] > 0 > found["extraction"]["control"]["seeds_high"]
    assert report["losses"]["differences"]["en"]["control"]["difference"] == 0.5
    text = as_markdown(report)
    assert "| all cells | +0.305 (" in text and "0.75 of the FLOPs" in text
    few = as_markdown(circumstances([]) | summarise({("demo", 0): run_of([0.3, 0.9], [0.4, 0.4])}, 2))
    assert "3 seeds needed, 1 run" in few


@pytest.mark.slow
def test_the_control_begins_as_the_first_stage(tmp_path):
    """Nothing but the new blocks tells it from growing: after the first stage both are the same, bit for bit."""
    run = run_seed(0, TINY_STEPS, tmp_path)
    assert set(run["experts"]) == set(EXPERTS) and run["flops"]["one-block"] < run["flops"]["grown"]
    assert [stage.layers for stage in control_of(demo_recipe("ru", 0, TINY_STEPS)).stages] == [1, 0, 0]
    grown, control = (
        FrozenGlyphForCausalLM.from_pretrained(tmp_path / name / "ru", growth_stage=1).state_dict()
        for name in ("demo-0", "one-block-0")
    )
    assert all(torch.equal(grown[name], control[name]) for name in grown)
    assert "| all cells |" in as_markdown(circumstances([]) | summarise({("demo", 0): run}, TINY_STEPS))
