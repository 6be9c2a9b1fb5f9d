"""Is what was learnt kept when a model goes on to learn something else? Growing, fine-tuning, replay and merging.

    python -m eval.studies.forgetting --data DIR --out eval/results/forgetting-study

DIR holds text/{en,ru}.txt and .valid.txt. The same command resumes a study that was stopped. For each seed:

    english         blocks trained on English: what there is to forget
    russian         the same on Russian alone
    grown           on `english`, frozen, as many new blocks and the head read Russian: as much trains at a time
    tuned           `english` goes on with Russian, all its blocks and the head training
    grown-replay    as `grown` and `tuned`, half of the tokens English
    tuned-replay
    english+russian both merged, under each rule: nothing is trained
    english+grown   the grown model merged with its own first stage: their common blocks are stored once

Every training reads the same number of tokens in the same number of steps.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.studies.common.jobs import job_name, read_results, run_jobs, study_arguments, write_report, write_result
from eval.studies.forgetting.report import as_markdown, summarise

LANGUAGES = ("en", "ru")
FIRST = {"english": ("en",), "russian": ("ru",)}  # what the trainings from nothing read
NEXT = {"grown": ("ru",), "tuned": ("ru",), "grown-replay": LANGUAGES, "tuned-replay": LANGUAGES}
MERGED = {"english+russian": ("mean", "posterior", "evidence"), "english+grown": ("posterior", "evidence")}


@dataclass(frozen=True)
class Scale:
    """How large the study is."""

    layers: int = 2  # of the first stage, and that `grown` adds
    hidden_size: int = 192
    heads: int = 6
    vocab_size: int = 4096
    context_length: int = 256
    tokens: int = 229_376  # of each training
    batch_tokens: int = 2048
    learning_rate: float = 2e-3
    vocabulary_characters: int = 1_500_000  # of each language, from which the vocabulary is learnt
    held_out_characters: int = 100_000  # of each text, at most


SMOKE = Scale(
    layers=1, hidden_size=32, heads=2, vocab_size=600, context_length=32, tokens=1024, batch_tokens=128,
    vocabulary_characters=20_000, held_out_characters=2_000,
)  # fmt: skip


def main() -> None:
    arguments = study_arguments("forgetting-study", __doc__, "text/{en,ru}.txt and .valid.txt").parse_args()
    scale = SMOKE if arguments.smoke else Scale()
    if arguments.run:
        import torch

        torch.set_num_threads(1)
        kind, seed = arguments.run
        common = int(seed), scale, arguments.data, arguments.work
        write_result(arguments.work, arguments.run, measure(*common) if kind == "measure" else train(kind, *common))
        return
    seeds = range(arguments.seeds)
    first, after, measuring = (
        [(kind, seed) for seed in seeds for kind in kinds] for kinds in (FIRST, NEXT, ("measure",))
    )
    if not arguments.report:
        build_ground(scale, arguments.data, arguments.work)
        for jobs in (first, after, measuring):
            run_jobs(jobs, arguments.work, arguments.processes)
    report = summarise(read_results(arguments.work, [*first, *after, *measuring]), scale)
    write_report(arguments.out, report, as_markdown(report))


def build_ground(scale: Scale, data: Path, work: Path) -> None:
    """The substrate that all runs share, its vocabulary learnt from the beginning of both training texts."""
    from frozen_glyph import GlyphSubstrate, build_tokenizer
    from frozen_glyph.text.documents import read_text, split_documents

    if not (work / "substrate" / "substrate.json").exists():
        texts = [read_text(data / "text" / f"{language}.txt") for language in LANGUAGES]
        beginnings = [text[: scale.vocabulary_characters] for text in texts]
        documents = [document for text in beginnings for document in split_documents(text)]
        tokenizer = build_tokenizer(documents, scale.vocab_size)
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def recipe_of(kind: str, seed: int, scale: Scale, data: Path, work: Path) -> Any:
    """The growth recipe of a training: one stage, in a folder of its own or on the first stage of `english`."""
    from frozen_glyph.growth.recipe import GrowthRecipe, ParentRecipe, StageRecipe, SubstrateRecipe
    from frozen_glyph.training.recipe import DataRecipe, SourceRecipe, TrainingRecipe

    files = [str(data / "text" / f"{language}.txt") for language in (FIRST | NEXT)[kind]]
    weight = 1.0 if len(files) > 1 else None  # equal shares of the tokens
    parent = ParentRecipe(str(work / job_name(("english", seed)))) if kind in NEXT else None
    new_blocks = 0 if kind.startswith("tuned") else scale.layers  # 0: the blocks that there are go on training
    return GrowthRecipe(
        name=kind,
        model={"hidden_size": scale.hidden_size, "num_attention_heads": scale.heads},
        stages=[StageRecipe(layers=new_blocks, tokens=scale.tokens)],
        substrate=SubstrateRecipe(vocab_size=scale.vocab_size),
        data=DataRecipe([SourceRecipe(files=[file], weight=weight) for file in files]),
        training=TrainingRecipe(
            context_length=scale.context_length,
            batch_tokens=scale.batch_tokens,
            learning_rate=scale.learning_rate,
            warmup_steps=20,
            save_steps=200,
        ),
        parent=parent,
        seed=seed,
    )


def train(kind: str, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Carry one training out; what it cost."""
    from frozen_glyph import grow_from_recipe
    from frozen_glyph.growth.estimate import estimate

    recipe = recipe_of(kind, seed, scale, data, work)
    substrate = None if kind in NEXT else work / "substrate"  # what has a parent stands on the parent's
    provenance = grow_from_recipe(recipe, work / job_name((kind, seed)), substrate=substrate)
    record = {name: provenance["stages"][-1][name] for name in ("tokens", "seconds", "trainable_parameters")}
    cost = {"flops": sum(phase["flops"] for phase in estimate(recipe)), "cpu_seconds": time.process_time()}
    return record | cost | {"parameters": provenance["stages"][-1]["parameters"]}


def measure(seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Nats of every window of both held-out texts, and whether `english` is still in `grown` to the bit.

    The predictions of a merged model are computed from those of its experts, as the composition study does.
    """
    import torch

    from eval.studies.composition.__main__ import score_windows
    from eval.studies.composition.rules import RULES, log_probs_of
    from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate
    from frozen_glyph.text.documents import read_text

    folders = {kind: work / job_name((kind, seed)) for kind in FIRST | NEXT}
    models = [FrozenGlyphForCausalLM.from_pretrained(folder).eval() for folder in folders.values()]
    models.append(FrozenGlyphForCausalLM.from_pretrained(folders["grown"], growth_stage=1).eval())
    position = {kind: index for index, kind in enumerate(folders)}
    tokenizer = GlyphSubstrate.from_pretrained(work / "substrate").tokenizer
    same, losses = True, {}
    for language in LANGUAGES:
        text = read_text(data / "text" / f"{language}.valid.txt")[: scale.held_out_characters]
        characters: list[int] = []
        nats: dict[str, list[float]] = {}
        for logits_MBTV, targets_BT, scored_BT, sizes in score_windows(models, tokenizer, text, scale.context_length):
            characters += sizes
            same = same and torch.equal(logits_MBTV[position["english"]], logits_MBTV[-1])
            log_probs_MBT = log_probs_of(logits_MBTV, targets_BT)
            found = {kind: -log_probs_MBT[index] for kind, index in position.items()}
            for name, rules in MERGED.items():
                members = [position[expert] for expert in name.split("+")]
                for rule in rules:
                    mixed = RULES[rule].nats(logits_MBTV[members], log_probs_MBT[members], targets_BT)
                    found[f"{name}/{rule}"] = mixed
            for key, loss_BT in found.items():
                nats.setdefault(key, []).extend((loss_BT * scored_BT).double().sum(-1).tolist())
        losses[language] = {"characters": characters, "nats": nats}
    kept = {kind: bytes_of_stage_alone(folders[kind]) for kind in ("grown", "tuned")}
    record = {"losses": losses, "first_stage_identical": same, "bytes_of_first_stage": kept}
    return record | {"cpu_seconds": time.process_time()}


def bytes_of_stage_alone(folder: Path) -> int:
    """Bytes on disk that only the first of two stages needs: the price of keeping it."""
    from frozen_glyph.checkpoint.contract import stage_index
    from frozen_glyph.checkpoint.stages import read_weight_map

    first, second = (set(read_weight_map(folder / stage_index(stage)).values()) for stage in (1, 2))
    return sum((folder / shard).stat().st_size for shard in first - second)


if __name__ == "__main__":
    main()
