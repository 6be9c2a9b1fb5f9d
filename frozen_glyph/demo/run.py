"""The whole product in minutes on two CPU cores: corpus, substrate, two experts grown in stages, merge, report.

Command: ``frozen-glyph demo --out runs/demo``
"""

import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.checkpoint.reader import checkpoint_sha256
from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus, build_corpus
from frozen_glyph.demo.questions import Question
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.measure import measure_questions, measure_text
from frozen_glyph.evaluation.measurements import TaskPart, TextPart
from frozen_glyph.evaluation.report.compare import adjust, compare_losses, compare_scores, trends
from frozen_glyph.evaluation.report.schema import Comparison, ModelFacts, Report, Sample, Stage, Trend
from frozen_glyph.evaluation.report.summarise import summarise_loss, summarise_stage, summarise_task
from frozen_glyph.evaluation.report.write import write_report
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.merge.write import merge_experts
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
from frozen_glyph.substrate.picture import token_picture_png
from frozen_glyph.training.recipe import TrainingRecipe

EXPERTS = ("ru", "zh")
VOCAB_SIZE = 1024
HIDDEN_SIZE = 192
MODEL = {"hidden_size": HIDDEN_SIZE, "num_attention_heads": 6, "initializer_range": 0.08}
STAGES = 3
STEPS = 600
TRAINING = TrainingRecipe(context_length=128, batch_tokens=2048, learning_rate=4e-3, warmup_steps=50, save_steps=300)
PICTURED = 24
SAMPLE_TOKENS = 24


@dataclass(frozen=True)
class Measured:
    """One model's measurements, by text and by task."""

    texts: dict[str, TextPart]
    tasks: dict[str, TaskPart]


def demo_recipe(expert: str, seed: int, steps: int = STEPS) -> GrowthRecipe:
    """The growth recipe of one expert."""
    stages = [StageRecipe(layers=1, steps=steps) for _ in range(STAGES)]
    return GrowthRecipe(name=f"demo-{expert}", model=MODEL, stages=stages, training=TRAINING, seed=seed)


def run_demo(
    out: str | Path, seed: int = 0, progress: bool = False, steps: int = STEPS, corpus: Corpus | None = None
) -> Path:
    """Run the demo in folder ``out`` and return the path of its ``report.html``; a run that was stopped goes on.

    ``steps`` train each stage; ``corpus`` stands in for the one that ``seed`` gives.
    """
    out, started = Path(out), time.monotonic()
    say = Console(stderr=True, quiet=not progress).print
    say(f"[bold]1/5[/] synthetic corpus and glyph substrate (seed {seed})")
    corpus = corpus or build_corpus(seed)
    write_corpus(out / "data", corpus)
    substrate = open_substrate(out / "substrate", corpus)
    for number, expert in enumerate(EXPERTS, start=2):
        say(f"[bold]{number}/5[/] grow the {expert} expert in {STAGES} stages")
        recipe, training_text = demo_recipe(expert, seed, steps), [out / "data" / f"{expert}.txt"]
        valid = [out / "data" / f"{language}.valid.txt" for language in ("en", expert)]
        grow_from_recipe(recipe, out / expert, training_text, valid, out / "substrate", progress)
    say("[bold]4/5[/] merge the experts, without training")
    if not (out / "merged").exists():
        merge_experts([out / expert for expert in EXPERTS], out / "merged", names=EXPERTS)
    say("[bold]5/5[/] measure every stage, both experts and the merged model")
    report = build_report(out, corpus, substrate, seed, steps)
    report["provenance"]["seconds"] = round(time.monotonic() - started, 1)
    write_report(report, out)
    return out / "report.html"


def write_corpus(folder: Path, corpus: Corpus) -> None:
    """Write the texts as files; ``FrozenGlyphError`` if the folder holds those of another demo."""
    held_out = {f"{language}.valid": text for language, text in corpus.valid.items()}
    for name, text in (corpus.train | held_out).items():
        path = folder / f"{name}.txt"
        if path.exists() and path.read_bytes() != text.encode():
            raise FrozenGlyphError(
                f"{str(path)!r} holds another text: the folder is of a demo with another seed or version; "
                "choose a new --out folder"
            )
        write_text(path, text)


def open_substrate(folder: Path, corpus: Corpus) -> GlyphSubstrate:
    """The substrate both experts share, built from both training texts on the first call."""
    if not (folder / "substrate.json").exists():
        tokenizer = build_tokenizer(corpus.train.values(), VOCAB_SIZE)
        GlyphSubstrate.build(tokenizer, width=HIDDEN_SIZE).save_pretrained(folder)
    return GlyphSubstrate.from_pretrained(folder)


def measure(model: Any, tokenizer: Any, texts: dict[str, str], questions: Iterable[Question]) -> Measured:
    """Score ``model`` on texts and questions; a task is named with the expert that alone read its facts."""
    by_task: dict[str, list[Question]] = {}
    for question in questions:
        name = question.task if question.expert == "both" else f"{question.task} ({question.expert} expert's)"
        by_task.setdefault(name, []).append(question)
    return Measured(
        {name: measure_text(model, tokenizer, text, TRAINING.context_length) for name, text in texts.items()},
        {name: measure_questions(model, tokenizer, group) for name, group in sorted(by_task.items())},
    )


def measure_growth(out: Path, expert: str, corpus: Corpus, tokenizer: Any) -> list[tuple[Any, Measured]]:
    """Each stage's model of an expert, measured on the texts and questions that the expert was trained for."""
    languages = ("en", expert)
    texts = {language: corpus.valid[language] for language in languages}
    questions = [q for q in corpus.questions if q.language in languages and q.expert in ("both", expert)]
    models = [
        FrozenGlyphForCausalLM.from_pretrained(out / expert, growth_stage=stage) for stage in range(1, STAGES + 1)
    ]
    return [(model, measure(model, tokenizer, texts, questions)) for model in models]


def summarise_growth(expert: str, grown: list[tuple[Any, Measured]], seed: int) -> list[Stage]:
    """An expert's stages as the report shows them."""
    stages = []
    for stage, (model, measured) in enumerate(grown, start=1):
        losses = [summarise_loss(expert, text, part, seed) for text, part in measured.texts.items()]
        scores = [score for task, part in measured.tasks.items() for score in summarise_task(expert, task, part, seed)]
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        stages.append(summarise_stage(stage, model.config.num_hidden_layers, trainable, losses, scores))
    return stages


def grown_trends(expert: str, grown: list[tuple[Any, Measured]], seed: int) -> list[Trend]:
    """What one more block changes, on everything that an expert's stages were measured on."""
    depths = [model.config.num_hidden_layers for model, _ in grown]
    measured = [own for _, own in grown]
    return trends(expert, depths, [own.texts for own in measured], [own.tasks for own in measured], seed)


def model_facts(label: str, folder: Path, model: Any) -> ModelFacts:
    """Which weights a label stands for."""
    rule = getattr(model.config, "rule", None)
    return {
        "label": label,
        "folder": folder.name,
        "rule": rule,
        "num_hidden_layers": STAGES if rule is None else STAGES * len(EXPERTS),
        "parameters": model.num_parameters(),
        "substrate_fingerprint": model.config.substrate_fingerprint,
        "weights_sha256": checkpoint_sha256(folder),
    }


def compare(first: tuple[str, Measured], second: tuple[str, Measured], seed: int) -> list[Comparison]:
    """Second minus first, paired, on every text and task that both were measured on."""
    (first_name, before), (second_name, after) = first, second
    rows = [
        *(
            compare_losses(name, (first_name, before.texts[name]), (second_name, part), seed)
            for name, part in after.texts.items()
        ),
        *(
            compare_scores(name, (first_name, before.tasks[name]), (second_name, part), seed)
            for name, part in after.tasks.items()
        ),
    ]
    return [row for row in rows if row is not None]


def build_report(out: Path, corpus: Corpus, substrate: GlyphSubstrate, seed: int, steps: int) -> Report:
    """Measure everything in ``out`` and put it into the report's shape."""
    tokenizer = substrate.tokenizer
    models: dict[str, Any] = {
        f"merged ({rule})": FrozenGlyphMoEForCausalLM.from_pretrained(out / "merged", rule=rule) for rule in RULES
    }
    merged = list(models)
    models |= {expert: FrozenGlyphForCausalLM.from_pretrained(out / expert) for expert in EXPERTS}
    measured = {name: measure(model, tokenizer, corpus.valid, corpus.questions) for name, model in models.items()}
    grown = {expert: measure_growth(out, expert, corpus, tokenizer) for expert in EXPERTS}
    comparisons = [
        *(
            row
            for rule in merged
            for expert in EXPERTS
            for row in compare((expert, measured[expert]), (rule, measured[rule]), seed)
        ),
        *(
            row
            for expert, stages in grown.items()
            for row in compare((f"{expert} stage 1", stages[0][1]), (f"{expert} stage {STAGES}", stages[-1][1]), seed)
        ),
    ]
    slopes = [row for expert, stages in grown.items() for row in grown_trends(expert, stages, seed)]
    comparisons, slopes = adjust(comparisons, slopes)
    shown = [token_id for token_id in range(len(tokenizer)) if len(tokenizer.convert_ids_to_tokens(token_id)) < 5]
    pictured = [*range(3), 3 + ord("A"), *shown[3 :: max(1, len(shown) // PICTURED)]][:PICTURED]
    return {
        "title": "frozen-glyph demo: two experts, grown in stages and merged without training",
        "note": SYNTHETIC_NOTE,
        "growth": {expert: summarise_growth(expert, stages, seed) for expert, stages in grown.items()},
        "losses": [
            summarise_loss(name, text, part, seed) for name, own in measured.items() for text, part in own.texts.items()
        ],
        "scores": [
            score
            for name, own in measured.items()
            for task, part in own.tasks.items()
            for score in summarise_task(name, task, part, seed)
        ],
        "trends": slopes,
        "comparisons": comparisons,
        "pictures": [
            {
                "title": "Some tokens of the substrate",
                "caption": "Each token's frozen bits; its vector is computed from these and never trained.",
                "png": token_picture_png(substrate, pictured),
            }
        ],
        "samples": list(generate_samples(models, tokenizer, corpus)),
        "provenance": {
            "models": [
                model_facts(name, out / (name if name in EXPERTS else "merged"), model)
                for name, model in models.items()
            ],
            "seed": seed,
            "versions": versions(),
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "settings": {
                "substrate": substrate.fingerprint,
                "vocabulary": len(tokenizer),
                "context length": TRAINING.context_length,
                "steps per stage": steps,
                "peak memory (MiB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
        },
    }


def generate_samples(models: dict[str, Any], tokenizer: Any, corpus: Corpus) -> Iterable[Sample]:
    """Greedy continuations of the first words of one held-out text per language."""
    for language in ("en", *EXPERTS):
        prompt = corpus.valid[language][:24]
        inputs = tokenizer(prompt, return_tensors="pt")
        for name, model in models.items():
            output = model.generate(**inputs, max_new_tokens=SAMPLE_TOKENS, do_sample=False)[0]
            text = tokenizer.decode(output[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            yield {"model": name, "prompt": prompt, "text": text}
