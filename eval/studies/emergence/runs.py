"""The runs of the emergence study: a training on text and questions, and how its stages rank the answers.

Shapes: S spans, T tokens.
"""

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.studies.common import scale as common
from eval.studies.common.arms import rates_in
from eval.studies.common.ground import (
    build_ground,
    development_text,
    split_texts,
    tokenizer_of,
    training_file,
)
from eval.studies.common.jobs import job_name, result_file
from eval.studies.common.training import flops_of
from eval.studies.emergence.questions import Choice, choices, documents, passages, rank_of
from eval.studies.growth import runs as growth
from eval.studies.squad_heads.questions import read_questions, sample
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.text.documents import read_text, split_documents
from frozen_glyph.text.loss import AS_TEXT, text_loss
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

CONTROL, GROWN = growth.CONTROL, growth.CARRIED_ON
ARMS = (CONTROL, GROWN, "top-two", "two-blocks", "joint")  # of the growth study
KEPT_SHARE = 0.15  # of the training articles: what a rate is chosen on


@dataclass(frozen=True)
class Scale(growth.Scale):
    context_length: int = 256
    stage_tokens: int = 655_360
    learning_rate: float = 4e-3
    shown: int = 4_000
    excerpt: int = 360  # characters of a question's context
    passage: int = 1_000  # characters of a document of text
    excerpts: int = 4  # of each training question
    vocabulary_characters: int = 1_500_000  # of text and of questions, from which the vocabulary is learnt
    asked: int = 1_000  # questions that are reported


SMOKE = Scale(
    **common.TINY | {"context_length": 256, "batch_tokens": 256},
    stages=2,
    stage_tokens=512,
    asked=6,
    excerpts=1,
    vocabulary_characters=20_000,
)


def questions_file(work: Path, kept: bool = False) -> Path:
    """Training questions as text, or those of the articles that are kept to choose a rate on."""
    return work / "texts" / f"questions{'.kept' if kept else ''}.txt"


def passages_file(work: Path) -> Path:
    """The training text in short documents."""
    return work / "texts" / "passages.txt"


def prepare(data: Path, scale: Scale, work: Path) -> None:
    """Texts in short documents, questions as text, and a substrate over both, which stays if it is there already."""
    split_texts(data, ["en"], scale, work)
    asked = read_questions(data / "squad" / "train-v1.1.subset.json")
    articles = list(dict.fromkeys(question.article for question in asked))
    kept = set(sample(articles, max(1, round(KEPT_SHARE * len(articles)))))
    for held_out in (False, True):
        own = [question for question in asked if (question.article in kept) == held_out]
        made = documents(own, scale.excerpt, 1 if held_out else scale.excerpts)
        made = sample(made, 300) if held_out else made
        write_text(questions_file(work, held_out), "\n\n".join(made) + "\n")
    short = passages(split_documents(read_text(training_file(work, "en"))), scale.passage)
    write_text(passages_file(work), "\n\n".join(short) + "\n")
    build_ground([passages_file(work), questions_file(work)], scale, work, scale.vocabulary_characters)


def recipe_of(arm: str, rate: float, seed: int, scale: Scale, work: Path) -> GrowthRecipe:
    """An arm of the growth study; half of its tokens are of text, half of questions."""
    files = (passages_file(work), questions_file(work))
    sources = [SourceRecipe(files=[str(file)], weight=1.0) for file in files]
    recipe = growth.recipe_of(arm, seed, dataclasses.replace(scale, learning_rate=rate))
    return dataclasses.replace(recipe, data=DataRecipe(sources, tokens=growth.all_tokens(scale)))


def run_arm(arm: str, rate: float, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Train by one arm: of each stage the ``ranks`` of the answers among their spans and the ``nats`` of each answer's
    tokens, the mean; the ``development`` loss, the mean over text and questions of kept articles; and costs."""
    recipe, out = recipe_of(arm, rate, seed, scale, work), work / job_name((arm, rate, seed))
    provenance = grow_from_recipe(recipe, out, substrate=work / "substrate", progress=True)
    tokenizer, asked = tokenizer_of(work), asked_of(data, scale)
    stages = []
    for entry in provenance["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(out, growth_stage=entry["stage"]).eval()
        costs = [span_costs(model, tokenizer, choice) for choice in asked]
        stages.append(
            {
                "blocks": entry["num_hidden_layers"],
                "tokens": entry["tokens"],
                "ranks": [rank_of(own) for own in costs],
                "nats": [own[0] for own in costs],
            }
        )
    kept = (development_text(data, "en", scale), questions_file(work, kept=True).read_text("utf-8"))
    losses = [text_loss(model, tokenizer, text).nats_per_character for text in kept]
    return {
        "articles": [choice.article for choice in asked],
        "stages": stages,
        "development": sum(losses) / len(losses),
        "flops": flops_of(recipe),
        "cpu_seconds": time.process_time(),
    }


def add_grown_argument(parser: argparse.ArgumentParser) -> None:
    """``--grown``, for a study of the models that this one has trained; ``folder_of`` finds them."""
    parser.add_argument(
        "--grown", type=Path, default=Path("runs/emergence-study"), help="work folder of the emergence study"
    )


def folder_of(arm: str, seed: int, work: Path, scale: Scale) -> Path:
    """The model of ``arm`` at its best rate."""
    rate = rates_in(work, [arm], scale).get(arm)
    folder = work / job_name((arm, rate or 0, seed))
    if not result_file(work, (arm, rate or 0, seed)).is_file():
        raise SystemExit(f"{str(work)!r} holds no finished {arm!r} of seed {seed}; run eval.studies.emergence first")
    return folder


def asked_of(data: Path, scale: Scale) -> list[Choice]:
    """The questions that are reported, of the official development set."""
    return choices(read_questions(data / "squad" / "dev-v1.1.json"), scale.excerpt, scale.asked)


@torch.no_grad()
def span_costs(model: Any, tokenizer: Any, choice: Choice) -> list[float]:
    """Nats of each span's tokens after the prompt, the mean over its tokens."""
    prompt = [tokenizer.bos_token_id, *tokenizer(choice.prompt, **AS_TEXT)["input_ids"]]
    rows = [tokenizer(f" {span}", **AS_TEXT)["input_ids"] for span in choice.spans]
    lengths = torch.tensor([len(row) for row in rows])
    ids_ST = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    read = model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    cache = read[CACHE]
    cache.batch_repeat_interleave(len(rows))
    later = model(input_ids=ids_ST[:, :-1], **{CACHE: cache}).logits if lengths.max() > 1 else None
    first = read.logits.expand(len(rows), -1, -1)
    logits_STV = first if later is None else torch.cat([first, later], 1)
    nats_ST = -logits_STV.float().log_softmax(-1).gather(-1, ids_ST[..., None])[..., 0]
    written_ST = torch.arange(ids_ST.shape[1]) < lengths[:, None]
    return ((nats_ST * written_ST).sum(1) / lengths).tolist()
