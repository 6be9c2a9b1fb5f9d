"""The runs of the demo's study: a demo, and beside each of its experts the control, one block trained on."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from eval.studies.common.training import flops_of
from frozen_glyph import grow_from_recipe
from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.demo.documents import EXPERTS
from frozen_glyph.demo.run import demo_recipe, run_demo
from frozen_glyph.evaluation.evaluate import HUB, evaluate_models
from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.growth.recipe import GrowthRecipe

TINY_STEPS = 2  # of ``--smoke``


def control_of(recipe: GrowthRecipe) -> GrowthRecipe:
    """One block trained through all stages: steps, rates and seeds are the same, and no block is new."""
    first, *later = recipe.stages
    no_new_blocks = [dataclasses.replace(stage, layers=0) for stage in later]
    return dataclasses.replace(recipe, name=f"{recipe.name}-one-block", stages=[first, *no_new_blocks])


def run_seed(seed: int, steps: int, work: Path) -> dict[str, Any]:
    """``experts`` beside their controls (``cells_of``); ``merged``: the differences of its losses from each expert's;
    ``flops`` of growing and of the control. What was finished is kept, a run that was stopped goes on."""
    demo, control = work / f"demo-{seed}", work / f"one-block-{seed}"
    run_demo(demo, seed, steps=steps)
    recipes = {expert: demo_recipe(expert, seed, steps) for expert in EXPERTS}
    for expert, recipe in recipes.items():
        training_text = [demo / "data" / f"{expert}.txt"]
        grow_from_recipe(control_of(recipe), control / expert, training_text, substrate=demo / "substrate")
    evaluate_models(
        [control / expert for expert in EXPERTS],
        HUB,
        control,
        tasks=sorted(path.stem for path in (demo / "tasks").glob("*.yaml")),
        task_folders=[demo / "tasks"],
        texts=sorted((demo / "data").glob("*.valid.txt")),
        every_stage=False,
        seed=seed,
        answers=False,
    )
    report, beside = (shown(read_json(folder / "report.json")) for folder in (demo, control))
    return {
        "experts": {expert: cells_of(expert, stages, beside) for expert, stages in report["growth"].items()},
        "merged": [
            {"rule": row["second"], "text": row["name"], "expert": row["first"], "difference": row["difference"]}
            for row in report["comparisons"]
            if row["kind"] == "loss"
        ],
        "characters": {loss["text"]: loss["characters"] for loss in report["losses"]},
        "note": report["note"],
        "flops": {
            "grown": sum(map(flops_of, recipes.values())),
            "one-block": sum(flops_of(control_of(recipe)) for recipe in recipes.values()),
        },
        "cpu_seconds": time.process_time(),
    }


def cells_of(expert: str, stages: list[dict[str, Any]], beside: dict[str, Any]) -> dict[str, Any]:
    """``losses`` by text and ``scores`` by task of what the expert was trained for: ``grown`` stage by stage, and its
    ``control`` of as many tokens as the last; of a task also ``items`` and ``chance``."""
    losses = {row["text"]: row["value"] for row in beside["losses"] if row["model"] == expert}
    scores = {row["task"]: row["value"] for row in beside["scores"] if row["model"] == expert}
    return {
        "blocks": [stage["num_hidden_layers"] for stage in stages],
        "losses": {
            text: {"grown": [stage["losses"][text]["value"] for stage in stages], "control": losses[text]}
            for text in stages[0]["losses"]
        },
        "scores": {
            task: {
                "grown": [stage["scores"][task]["value"] for stage in stages],
                "control": scores[task],
                "items": score["total"],
                "chance": score["chance"],
            }
            for task, score in stages[0]["scores"].items()
        },
    }
