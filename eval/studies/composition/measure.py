"""The texts of the composition study, and every model and every rule over every set of experts scored on them."""

import copy
import random
from pathlib import Path
from typing import Any

import torch

from eval.studies.common.ground import held_out_text, tokenizer_of
from eval.studies.common.jobs import job_name
from eval.studies.common.windows import nats_of_windows
from eval.studies.composition.rules import RULES, log_probs_of
from eval.studies.composition.runs import LANGUAGES, Scale
from frozen_glyph import FrozenGlyphForCausalLM

DOCUMENT = 2000  # characters: a document of the mixture is at least so long
# Places among the models that ``measure`` lists.
SINGLE = {"en": 0, "ru": 1, "zh": 2, "union": 6, "average": 7}
SETS = {"two": [0, 1], "three": [0, 1, 2], "six": [0, 1, 2, 3, 4, 5], "twins": [0, 3]}


def mixture(texts: list[str]) -> str:
    """Paragraphs of all ``texts`` in random order, joined to documents of some ``DOCUMENT`` characters."""
    paragraphs = [line for text in texts for line in text.splitlines() if line.strip()]
    random.Random(0).shuffle(paragraphs)
    documents: list[list[str]] = [[]]
    for paragraph in paragraphs:
        documents[-1].append(paragraph)
        if sum(map(len, documents[-1])) >= DOCUMENT:
            documents.append([])
    return "\n\n".join("\n".join(document) for document in documents if document)


def held_out_texts(scale: Scale, data: Path) -> dict[str, str]:
    """Each language's held-out text and the mixture, none longer than the scale says."""
    texts = {language: held_out_text(data, language) for language in LANGUAGES}
    shuffled = mixture(list(texts.values()))
    return {name: text[: scale.held_out_characters] for name, text in (texts | {"mixed": shuffled}).items()}


def average(models: list[Any]) -> Any:
    """A model whose weights are the mean of those of ``models``; the first one's substrate."""
    result, states = copy.deepcopy(models[0]), [model.state_dict() for model in models]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name, _ in result.named_parameters()}
    result.load_state_dict(mean, strict=False)
    return result


def measure(seed: int, seeds: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Nats of each window of every text, under every model and every rule over every set of experts."""

    def load(kind: str, of_seed: int) -> Any:
        return FrozenGlyphForCausalLM.from_pretrained(work / job_name((kind, of_seed))).eval()

    here = [load(f"expert_{language}", seed) for language in LANGUAGES]
    other = [load(f"expert_{language}", (seed + 1) % seeds) for language in LANGUAGES]
    models = [*here, *other, load("union", seed), average(here)]
    tokenizer = tokenizer_of(work)
    return {
        name: nats_of_windows(models, tokenizer, text, scale.context_length, losses_of_all)
        for name, text in held_out_texts(scale, data).items()
    }


def losses_of_all(logits_MBTV: torch.Tensor, targets_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Nats of each target under the single models and under every rule over every set."""
    log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
    losses = {f"single/{name}": -log_probs_MBT[index] for name, index in SINGLE.items()}
    for name, members in SETS.items():
        logits, log_probs = logits_MBTV[members], log_probs_MBT[members]
        for rule in RULES:
            losses[f"{name}/{rule}"] = RULES[rule].nats(logits, log_probs, targets_BT)
    return losses
