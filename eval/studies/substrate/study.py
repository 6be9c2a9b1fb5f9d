"""Train the same small model on several substrates and on a trainable embedding: which one learns real text best?

Command: ``python -m eval.studies.substrate --data DIR --out eval/results/substrate-study``
(24 runs of about 200 processor seconds; a stopped study goes on with the runs it has not finished).

Everything but the embedding is equal at one seed: tokenizer, initial blocks and head, batches and their order,
optimiser, schedule. The question is that of arXiv 2507.04886 and 2605.09751; the scale is far smaller.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import AutoTokenizer

from eval.studies.substrate.report import make_report, report_markdown
from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, GlyphSubstrate, build_tokenizer
from frozen_glyph.checkpoint.files import read_json, sha256_file, sha256_json, write_json, write_text
from frozen_glyph.substrate.vocabulary import tokenizer_sha256
from frozen_glyph.text.documents import read_text, split_documents
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.data import TokenWindows, pack
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe
from frozen_glyph.training.train import uses_bf16

LANGUAGES = ("en", "ru", "zh")
KINDS = ("grid", "published", "binary", "random", "trainable", "random-trained")  # the last two train the embedding
CHECK_KINDS = ("grid", "random", "trainable")  # also trained at other learning rates
PIECE = 4096  # characters: at least so much of a book stays together in the training text
CURVE = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the budget after which the model is also scored
CURVE_SHARE = 1 / 8  # of every held-out text is read for the curve

_steps_done: Any = None  # counter that the worker processes share with the progress bar


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share."""

    steps: int = 400
    batch_size: int = 8
    context_length: int = 256
    layers: int = 2
    width: int = 256
    heads: int = 8
    vocab_size: int = 4096
    megabytes: float = 3.0  # of training text, all languages together
    warmup_steps: int = 50
    final_learning_rate_ratio: float = 0.1
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_size * self.context_length


SMOKE = Settings(
    steps=8,
    batch_size=2,
    context_length=64,
    layers=1,
    width=64,
    heads=2,
    vocab_size=512,
    megabytes=0.06,
    warmup_steps=2,
)


class Run(NamedTuple):
    """One training run."""

    kind: str
    seed: int
    learning_rate: float

    @property
    def file(self) -> str:
        return f"{self.kind}-seed{self.seed}-lr{self.learning_rate:g}.json"


# --- data -------------------------------------------------------------------------------------------------------------


def sample_text(text: str, size: int) -> str:
    """About ``size`` bytes of ``text``: runs of whole paragraphs, drawn with a fixed seed, each its own document."""
    pieces = []
    for document in split_documents(text):
        lines: list[str] = []
        for line in document.splitlines():
            lines.append(line)
            if sum(map(len, lines)) >= PIECE:
                pieces.append("\n".join(lines))
                lines = []
        pieces += ["\n".join(lines)] if lines else []
    taken, total = [], 0
    for index in np.random.default_rng(0).permutation(len(pieces)):
        if total >= size:
            break
        taken.append(pieces[index])
        total += len(pieces[index].encode())
    return "\n\n".join(taken) + "\n"


def prepare(data: Path, work: Path, settings: Settings) -> Path:
    """Sample the training text and learn the tokenizer, once; return the folder of this very study in ``work``."""
    files = [data / "text" / f"{language}{end}" for language in LANGUAGES for end in (".txt", ".valid.txt")]
    for path in files:
        read_text(path)  # a missing file is named before anything is written
    identity = {"settings": dataclasses.asdict(settings), "texts": {path.name: sha256_file(path) for path in files}}
    folder = work / sha256_json(identity)[:12]
    if not (folder / "study.json").exists():
        share = int(settings.megabytes * 1e6 / len(LANGUAGES))
        for language in LANGUAGES:
            write_text(folder / f"{language}.txt", sample_text(read_text(data / "text" / f"{language}.txt"), share))
        texts = [read_text(folder / f"{language}.txt") for language in LANGUAGES]
        build_tokenizer(texts, settings.vocab_size).save_pretrained(folder)
        write_json(folder / "study.json", identity)  # the mark that the folder is complete
    return folder


def open_windows(folder: Path, tokenizer: Any, context_length: int) -> TokenWindows:
    """The training text of all languages as windows of tokens."""
    sources = [SourceRecipe(files=[str(folder / f"{language}.txt") for language in LANGUAGES])]
    return TokenWindows(pack(DataRecipe(sources), tokenizer, tokenizer_sha256(tokenizer), folder), context_length)


def batch_order(windows: int, settings: Settings, seed: int) -> torch.Tensor:
    """Numbers of the windows of each step, [steps, batch]; every window is read before one is read again."""
    needed = settings.steps * settings.batch_size
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(windows, generator=generator) for _ in range(math.ceil(needed / windows))]
    return torch.cat(epochs)[:needed].view(settings.steps, settings.batch_size)


def chance_levels(data: Path, folder: Path, settings: Settings) -> dict[str, dict[str, float]]:
    """Nats per character of guessing: all tokens equally likely, and as often as in the training text (plus one)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    counts = np.bincount(open_windows(folder, tokenizer, settings.context_length).tokens, minlength=len(tokenizer)) + 1
    nats = -np.log(counts / counts.sum())
    levels = {}
    for language in LANGUAGES:
        documents = split_documents(read_text(data / "text" / f"{language}.valid.txt"))
        ids = np.concatenate([tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents])
        characters = sum(map(len, documents))
        uniform = len(ids) * math.log(len(tokenizer)) / characters
        levels[language] = {"uniform": uniform, "unigram": float(nats[ids].sum()) / characters}
    return levels


# --- one run ----------------------------------------------------------------------------------------------------------


def build_model(
    kind: str, seed: int, tokenizer: Any, settings: Settings
) -> tuple[FrozenGlyphForCausalLM, dict[str, Any]]:
    """A fresh model on substrate ``kind``, and facts about it; blocks and head follow from ``seed`` alone.

    ``trainable`` starts as transformers initialises an embedding, ``random-trained`` with the vectors of ``random``.
    """
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": settings.context_length,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    }
    torch.manual_seed(seed)
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields, substrate_trainable=True))
    if kind == "trainable":
        return model, {}
    layout = "random" if kind == "random-trained" else kind
    glyphs = GlyphSubstrate.build(tokenizer, width=settings.width, layout=layout, seed=seed)
    facts = {key: glyphs.provenance[key] for key in ("bits", "width", "collisions", "smallest_distance")}
    if kind == "random-trained":
        model.substrate.load_state_dict({"weight": glyphs.as_embedding().weight})
        return model, facts
    frozen = FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields, substrate_bits=glyphs.bits))
    frozen.load_state_dict({**frozen.state_dict(), **shared_tensors(model)})
    frozen.substrate.load_state_dict(glyphs.as_embedding().state_dict())
    frozen.substrate.materialize()
    return frozen, facts


def shared_tensors(model: FrozenGlyphForCausalLM) -> dict[str, torch.Tensor]:
    """All stored tensors but the embedding."""
    return {name: tensor for name, tensor in model.state_dict().items() if "embed_tokens" not in name}


def effective_dimensions(vectors: torch.Tensor) -> float:
    """How many directions carry the spread of ``vectors`` [V, D]: (sum of variances)^2 / sum of squared variances."""
    variances = torch.linalg.eigvalsh(torch.cov(vectors.detach().double().T)).clamp_min(0)
    return float(variances.sum() ** 2 / variances.square().sum())


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over names and bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def train(
    model: FrozenGlyphForCausalLM, windows: TokenWindows, order: torch.Tensor, learning_rate: float, settings: Settings
) -> Iterator[float]:
    """Train on the windows that ``order`` names and yield the loss of each step: AdamW, warm-up, cosine decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    others = [parameter for parameter in trainable if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)

    def rate(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        done = (step - settings.warmup_steps) / max(1, len(order) - settings.warmup_steps)
        low = settings.final_learning_rate_ratio
        return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    for chosen in order.tolist():
        input_ids = torch.stack([windows[index]["input_ids"] for index in chosen])
        with autocast():
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item()


def autocast() -> torch.autocast:
    """bfloat16 where this processor multiplies it natively, for training and scoring alike."""
    return torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16("auto"))


def carry_out(run: Run, data: Path, folder: Path, settings: Settings) -> None:
    """Train and score one model on one thread, and write the run's file."""
    torch.set_num_threads(1)
    started, cpu = time.monotonic(), time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = {language: read_text(data / "text" / f"{language}.valid.txt") for language in LANGUAGES}
    excerpts = {language: text[: int(len(text) * CURVE_SHARE)] for language, text in held_out.items()}
    windows = open_windows(folder, tokenizer, settings.context_length)
    order = batch_order(len(windows), settings, run.seed)
    model, facts = build_model(run.kind, run.seed, tokenizer, settings)
    start = digest(shared_tensors(model))
    norm = float(model.substrate.weight.detach().norm(dim=1).mean())

    def score(texts: dict[str, str]) -> dict[str, Any]:
        with autocast():
            return {language: text_loss(model, tokenizer, text) for language, text in texts.items()}

    points = {max(1, round(share * settings.steps)) for share in CURVE}
    losses, curve = [], []
    for step, loss in enumerate(train(model, windows, order, run.learning_rate, settings), start=1):
        losses.append(loss)
        if step in points:
            curve.append({"step": step, **{name: part.nats_per_character for name, part in score(excerpts).items()}})
        if _steps_done is not None:
            with _steps_done.get_lock():
                _steps_done.value += 1
    parts = score(held_out)
    result = {
        **run._asdict(),
        "substrate": facts,
        "initial_blocks_and_head": start,
        "batch_order": digest({"order": order}),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embedding_norm": [norm, float(model.substrate.weight.detach().norm(dim=1).mean())],
        "train_loss": [float(np.mean(chunk)) for chunk in np.array_split(losses, min(10, len(losses)))],
        "curve": curve,
        "precision": "bf16" if uses_bf16("auto") else "fp32",
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "texts": {
            language: {"nats": part.nats.tolist(), "characters": part.characters.tolist(), "tokens": part.tokens}
            for language, part in parts.items()
        },
    }
    write_text(folder / run.file, json.dumps(result))


def _share_counter(counter: Any) -> None:
    global _steps_done
    _steps_done = counter


def carry_out_all(runs: list[Run], data: Path, folder: Path, settings: Settings, jobs: int) -> None:
    """Carry out the runs that have no file yet, ``jobs`` at a time, under one progress bar."""
    missing = [run for run in runs if not (folder / run.file).exists()]
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    bar = Progress(
        *Progress.get_default_columns()[:2],
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    open_windows(folder, AutoTokenizer.from_pretrained(folder), settings.context_length)  # packed once, for all runs
    with bar, ProcessPoolExecutor(jobs, context, _share_counter, (counter,)) as pool:
        task = bar.add_task(f"{len(missing)} of {len(runs)} runs", total=len(missing) * settings.steps)
        files = {pool.submit(carry_out, run, data, folder, settings): run.file for run in missing}
        pending = set(files)
        while pending:
            done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            bar.update(task, completed=counter.value)
            for future in done:
                future.result()
                bar.console.print(f"{files[future]} is written; runs to go: {len(pending)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with text/{en,ru,zh}.txt and .valid.txt")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    parser.add_argument("--work", type=Path, default=Path("runs/substrate-study"), help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=int, help=f"optimiser steps of a run (default: {Settings.steps})")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--check-rates", nargs="*", type=float, default=[1e-3, 4e-3], help="tried at the first seed")
    parser.add_argument("--check-kinds", nargs="*", choices=KINDS, default=CHECK_KINDS, help="that try them")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a size that takes seconds a run and shows nothing")
    arguments = parser.parse_args()
    settings = SMOKE if arguments.smoke else Settings()
    if arguments.steps:
        settings = dataclasses.replace(settings, steps=arguments.steps)
    rate, seeds = arguments.rate, arguments.seeds
    runs = [Run(kind, seed, rate) for seed in seeds for kind in arguments.kinds]
    runs += [Run(kind, seeds[0], other) for other in arguments.check_rates for kind in arguments.check_kinds]
    runs = list(dict.fromkeys(runs))
    folder = prepare(arguments.data, arguments.work, settings)
    carry_out_all(runs, arguments.data, folder, settings, arguments.jobs)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fresh = {kind: build_model(kind, seeds[0], tokenizer, settings)[0].substrate.weight for kind in arguments.kinds}
    report = make_report(
        [read_json(folder / run.file) for run in runs],
        dataclasses.asdict(settings) | {"tokens": settings.tokens, "curve_share": CURVE_SHARE},
        rate,
        chance_levels(arguments.data, folder, settings),
        {kind: effective_dimensions(vectors) for kind, vectors in fresh.items()},
        read_json(folder / "study.json")["texts"],
    )
    write_json(arguments.out.with_suffix(".json"), report)
    write_text(arguments.out.with_suffix(".md"), report_markdown(report))
