"""The texts of the composition study, and every model and every rule over every set of experts scored on them."""

import copy
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eval.studies.common.ground import development_text, reported_text, tokenizer_of
from eval.studies.common.jobs import job_name
from eval.studies.common.windows import nats_of_windows
from eval.studies.composition.rules import RULES, log_probs_of
from eval.studies.composition.runs import LANGUAGES, UNION, Scale
from frozen_glyph import FrozenGlyphForCausalLM

DOCUMENT = 2000  # characters: a document of the mixture is at least so long
# Models of a seed: experts of its own family, of a second family that no other seed has, and the rivals.
FIRST, SECOND, RIVALS = ("en", "ru", "zh"), ("en'", "ru'", "zh'"), (UNION, "average")
MODELS = (*FIRST, *SECOND, *RIVALS)
SETS = {"two": ("en", "ru"), "three": FIRST, "six": (*FIRST, *SECOND), "twins": ("en", "en'")}


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


def with_mixture(texts: dict[str, str]) -> dict[str, str]:
    return texts | {"mixed": mixture(list(texts.values()))}


def average(models: list[Any]) -> Any:
    """A model whose weights are the mean of those of ``models``; the first one's substrate."""
    result, states = copy.deepcopy(models[0]), [model.state_dict() for model in models]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name, _ in result.named_parameters()}
    result.load_state_dict(mean, strict=False)
    return result


def measure(
    seed: int, seeds: int, rates: Mapping[str, float], scale: Scale, data: Path, work: Path
) -> dict[str, dict[str, Any]]:
    """By ``development`` and ``reported``: nats of each window of every text, under every model and every rule over
    every set of experts. The second family of a seed are the experts of seed + ``seeds``."""

    def load(kind: str, of_seed: int) -> Any:
        return FrozenGlyphForCausalLM.from_pretrained(work / job_name((kind, rates[kind], of_seed))).eval()

    own, other = ([load(f"expert_{language}", s) for language in LANGUAGES] for s in (seed, seed + seeds))
    models, tokenizer = [*own, *other, load(UNION, seed), average(own)], tokenizer_of(work)
    texts = {
        "development": {name: development_text(data, name, scale) for name in LANGUAGES},
        "reported": {name: reported_text(work, name) for name in LANGUAGES},
    }
    return {
        part: {
            name: nats_of_windows(models, tokenizer, text, scale.context_length, losses_of_all)
            for name, text in with_mixture(by_language).items()
        }
        for part, by_language in texts.items()
    }


def losses_of_all(logits_MBTV: torch.Tensor, targets_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Nats of each target under the single models and under every rule over every set."""
    log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
    losses = {f"single/{name}": -log_probs_MBT[place] for place, name in enumerate(MODELS)}
    for name, members in SETS.items():
        places = [MODELS.index(member) for member in members]
        logits, log_probs = logits_MBTV[places], log_probs_MBT[places]
        for rule in RULES:
            losses[f"{name}/{rule}"] = RULES[rule].nats(logits, log_probs, targets_BT)
    return losses
