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
from eval.studies.composition.costs import costs_of
from eval.studies.composition.rules import RULES, SPARSE, SPARSE_RULE, log_probs_of
from eval.studies.composition.runs import LANGUAGES, UNION, Scale
from eval.studies.composition.sparse import sparse_nats
from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.text.documents import split_documents

CHOSEN_ON = 8  # development documents of each language
DOCUMENT = 2000  # characters: a document of the mixture is at least so long
# Models of a seed: experts of its own family, of a second family that no other seed has, and the rivals.
FIRST, SECOND, RIVALS = ("en", "ru", "zh"), ("en'", "ru'", "zh'"), (UNION, "average")
MODELS = (*FIRST, *SECOND, *RIVALS)
SWITCHES = "switches/"
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


def first_documents(text: str) -> str:
    """As many as choices need, which is less than reports do."""
    return "\n\n".join(split_documents(text)[:CHOSEN_ON])


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
    every set of experts, and how often rules pass from expert to expert; and ``costs``. The second family of a seed are
    the experts of seed + ``seeds``."""

    def folder(kind: str, of_seed: int) -> Path:
        return work / job_name((kind, rates[kind], of_seed))

    own, other = ([folder(f"expert_{language}", s) for language in LANGUAGES] for s in (seed, seed + seeds))
    loaded = [FrozenGlyphForCausalLM.from_pretrained(path).eval() for path in (*own, *other, folder(UNION, seed))]
    models, tokenizer = [*loaded, average(loaded[: len(own)])], tokenizer_of(work)
    texts = {
        "development": {name: first_documents(development_text(data, name, scale)) for name in LANGUAGES},
        "reported": {name: reported_text(work, name) for name in LANGUAGES},
    }
    found = {
        part: {
            name: apart(nats_of_windows(models, tokenizer, text, scale.context_length, told_of_all))
            for name, text in with_mixture(by_language).items()
        }
        for part, by_language in texts.items()
    }
    paths = dict(zip((*FIRST, *SECOND), (*own, *other), strict=True))
    mixed = mixture(list(texts["reported"].values()))
    costs = {
        name: costs_of([paths[member] for member in SETS[name]], mixed, tokenizer, scale.context_length)
        for name in ("two", "three", "six")
    }
    return found | {"costs": costs}


def apart(entry: dict[str, Any]) -> dict[str, Any]:
    """``entry`` of ``nats_of_windows`` with ``switches`` and ``tokens`` of the whole text beside the ``nats``."""
    totals = {key: sum(entry["nats"].pop(key)) for key in list(entry["nats"]) if key.startswith(SWITCHES)}
    switches = {key.removeprefix(SWITCHES): total for key, total in totals.items()}
    return entry | {"switches": switches, "tokens": switches.pop("tokens")}


def told_of_all(logits_MBTV: torch.Tensor, targets_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Nats of each target under the single models and under every rule over every set; and where rules switch."""
    log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
    entropies_MBT = torch.stack([entropies_of(logits) for logits in logits_MBTV])
    told = {f"single/{name}": -log_probs_MBT[place] for place, name in enumerate(MODELS)}
    told[f"{SWITCHES}tokens"] = torch.ones_like(log_probs_MBT[0])
    for name, members in SETS.items():
        places = [MODELS.index(member) for member in members]
        logits, log_probs = logits_MBTV[places], log_probs_MBT[places]
        for rule in RULES:
            told[f"{name}/{rule}"] = RULES[rule].nats(logits, log_probs, targets_BT)
            told[f"{SWITCHES}{name}/{rule}"] = RULES[rule].switches(log_probs)
        log_weights = RULES[SPARSE_RULE].log_weights(log_probs.double()).float()
        for rule, active in SPARSE.items():
            told[f"{name}/{rule}"] = sparse_nats(
                log_probs, entropies_MBT[places], log_weights, active, logits.shape[-1]
            )
    return told


def entropies_of(logits_BTV: torch.Tensor) -> torch.Tensor:
    log_probs = logits_BTV.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
