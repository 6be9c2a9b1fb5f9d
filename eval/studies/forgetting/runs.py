"""The runs of the forgetting study: trainings one after the other, and what their models say of both texts."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.studies.common import scale as common
from eval.studies.common.ground import development_text, reported_text, tokenizer_of, training_file
from eval.studies.common.jobs import job_name
from eval.studies.common.training import flops_of, recipe_at
from eval.studies.common.windows import nats_of_windows
from eval.studies.composition.rules import RULES, log_probs_of
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.checkpoint.contract import stage_index
from frozen_glyph.checkpoint.files import read_weight_map
from frozen_glyph.growth.recipe import GrowthRecipe, ParentRecipe, StageRecipe
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

LANGUAGES = ("en", "ru")
FIRST = {"english": ("en",), "russian": ("ru",)}  # what the trainings from nothing read
NEXT = {"grown": ("ru",), "tuned": ("ru",), "grown-replay": LANGUAGES, "tuned-replay": LANGUAGES}
MERGED = {"english+russian": ("mean", "posterior", "evidence 16"), "english+grown": ("posterior", "evidence 16")}


@dataclass(frozen=True)
class Scale(common.Scale):
    layers: int = 2  # of the first stage, and that `grown` adds
    tokens: int = 229_376  # of each training
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt


SMOKE = Scale(**common.TINY, layers=1, tokens=1024, vocabulary_characters=20_000)


def folder_of(work: Path, kind: str, rate: float, seed: int) -> Path:
    """Of a training."""
    return work / job_name((kind, rate, seed))


def recipe_of(kind: str, rate: float, seed: int, parent: Path | None, scale: Scale, work: Path) -> GrowthRecipe:
    """The growth recipe of a training: one stage, from nothing or on the first stage of ``parent``."""
    files = [str(training_file(work, language)) for language in (FIRST | NEXT)[kind]]
    weight = 1.0 if len(files) > 1 else None  # equal shares of the tokens
    new_blocks = 0 if kind.startswith("tuned") else scale.layers  # 0: the blocks that there are go on training
    return recipe_at(
        dataclasses.replace(scale, learning_rate=rate),
        kind,
        [StageRecipe(layers=new_blocks, tokens=scale.tokens)],
        seed,
        data=DataRecipe([SourceRecipe(files=[file], weight=weight) for file in files]),
        parent=ParentRecipe(str(parent)) if parent else None,
    )


def train(
    kind: str, rate: float, seed: int, parent: Path | None, scale: Scale, data: Path, work: Path
) -> dict[str, Any]:
    """Carry one training out: what it cost, and the ``development`` loss, the mean over the languages it reads."""
    recipe, out = recipe_of(kind, rate, seed, parent, scale, work), folder_of(work, kind, rate, seed)
    substrate = None if parent else work / "substrate"  # what has a parent stands on the parent's
    provenance = grow_from_recipe(recipe, out, substrate=substrate)
    record = {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "trainable_parameters")}
    model, tokenizer = FrozenGlyphForCausalLM.from_pretrained(out).eval(), tokenizer_of(work)
    losses = [
        text_loss(model, tokenizer, development_text(data, language, scale)).nats_per_character
        for language in (FIRST | NEXT)[kind]
    ]
    return record | {
        "development": sum(losses) / len(losses),
        "flops": flops_of(recipe),
        "parameters": provenance["stages"][-1]["parameters"],
        "cpu_seconds": time.process_time(),
    }


def measure(seed: int, rates: dict[str, float], scale: Scale, work: Path) -> dict[str, Any]:
    """Nats of every window of both reported texts, of each training at its one of ``rates``, and whether `english` is
    still in `grown` to the bit.

    The predictions of a merged model are computed from those of its experts, as the composition study does.
    """
    folders = {kind: folder_of(work, kind, rates[kind], seed) for kind in FIRST | NEXT}
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
