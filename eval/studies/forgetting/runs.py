"""The runs of the forgetting study: trainings one after the other, and what their models say of both texts."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.studies.common import scale as common
from eval.studies.common.ground import reported_text, tokenizer_of, training_file
from eval.studies.common.jobs import job_name
from eval.studies.common.training import flops_of, recipe_at
from eval.studies.common.windows import nats_of_windows
from eval.studies.composition.rules import RULES, log_probs_of
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.checkpoint.contract import stage_index
from frozen_glyph.checkpoint.files import read_weight_map
from frozen_glyph.growth.recipe import GrowthRecipe, ParentRecipe, StageRecipe
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

LANGUAGES = ("en", "ru")
FIRST = {"english": ("en",), "russian": ("ru",)}  # what the trainings from nothing read
NEXT = {"grown": ("ru",), "tuned": ("ru",), "grown-replay": LANGUAGES, "tuned-replay": LANGUAGES}
MERGED = {"english+russian": ("mean", "posterior", "evidence"), "english+grown": ("posterior", "evidence")}


@dataclass(frozen=True)
class Scale(common.Scale):
    layers: int = 2  # of the first stage, and that `grown` adds
    tokens: int = 229_376  # of each training
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt


SMOKE = Scale(**common.TINY, layers=1, tokens=1024, vocabulary_characters=20_000)


def recipe_of(kind: str, seed: int, scale: Scale, work: Path) -> GrowthRecipe:
    """The growth recipe of a training: one stage, in a folder of its own or on the first stage of `english`."""
    files = [str(training_file(work, language)) for language in (FIRST | NEXT)[kind]]
    weight = 1.0 if len(files) > 1 else None  # equal shares of the tokens
    new_blocks = 0 if kind.startswith("tuned") else scale.layers  # 0: the blocks that there are go on training
    return recipe_at(
        scale,
        kind,
        [StageRecipe(layers=new_blocks, tokens=scale.tokens)],
        seed,
        data=DataRecipe([SourceRecipe(files=[file], weight=weight) for file in files]),
        parent=ParentRecipe(str(work / job_name(("english", seed)))) if kind in NEXT else None,
    )


def train(kind: str, seed: int, scale: Scale, work: Path) -> dict[str, Any]:
    """Carry one training out; what it cost."""
    recipe = recipe_of(kind, seed, scale, work)
    substrate = None if kind in NEXT else work / "substrate"  # what has a parent stands on the parent's
    provenance = grow_from_recipe(recipe, work / job_name((kind, seed)), substrate=substrate)
    record = {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "trainable_parameters")}
    cost = {"flops": flops_of(recipe), "cpu_seconds": time.process_time()}
    return record | cost | {"parameters": provenance["stages"][-1]["parameters"]}


def measure(seed: int, scale: Scale, work: Path) -> dict[str, Any]:
    """Nats of every window of both held-out texts, and whether `english` is still in `grown` to the bit.

    The predictions of a merged model are computed from those of its experts, as the composition study does.
    """
    folders = {kind: work / job_name((kind, seed)) for kind in FIRST | NEXT}
    models = [FrozenGlyphForCausalLM.from_pretrained(folder).eval() for folder in folders.values()]
    models.append(FrozenGlyphForCausalLM.from_pretrained(folders["grown"], growth_stage=1).eval())
    position = {kind: index for index, kind in enumerate(folders)}
    same = True

    def losses(logits_MBTV: torch.Tensor, targets_BT: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal same
        same = same and torch.equal(logits_MBTV[position["english"]], logits_MBTV[-1])
        log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
        found = {kind: -log_probs_MBT[index] for kind, index in position.items()}
        for name, rules in MERGED.items():
            members = [position[expert] for expert in name.split("+")]
            for rule in rules:
                found[f"{name}/{rule}"] = RULES[rule].nats(logits_MBTV[members], log_probs_MBT[members], targets_BT)
        return found

    measured = {
        language: nats_of_windows(
            models,
            tokenizer_of(work),
            reported_text(work, language),
            scale.context_length,
            losses,
        )
        for language in LANGUAGES
    }
    kept = {kind: bytes_of_stage_alone(folders[kind]) for kind in ("grown", "tuned")}
    record = {"losses": measured, "first_stage_identical": same, "bytes_of_first_stage": kept}
    return record | {"cpu_seconds": time.process_time()}


def bytes_of_stage_alone(folder: Path) -> int:
    """Bytes on disk that only the first of two stages needs: the price of keeping it."""
    first, second = (set(read_weight_map(folder / stage_index(stage)).values()) for stage in (1, 2))
    return sum((folder / shard).stat().st_size for shard in first - second)
