"""The runs of the growth study: the recipe of each variant, and what growing by it gives and costs."""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.studies.common import scale as common
from eval.studies.common.ground import held_out_text, text_file, tokenizer_of
from eval.studies.common.jobs import job_name
from eval.studies.common.losses import record_of
from eval.studies.common.training import flops_of, recipe_at
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe, StageRecipe
from frozen_glyph.text.loss import text_loss

LORA_FROM_STAGE, LORA_SHARE = 3, 0.25


@dataclass(frozen=True)
class Scale(common.Scale):
    stages: int = 6
    stage_tokens: int = 229_376
    vocab_size: int = 2048


SMOKE = Scale(**common.TINY, stages=3, stage_tokens=512)


def recipe_of(variant: str, seed: int, scale: Scale) -> GrowthRecipe:
    """The growth recipe of a variant."""

    def recipe(stages: list[StageRecipe], lora: LoraRecipe | None = None) -> GrowthRecipe:
        return recipe_at(scale, variant, stages, seed, lora=lora)

    def grown(init: str, share: float = 1.0) -> list[StageRecipe]:
        return [
            StageRecipe(tokens=round(scale.stage_tokens * (share if stage >= LORA_FROM_STAGE else 1)), init=init)
            for stage in range(1, scale.stages + 1)
        ]

    def monolithic(tokens: int) -> GrowthRecipe:
        return recipe([StageRecipe(layers=scale.stages, tokens=tokens)])

    all_tokens = scale.stages * scale.stage_tokens
    if variant == "grown-lora":
        lora = LoraRecipe(from_stage=LORA_FROM_STAGE, tokens=round(scale.stage_tokens * LORA_SHARE))
        return recipe(grown("identity", 1 - LORA_SHARE), lora)
    if variant == "monolithic-tokens":
        return monolithic(all_tokens)
    if variant == "monolithic-compute":
        share = flops_of(recipe(grown("identity"))) / flops_of(monolithic(all_tokens))
        return monolithic(round(all_tokens * share))
    return recipe(grown(variant.partition("-")[2] or "identity"))


def run_variant(variant: str, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Grow one variant: losses by stage and block, and what it cost."""
    recipe, out = recipe_of(variant, seed, scale), work / job_name((variant, seed))
    provenance = grow_from_recipe(recipe, out, [text_file(data, "en")], substrate=work / "substrate", progress=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tokenizer, held_out = tokenizer_of(work), held_out_text(data, "en")
    stages = []
    for entry in provenance["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(out, growth_stage=entry["stage"])
        loss = text_loss(model, tokenizer, held_out)
        stages.append(
            {
                "blocks": entry["num_hidden_layers"],
                "trainable_parameters": entry["trainable_parameters"],
                "tokens": entry["tokens"],
                "seconds": entry["seconds"],
                "nats_per_character": loss.nats_per_character,
                **record_of(loss),
            }
        )
    return {
        "variant": variant,
        "seed": seed,
        "stages": stages,
        "tokens": sum(stage["tokens"] for stage in stages),
        "seconds": sum(stage["seconds"] for stage in stages),
        "flops": flops_of(recipe),
        "peak_mebibytes": peak,
        "versions": provenance.get("versions", {}),
    }
