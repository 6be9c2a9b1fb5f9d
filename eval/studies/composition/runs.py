"""The trainings of the composition study: experts of one language each, and the union."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.studies.common import scale as common
from eval.studies.common.ground import development_text, tokenizer_of, training_file
from eval.studies.common.jobs import job_name
from eval.studies.common.training import flops_of, recipe_at
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.growth.recipe import StageRecipe
from frozen_glyph.text.loss import text_loss

LANGUAGES = ("en", "ru", "zh")
EXPERTS = tuple(f"expert_{language}" for language in LANGUAGES)
UNION = "union"


@dataclass(frozen=True)
class Scale(common.Scale):
    layers: int = 4
    tokens: int = 368_640  # that an expert reads
    shown: int = 2_000
    development: int = 4_000
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt


SMOKE = Scale(**common.TINY | {"context_length": 64}, layers=1, tokens=1024, vocabulary_characters=20_000)


def languages_of(kind: str) -> tuple[str, ...]:
    return LANGUAGES if kind == UNION else (kind.removeprefix("expert_"),)


def train(kind: str, rate: float, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Train one expert, or the union; its ``development`` loss (the mean over its languages), and what it cost."""
    languages, out = languages_of(kind), work / job_name((kind, rate, seed))
    stages = [StageRecipe(layers=scale.layers, tokens=scale.tokens * len(languages))]
    recipe = recipe_at(dataclasses.replace(scale, learning_rate=rate), kind, stages, seed)
    texts = [training_file(work, language) for language in languages]
    provenance = grow_from_recipe(recipe, out, texts, substrate=work / "substrate")
    model, tokenizer = FrozenGlyphForCausalLM.from_pretrained(out), tokenizer_of(work)
    losses = [
        text_loss(model, tokenizer, development_text(data, language, scale)).nats_per_character
        for language in languages
    ]
    cost = {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "parameters")}
    return {"development": sum(losses) / len(losses), "flops": flops_of(recipe)} | cost
