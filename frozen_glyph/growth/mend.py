"""What may change in the recipe of a run that has begun, and what may not: whatever would change its result.

What says how a step is computed, how often it is saved, or what is told of it may change at any time; stages may be
appended, unless the learning rate falls over all of them or in branches, or the first would carry moments over; and a
stage that diverged may begin again with a lower learning rate.
"""

import re
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import WORK_FOLDER
from frozen_glyph.growth.work_folder import PHASE
from frozen_glyph.recipes.changes import Change, differences
from frozen_glyph.training.recipe import FREE_FIELDS

# The last three follow from the stages.
FREE = re.compile(
    r"name|license|language|health|"
    rf"training\.({'|'.join(FREE_FIELDS)})|"
    r"model\.(num_hidden_layers|num_frozen_layers|ladder)"
)
RATE = re.compile(r"(training|stages\[\d+\]|lora)\.learning_rate")


def changed_fields(stored: dict[str, Any], recipe: dict[str, Any], out: Path) -> tuple[list[Change], list[Change]]:
    """(what differs and may, what differs and may not) between a run's provenance and a recipe as it is recorded."""
    before = stored.get("recipe", {})
    changes = differences(before, recipe)
    kept = len(before.get("stages", []))
    # The last stage that was planned kept no moments and no trunk for another.
    can_follow = recipe.get("decay", "stage") == "stage" and all(
        stage.get("optimizer") != "carried" for stage in recipe["stages"][kept : kept + 1]
    )
    rates_may = may_change_rates(stored, recipe, out)

    def may(change: Change) -> bool:
        appended = re.fullmatch(r"stages\[(\d+)\]", change.field)
        return bool(
            FREE.fullmatch(change.field)
            or (appended and int(appended[1]) >= kept and can_follow)
            or (rates_may and RATE.fullmatch(change.field))
        )

    return [change for change in changes if may(change)], [change for change in changes if not may(change)]


def may_change_rates(stored: dict[str, Any], recipe: dict[str, Any], out: Path) -> bool:
    """Whether every phase keeps its learning rate, or has a lower one from a divergence on."""
    diverged = stored.get("diverged")
    done = len(stored["stages"])
    first = stored.get("parent", {"stages": 0})["stages"] + 1
    before, now = learning_rates(stored.get("recipe", {}), first), learning_rates(recipe, first)
    for place in before.keys() & now.keys():
        stage, phase = place
        if now[place] == before[place]:
            continue
        if diverged is None or before[place] is None or now[place] > before[place]:
            return False
        finished = stage <= done or (out / WORK_FOLDER / f"stage-{stage}" / phase / PHASE).exists()
        adapters = phase == diverged["phase"] == "lora"  # all stages share one recipe of adapters
        if finished and not adapters:
            return False
    return True


def learning_rates(recipe: dict[str, Any], first_stage: int) -> dict[tuple[int, str], float]:
    """The peak of every stage's blocks and adapters."""
    common = recipe.get("training", {}).get("learning_rate")
    rates = {}
    for stage, plan in enumerate(recipe.get("stages", []), start=first_stage):
        rates[stage, "blocks"] = plan.get("learning_rate") or common
        if recipe.get("lora"):
            rates[stage, "lora"] = recipe["lora"].get("learning_rate") or common
    return rates


def advice(refused: list[Change], stored: dict[str, Any]) -> str:
    """What to do about a learning rate that may not change."""
    if not stored.get("diverged") or not any(RATE.fullmatch(change.field) for change in refused):
        return ""
    stage = stored["diverged"]["stage"]
    place = stage - 1 - stored.get("parent", {"stages": 0})["stages"]
    return f"; stage {stage} diverged: lower the rate of that one alone, stages.{place}.learning_rate"
