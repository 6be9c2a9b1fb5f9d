"""Merging experts that never saw each other's language, on real text: every rule, two to six experts, and the rivals.

    python -m eval.studies.composition --data DIR --out eval/results/composition-study

DIR holds text/{en,ru,zh}.txt and .valid.txt. The same command resumes a study that was stopped. For each seed:

    expert-LANGUAGE  a model that reads one language
    union            a model of the same size that reads all three: as many tokens, and as much compute, as the experts
    average          the weights of the seed's experts averaged (they start from the same weights)

Sets of experts that are merged: ``two`` (en, ru), ``three`` (en, ru, zh), ``six`` (those of this seed and of the next),
and ``twins`` (the two seeds' en, who know the same). Texts: each language, and ``mixed``: paragraphs of all three in
random order, a language rarely lasting for more than a few hundred characters.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.studies.common.jobs import job_name, read_results, run_jobs, study_arguments, write_report, write_result
from eval.studies.composition.report import as_markdown, summarise
from eval.studies.composition.rules import RULES, log_probs_of

LANGUAGES = ("en", "ru", "zh")
DOCUMENT = 2000  # characters: a document of the mixture is at least so long


@dataclass(frozen=True)
class Scale:
    """How large the study is."""

    layers: int = 4
    hidden_size: int = 192
    heads: int = 6
    vocab_size: int = 4096
    context_length: int = 256
    tokens: int = 819_200  # that an expert reads
    batch_tokens: int = 2048
    learning_rate: float = 2e-3
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt
    held_out_characters: int = 100_000  # of each text, at most


SMOKE = Scale(
    layers=1, hidden_size=32, heads=2, vocab_size=600, context_length=32, tokens=1024, batch_tokens=128,
    vocabulary_characters=20_000, held_out_characters=2_000,
)  # fmt: skip


def main() -> None:
    arguments = parse_arguments()
    scale = SMOKE if arguments.smoke else Scale()
    if arguments.run:
        kind, seed = arguments.run
        torch.set_num_threads(1)
        if kind == "measure":
            measure(int(seed), arguments.seeds, scale, arguments.data, arguments.work)
        else:
            train(kind, int(seed), scale, arguments.data, arguments.work)
        return
    kinds = [*(f"expert_{language}" for language in LANGUAGES), "union"]
    training = [(kind, seed) for seed in range(arguments.seeds) for kind in kinds]
    measuring = [("measure", seed) for seed in range(arguments.seeds)]
    if not arguments.report:
        build_ground(scale, arguments.data, arguments.work)
        run_jobs(training, arguments.work, arguments.processes)
        run_jobs(measuring, arguments.work, arguments.processes)
    results = read_results(arguments.work, [*training, *measuring])
    report = summarise(results, scale, arguments.seeds)
    write_report(arguments.out, report, as_markdown(report))


def parse_arguments() -> argparse.Namespace:
    parser = study_arguments("composition-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: the sets `six` and `twins` take experts of two seeds")
    return arguments


def text_file(data: Path, language: str, held_out: bool = False) -> Path:
    return data / "text" / f"{language}{'.valid' if held_out else ''}.txt"


# --- training ---------------------------------------------------------------------------------------------------------


def build_ground(scale: Scale, data: Path, work: Path) -> None:
    """The substrate that all runs share, its vocabulary learnt from the beginning of each language's training text."""
    from frozen_glyph import GlyphSubstrate, build_tokenizer
    from frozen_glyph.text.documents import read_text, split_documents

    if not (work / "substrate" / "substrate.json").exists():
        texts = [read_text(text_file(data, language))[: scale.vocabulary_characters] for language in LANGUAGES]
        documents = [document for text in texts for document in split_documents(text)]
        tokenizer = build_tokenizer(documents, scale.vocab_size)
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def train(kind: str, seed: int, scale: Scale, data: Path, work: Path) -> None:
    """Train one expert, or the union, and write what it cost."""
    from frozen_glyph import grow_from_recipe
    from frozen_glyph.growth.estimate import estimate
    from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe, SubstrateRecipe
    from frozen_glyph.training.recipe import TrainingRecipe

    languages = LANGUAGES if kind == "union" else (kind.removeprefix("expert_"),)
    recipe = GrowthRecipe(
        name=kind,
        model={"hidden_size": scale.hidden_size, "num_attention_heads": scale.heads},
        stages=[StageRecipe(layers=scale.layers, tokens=scale.tokens * len(languages))],
        substrate=SubstrateRecipe(vocab_size=scale.vocab_size),
        training=TrainingRecipe(
            context_length=scale.context_length,
            batch_tokens=scale.batch_tokens,
            learning_rate=scale.learning_rate,
            warmup_steps=20,
            save_steps=200,
        ),
        seed=seed,
    )
    texts = [text_file(data, language) for language in languages]
    provenance = grow_from_recipe(recipe, work / job_name((kind, seed)), texts, substrate=work / "substrate")
    cost = {"flops": sum(phase["flops"] for phase in estimate(recipe))}
    cost |= {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "parameters")}
    write_result(work, (kind, seed), cost)


# --- measuring --------------------------------------------------------------------------------------------------------


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
    from frozen_glyph.text.documents import read_text

    texts = {language: read_text(text_file(data, language, held_out=True)) for language in LANGUAGES}
    shuffled = mixture(list(texts.values()))
    return {name: text[: scale.held_out_characters] for name, text in (texts | {"mixed": shuffled}).items()}


def average(models: list[Any]) -> Any:
    """A model whose weights are the mean of those of ``models``; the first one's substrate."""
    import copy

    result, states = copy.deepcopy(models[0]), [model.state_dict() for model in models]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name, _ in result.named_parameters()}
    result.load_state_dict(mean, strict=False)
    return result


def measure(seed: int, seeds: int, scale: Scale, data: Path, work: Path) -> None:
    """Score every model, and every rule over every set of experts, on every text: nats of each window."""
    from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate

    def load(kind: str, of_seed: int) -> Any:
        return FrozenGlyphForCausalLM.from_pretrained(work / job_name((kind, of_seed))).eval()

    here = {language: load(f"expert_{language}", seed) for language in LANGUAGES}
    other = {language: load(f"expert_{language}", (seed + 1) % seeds) for language in LANGUAGES}
    models = [*here.values(), *other.values(), load("union", seed), average(list(here.values()))]
    single = {"en": 0, "ru": 1, "zh": 2, "union": 6, "average": 7}
    sets = {"two": [0, 1], "three": [0, 1, 2], "six": [0, 1, 2, 3, 4, 5], "twins": [0, 3]}
    tokenizer = GlyphSubstrate.from_pretrained(work / "substrate").tokenizer
    result: dict[str, Any] = {}
    for name, text in held_out_texts(scale, data).items():
        characters: list[int] = []
        nats: dict[str, list[float]] = {}
        for logits_MBTV, targets_BT, scored_BT, sizes in score_windows(models, tokenizer, text, scale.context_length):
            characters += sizes
            log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
            losses = {f"single/{key}": -log_probs_MBT[index] for key, index in single.items()}
            for key, members in sets.items():
                logits, log_probs = logits_MBTV[members], log_probs_MBT[members]
                for rule in RULES:
                    losses[f"{key}/{rule}"] = RULES[rule].nats(logits, log_probs, targets_BT)
            for key, loss_BT in losses.items():
                nats.setdefault(key, []).extend((loss_BT * scored_BT).double().sum(-1).tolist())
        result[name] = {"characters": characters, "nats": nats}
    write_result(work, ("measure", seed), result)


@torch.no_grad()
def score_windows(
    models: list[Any], tokenizer: Any, text: str, context_length: int, batch_size: int = 8
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]]:
    """Batches of the windows that ``text_loss`` scores: each model's logits [M, B, T, V], the tokens they predict and
    which of these are scored [B, T], and the characters of each window."""
    from frozen_glyph.text.loss import windows_of

    windows = windows_of(text, tokenizer, context_length)
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        length = max(len(window.input_ids) for window in batch)
        ids_BT = torch.zeros(len(batch), length, dtype=torch.long)
        scored_BT = torch.zeros(len(batch), length - 1)
        for row, window in enumerate(batch):
            ids_BT[row, : len(window.input_ids)] = torch.tensor(window.input_ids)
            scored_BT[row, window.first_scored - 1 : len(window.input_ids) - 1] = 1
        logits = [model(input_ids=ids_BT[:, :-1], use_cache=False).logits.float() for model in models]
        yield torch.stack(logits), ids_BT[:, 1:], scored_BT, [window.characters for window in batch]


if __name__ == "__main__":
    main()
