"""What a device reaches: training, reading and writing, scoring, and the growth of a small model; for ``gpu.py``."""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eval.bench import generate
from eval.bench.gpu_checks import tried
from eval.bench.models import build_llama, build_model
from eval.bench.timing import Clock, alternate
from eval.bench.training_step import TrainingStep, count_flops, speed
from frozen_glyph import build_tokenizer, grow_from_recipe
from frozen_glyph.demo.documents import draw_world, write_documents
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.substrate.recipe import SubstrateRecipe
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.recipe import TrainingRecipe

VOCABULARY = 2048  # of the synthetic text
GROWN_WIDTH = 256


def synthetic_text(size: int) -> str:
    """Documents of the demo's invented world, about ``size`` bytes of English."""
    world = draw_world(random.Random("gpu world"))
    return "\n\n".join(write_documents(random.Random("gpu text"), world, "en", {"both"}, size)) + "\n"


def training(arguments: argparse.Namespace, depth: int) -> dict[str, Any]:
    """Steps of a stage that grows the newest third, of all blocks at once, and of Llama, each alone on the device."""
    frozen = depth - max(1, depth // 3)
    contestants: dict[str, Callable[[], torch.nn.Module]] = {
        f"grown stage, {frozen} of {depth} blocks frozen": lambda: build_model(arguments, depth, frozen),
        f"monolithic, {depth} blocks": lambda: build_model(arguments, depth),
        f"llama, {depth} blocks": lambda: build_llama(arguments, depth, tied=False).to(arguments.device).train(),
    }
    return {name: tried(lambda build=build: step_speed(build(), arguments)) for name, build in contestants.items()}


def step_speed(model: torch.nn.Module, arguments: argparse.Namespace) -> dict[str, Any]:
    cuda = arguments.device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = TrainingStep(model, arguments)
    flops = count_flops(step)  # warm-up, which makes the optimizer's state
    seconds = alternate({"step": step.seconds}, arguments.repeats, warm_up=1)["step"]
    peak = round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None
    return {**speed(seconds, flops, arguments), "peak_gibibytes": peak}


def merged(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reading and writing of a model merged of three experts under every rule, over one expert and Llama."""
    shape = vars(generate.parse_arguments([])) | vars(arguments)
    changes = {"layers": min(arguments.depths), "experts": 3, "batch": min(arguments.batch, 16)}
    found = generate.measure(argparse.Namespace(**shape | changes))
    return {
        f"{name}, batch {batch}": {
            "tokens_per_second": row["tokens_per_second"],
            **{f"{part}_over_expert": row[part]["over_expert"] for part in ("reading", "writing")},
        }
        for batch, rows in found["batches"].items()
        for name, row in rows.items()
    }


def scoring(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of ``text_loss`` over synthetic text."""
    text = synthetic_text(arguments.bytes // 4)
    tokenizer = build_tokenizer([text], VOCABULARY)
    shape = argparse.Namespace(**vars(arguments) | {"vocab": len(tokenizer)})
    model = build_model(shape, min(arguments.depths)).eval()
    text_loss(model, tokenizer, text[: len(text) // 8], arguments.context)  # warm-up
    clock = Clock(arguments.device)
    found = text_loss(model, tokenizer, text, arguments.context)
    seconds = clock.read().wall
    return {"text loss": {"tokens": found.tokens, "tokens_per_second": round(found.tokens / seconds, 1)}}


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """A run of three stages on synthetic text, from vocabulary to the loss of held-out text."""
    context = min(arguments.context, 256)
    recipe = GrowthRecipe(
        name="gpu",
        model={"hidden_size": min(arguments.width, GROWN_WIDTH), "num_attention_heads": 8},
        substrate=SubstrateRecipe(vocab_size=VOCABULARY, layout="random"),  # codes need no font
        stages=[StageRecipe(steps=arguments.steps) for _ in range(3)],
        training=TrainingRecipe(
            context_length=context,
            batch_tokens=arguments.batch * context,
            warmup_steps=min(20, arguments.steps // 2),
            precision=arguments.precision,
            save_steps=arguments.steps,
        ),
    )
    text = synthetic_text(arguments.bytes)
    middle = text.index("\n\n", len(text) * 9 // 10)
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary, "train.txt"), Path(temporary, "valid.txt")
        for file, part in zip(files, (text[:middle], text[middle:]), strict=True):
            file.write_text(part, encoding="utf-8")
        clock = Clock(arguments.device)
        provenance = grow_from_recipe(recipe, Path(temporary, "run"), [files[0]], [files[1]])
        seconds = clock.read().wall
    losses = [stage["nats_per_character"]["valid.txt"] for stage in provenance["stages"]]
    first, last = losses[0], losses[-1]
    return {
        "three stages": {
            "nats_per_character": [round(loss, 4) for loss in losses],
            "seconds": round(seconds, 1),
            "holds": first == first and last < float("inf"),
        }
    }
