"""The trainings of the composition study: experts of one language each, and the union."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.studies.common import scale as common
from eval.studies.common.ground import text_file
from eval.studies.common.jobs import job_name
from eval.studies.common.training import flops_of, recipe_at
from frozen_glyph import grow_from_recipe
from frozen_glyph.growth.recipe import StageRecipe

LANGUAGES = ("en", "ru", "zh")


@dataclass(frozen=True)
class Scale(common.Scale):
    layers: int = 4
    tokens: int = 819_200  # that an expert reads
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt
    held_out_characters: int = 100_000  # of each text, at most


SMOKE = Scale(**common.TINY, layers=1, tokens=1024, vocabulary_characters=20_000, held_out_characters=2_000)


def train(kind: str, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Train one expert, or the union; what it cost."""
    languages = LANGUAGES if kind == "union" else (kind.removeprefix("expert_"),)
    recipe = recipe_at(scale, kind, [StageRecipe(layers=scale.layers, tokens=scale.tokens * len(languages))], seed)
    texts = [text_file(data, language) for language in languages]
    provenance = grow_from_recipe(recipe, work / job_name((kind, seed)), texts, substrate=work / "substrate")
    cost = {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "parameters")}
    return {"flops": flops_of(recipe)} | cost
