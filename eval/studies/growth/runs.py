"""The runs of the growth study: the arms with their recipes, and what growing by one gives and costs."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from eval.bench.memory import peak_of_trace, to_mebibytes
from eval.studies.common import scale as common
from eval.studies.common.ground import development_text, reported_text, tokenizer_of, training_file
from eval.studies.common.jobs import job_name
from eval.studies.common.losses import record_of
from eval.studies.common.training import flops_of, recipe_at
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.growth.estimate import estimate, totals
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.text.loss import text_loss


@dataclass(frozen=True)
class Scale(common.Scale):
    hidden_size: int = 64
    heads: int = 4
    vocab_size: int = 1024
    context_length: int = 128
    learning_rate: float = 8e-3
    stages: int = 4
    stage_tokens: int = 163_840
    first_tokens: int | None = None  # of the first stage, where it reads more than the others

    def tokens_of(self, stage: int) -> int:
        """Of a stage, counted from 0."""
        return self.stage_tokens if stage or self.first_tokens is None else self.first_tokens


LESS_STATE = {"galore_adamw": "GaLore", "apollo_adamw": "APOLLO", "adafactor": "Adafactor", "adamw_8bit": "8-bit Adam"}
MEMORY, STEPS_MEASURED = "memory", 2
TURN, RANK = 25, 16  # steps of a turn; of adapters and of projected gradients
ADAPTERS: dict[str, Any] = {"train": ["norm", "head"], "lora_below": RANK}
SIZES = {
    "tiny": Scale(**common.TINY, stages=3, stage_tokens=512),
    "small": Scale(),
    "full": Scale(hidden_size=128, vocab_size=2048, learning_rate=2e-3, stage_tokens=1_638_400),
    "saturated": Scale(hidden_size=32, vocab_size=512, first_tokens=5_242_880, stage_tokens=1_310_720),
}
DECAY = {"decay": "run", "schedule": "warmup_stable_decay"}


@dataclass(frozen=True)
class Arm:
    """``stages`` of a recipe at a scale; ``fields`` of its training, and ``decay``."""

    about: str
    stages: Callable[[Scale], list[StageRecipe]]
    fields: dict[str, Any] = dataclasses.field(default_factory=lambda: DECAY)


def grown(**fields: Any) -> Callable[[Scale], list[StageRecipe]]:
    """One new block a stage; ``fields`` are of the stages after the first."""

    def stages(scale: Scale) -> list[StageRecipe]:
        return [StageRecipe(tokens=scale.tokens_of(stage), **fields if stage else {}) for stage in range(scale.stages)]

    return stages


def at_once(blocks: Callable[[Scale], int], tokens: Callable[[Scale], int], **fields: Any) -> Callable:
    """So many blocks that train together from the first step."""
    return lambda scale: [StageRecipe(layers=blocks(scale), tokens=tokens(scale), **fields)]


def all_blocks(scale: Scale) -> int:
    return scale.stages


def all_tokens(scale: Scale) -> int:
    return sum(map(scale.tokens_of, range(scale.stages)))


def tokens_at_compute_of(other: str, arm: str) -> Callable[[Scale], int]:
    """What ``arm`` reads for the FLOPs of ``other``."""

    def tokens(scale: Scale) -> int:
        allowed, needed = (flops_of(recipe_of(name, 0, scale)) for name in (other, arm))
        return round(all_tokens(scale) * allowed / needed)

    return tokens


def restarted(first: dict[str, Any]) -> Callable[[Scale], list[StageRecipe]]:
    """All blocks at once, in a first stage of fields ``first``, then only their adapters, anew in every stage."""

    def stages(scale: Scale) -> list[StageRecipe]:
        tokens = [scale.tokens_of(stage) for stage in range(scale.stages)]
        later = [StageRecipe(layers=0, tokens=count, **ADAPTERS) for count in tokens[1:]]
        return [StageRecipe(layers=scale.stages, tokens=tokens[0], **first), *later]

    return stages


CARRIED = {"init": "copy_zero", "optimizer": "carried"}
CONTROL, BEFORE, CARRIED_ON = "one-block", "newest-identity", "newest-carried"
BASES = (CONTROL, BEFORE, CARRIED_ON)  # that the table compares every arm with
ARMS = {
    CONTROL: Arm(
        "the control: one block trained on, stage by stage, moments kept",
        grown(layers=0, optimizer="carried"),
    ),
    "one-block-compute": Arm(
        "the control at equal FLOPs: as many as `newest-carried`",
        at_once(lambda scale: 1, tokens_at_compute_of(CARRIED_ON, CONTROL)),
    ),
    "one-block-double": Arm(
        "the control with twice the tokens: what it is below `one-block` is what one block had left to learn",
        at_once(lambda scale: 1, lambda scale: 2 * all_tokens(scale)),
    ),
    BEFORE: Arm(
        "one new block a stage, starting as the identity, a cosine in every stage: the default so far",
        grown(init="identity"),
        {},
    ),
    "newest-cosine": Arm(
        "`newest-identity`, but a copy with outputs of zero: what the start alone gives", grown(init="copy_zero"), {}
    ),
    "newest-copy": Arm("one new block a stage, a copy with outputs of zero", grown(init="copy_zero")),
    "newest-carried": Arm(
        "one new block a stage, a copy with outputs of zero, Adam's moments carried over and copied with it",
        grown(**CARRIED),
    ),
    "top-two": Arm("`newest-carried`, but the topmost two blocks train", grown(active=2, **CARRIED)),
    "two-blocks": Arm("the control of `top-two`: two blocks at once", at_once(lambda scale: 2, all_tokens)),
    "joint": Arm("all blocks at once", at_once(all_blocks, all_tokens)),
    "joint-compute": Arm(
        "all blocks at once, as many FLOPs as `newest-carried`",
        at_once(all_blocks, tokens_at_compute_of(CARRIED_ON, "joint")),
    ),
    "stacking": Arm("`newest-carried`, but all blocks train (progressive stacking)", grown(active=2**16, **CARRIED)),
    "newest-branch": Arm(
        "`newest-carried`, every stage written from a decay that branches off",
        grown(**CARRIED),
        {"decay": "branch", "schedule": "warmup_stable_decay"},
    ),
    **{
        f"joint-{optim.removesuffix('_adamw').replace('_', '-')}": Arm(
            f"`joint` with {name} (`training.optim={optim}`)",
            at_once(all_blocks, all_tokens),
            DECAY | {"optim": optim, "optim_rank": RANK},
        )
        for optim, name in LESS_STATE.items()
    },
    "turns": Arm(
        "all blocks from random, one at a time for 25 steps each, from the top down (as BAdam)",
        at_once(all_blocks, all_tokens, rotate=TURN),
    ),
    "lisa": Arm(
        "all blocks from random, two of them drawn anew every 25 steps, norm and head always (as LISA, which draws in "
        "models that are trained already, trains the embedding too, and may keep moments)",
        at_once(all_blocks, all_tokens, rotate=TURN, draw=2),
    ),
    "segments": Arm(
        "all blocks from random, the topmost always trains and with it one of the others, in turns of 25 steps (as "
        "SegProp, whose segments train once each)",
        at_once(all_blocks, all_tokens, rotate=TURN, always=1),
    ),
    "full-depth-two": Arm(
        "all blocks from random, of which the topmost two train and the others stay as drawn",
        at_once(all_blocks, all_tokens, active=2),
    ),
    "lora": Arm(
        f"all blocks from random, of which adapters of rank {RANK} train beside norm and head (LoRA; norms and biases "
        "of blocks do not train)",
        at_once(all_blocks, all_tokens, **ADAPTERS),
    ),
    "relora": Arm(
        "`lora`, its adapters merged after every stage, then new ones with new moments and a warm-up (ReLoRA without "
        "its first phase, in which all weights train)",
        restarted(ADAPTERS),
    ),
    "relora-warm": Arm("`relora` after a stage in which all blocks train (ReLoRA as published)", restarted({})),
}
# Of one block more a stage; and those by which a default is chosen.
GROWN = [arm for arm in ARMS if arm.startswith(("newest", "top"))]
RIVALS = ("joint-", "stacking", "turns", "lisa", "segments", "full-depth", "lora", "relora")
CORE = [arm for arm in ARMS if not arm.startswith((*RIVALS, "newest-branch"))]


def recipe_of(arm: str, seed: int, scale: Scale) -> GrowthRecipe:
    """The growth recipe of an arm."""
    fields = ARMS[arm].fields
    training = {name: value for name, value in fields.items() if name != "decay"}
    decay = {name: value for name, value in fields.items() if name == "decay"}
    return recipe_at(scale, arm, ARMS[arm].stages(scale), seed, training=training, **decay)


def run_arm(arm: str, rate: float, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Grow by one arm: losses of the reported text by stage and block, the ``development`` loss, and what it cost."""
    recipe = recipe_of(arm, seed, dataclasses.replace(scale, learning_rate=rate))
    out = work / job_name((arm, rate, seed))
    provenance = grow_from_recipe(recipe, out, [training_file(work, "en")], substrate=work / "substrate", progress=True)
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
        "foretold_mebibytes": round(totals(estimate(recipe))["memory_bytes"] / 2**20, 1),
    }


def measure_memory(arm: str, scale: Scale, work: Path) -> dict[str, Any]:
    """``peak_mebibytes`` of torch's tensors while an arm trains the first steps of every stage.

    On CPU the profiler reports every allocation, so the peak is exact and free of interpreter and libraries.
    """
    recipe = recipe_of(arm, 0, scale)
    short = [dataclasses.replace(stage, steps=STEPS_MEASURED, tokens=None) for stage in recipe.stages]
    recipe = dataclasses.replace(recipe, stages=short, health="off")
    out, text = work / job_name(("memory", arm)), training_file(work, "en")

    def train() -> None:
        grow_from_recipe(recipe, out, [text], substrate=work / "substrate")

    if torch.cuda.is_available():
        train()
        return {"peak_mebibytes": to_mebibytes(torch.cuda.max_memory_allocated())}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        train()
    return {"peak_mebibytes": to_mebibytes(peak_of_trace(profiler))}
