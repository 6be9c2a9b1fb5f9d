"""The runs of the growth study: the arms with their recipes, and what growing by one gives and costs."""

import dataclasses
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.studies.common import scale as common
from eval.studies.common.ground import development_text, reported_text, tokenizer_of, training_file
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


@dataclass(frozen=True)
class Arm:
    """``stages`` of a recipe at a scale, and its LoRA phases."""

    about: str
    stages: Callable[[Scale], list[StageRecipe]]
    lora: Callable[[Scale], LoraRecipe | None] = lambda scale: None


def grown(init: str, lora_share: float = 0.0) -> Callable[[Scale], list[StageRecipe]]:
    """One block a stage; from the third on ``lora_share`` of the tokens are left to LoRA phases."""

    def stages(scale: Scale) -> list[StageRecipe]:
        shares = [1 - lora_share if stage >= LORA_FROM_STAGE else 1 for stage in range(1, scale.stages + 1)]
        return [StageRecipe(tokens=round(scale.stage_tokens * share), init=init) for share in shares]

    return stages


def one_block(scale: Scale) -> list[StageRecipe]:
    return [StageRecipe(layers=0 if stage else 1, tokens=scale.stage_tokens) for stage in range(scale.stages)]


def at_once(tokens: Callable[[Scale], int]) -> Callable[[Scale], list[StageRecipe]]:
    return lambda scale: [StageRecipe(layers=scale.stages, tokens=tokens(scale))]


def all_tokens(scale: Scale) -> int:
    return scale.stages * scale.stage_tokens


def tokens_at_equal_compute(scale: Scale) -> int:
    """That training all blocks at once reads for the FLOPs of ``grown``."""
    grown_one, monolithic = (flops_of(recipe_of(arm, 0, scale)) for arm in ("grown", "monolithic-tokens"))
    return round(all_tokens(scale) * grown_one / monolithic)


BASELINE, CONTROL = "grown", "one-block"
ARMS = {
    BASELINE: Arm("one block a stage, each new block starting as the identity", grown("identity")),
    CONTROL: Arm(
        "the control: the first block and the head trained on, stage by stage, with the same tokens", one_block
    ),
    "monolithic-tokens": Arm("all blocks at once, as many tokens as all stages together", at_once(all_tokens)),
    "monolithic-compute": Arm("all blocks at once, as many FLOPs as `grown`", at_once(tokens_at_equal_compute)),
    "grown-random": Arm("`grown` with freshly initialised blocks (the published way)", grown("random")),
    "grown-copy": Arm("`grown` with copies of the top block", grown("copy")),
    "grown-lora": Arm(
        "`grown` with a quarter of the tokens in LoRA phases at the end of the stages from the third on",
        grown("identity", LORA_SHARE),
        lambda scale: LoraRecipe(from_stage=LORA_FROM_STAGE, tokens=round(scale.stage_tokens * LORA_SHARE)),
    ),
}


def recipe_of(arm: str, seed: int, scale: Scale) -> GrowthRecipe:
    """The growth recipe of an arm."""
    return recipe_at(scale, arm, ARMS[arm].stages(scale), seed, lora=ARMS[arm].lora(scale))


def run_arm(arm: str, rate: float, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Grow by one arm: losses of the reported text by stage and block, the ``development`` loss, and what it cost."""
    recipe = recipe_of(arm, seed, dataclasses.replace(scale, learning_rate=rate))
    out = work / job_name((arm, rate, seed))
    provenance = grow_from_recipe(recipe, out, [training_file(work, "en")], substrate=work / "substrate", progress=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tokenizer, reported = tokenizer_of(work), reported_text(work, "en")
    stages = []
    for entry in provenance["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(out, growth_stage=entry["stage"])
        record = record_of(text_loss(model, tokenizer, reported)) | {"blocks": entry["num_hidden_layers"]}
        stages.append(record | {name: entry[name] for name in ("trainable_parameters", "tokens", "seconds")})
    return {
        "stages": stages,
        "development": text_loss(model, tokenizer, development_text(data, "en", scale)).nats_per_character,
        "tokens": sum(stage["tokens"] for stage in stages),
        "seconds": sum(stage["seconds"] for stage in stages),
        "flops": flops_of(recipe),
        "peak_mebibytes": peak,
    }
