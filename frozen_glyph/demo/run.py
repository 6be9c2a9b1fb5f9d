"""The whole product in minutes on two CPU cores: corpus, substrate, two experts grown in stages, merge, report.

Command: ``frozen-glyph demo --out runs/demo``
"""

import time
from functools import partial
from pathlib import Path

from rich.console import Console

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.checkpoint.places import one_writer
from frozen_glyph.demo.corpus import Corpus, build_corpus
from frozen_glyph.demo.documents import EXPERTS
from frozen_glyph.demo.report import tell_of_demo
from frozen_glyph.demo.tasks import write_tasks
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.evaluate import HUB, evaluate_models
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.merge.write import merge_experts
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
from frozen_glyph.training.recipe import TrainingRecipe

VOCAB_SIZE = 1024
HIDDEN_SIZE = 192
MODEL = {"hidden_size": HIDDEN_SIZE, "num_attention_heads": 6, "initializer_range": 0.08}
STAGES = 3
STEPS = 600
TRAINING = TrainingRecipe(
    context_length=128,
    batch_tokens=2048,
    learning_rate=4e-3,
    schedule="warmup_stable_decay",
    warmup_steps=50,
    save_steps=300,
)


def demo_recipe(expert: str, seed: int, steps: int = STEPS) -> GrowthRecipe:
    """The growth recipe of one expert."""
    first = StageRecipe(layers=1, steps=steps)
    later = [StageRecipe(layers=1, steps=steps, init="copy_zero", optimizer="carried") for _ in range(STAGES - 1)]
    return GrowthRecipe(f"demo-{expert}", MODEL, [first, *later], training=TRAINING, decay="run", seed=seed)


@one_writer("out")
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
    evaluate_models(
        [out / "merged", *(out / expert for expert in EXPERTS)],
        HUB,
        out,
        tasks=write_tasks(out / "tasks", corpus.questions),
        task_folders=[out / "tasks"],
        texts=[out / "data" / f"{name}.valid.txt" for name in corpus.valid],
        rules=list(RULES),
        seed=seed,
        answers=False,
        progress=progress,
        amend=partial(tell_of_demo, corpus=corpus, substrate=substrate, steps=steps, started=started),
    )
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
