"""One run of the substrate study: a model on one kind of embedding, trained by the package's trainer and scored."""

import hashlib
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, TrainerCallback

from eval.studies.substrate.arms import build_model, shared_tensors
from eval.studies.substrate.data import Scale, open_windows, text_of
from eval.studies.substrate.rarity import score_text, times_read
from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.precision import uses_bf16
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.train import Phase, train_phase

CURVE = (1 / 4, 1 / 2, 1)  # shares of the budget after which the model is scored on the development texts


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over names and bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def train(
    model: FrozenGlyphForCausalLM, windows: TokenWindows, seed: int, learning_rate: float, scale: Scale, *callbacks: Any
) -> tuple[list[float], list[int]]:
    """Train what of ``model`` requires gradients; the logged losses, and the windows in the order they were read."""
    recipe = TrainingRecipe(
        context_length=scale.context_length,
        batch_tokens=scale.batch_tokens,
        learning_rate=learning_rate,
        warmup_steps=scale.warmup_steps,
        final_learning_rate_ratio=scale.final_learning_rate_ratio,
        weight_decay=scale.weight_decay,
        max_grad_norm=scale.max_grad_norm,
        save_steps=scale.steps,
    )
    order: list[int] = []

    def note_order(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        order.extend(inputs["index"])
        return {name: tensor for name, tensor in inputs.items() if name != "index"}

    phase = Phase(scale.steps, learning_rate, seed)
    with tempfile.TemporaryDirectory() as work:
        record = train_phase(model, windows, phase, recipe, Path(work), callbacks, prepare_inputs=note_order)
    return [entry["loss"] for entry in record["history"] if "loss" in entry], order


class Curve(TrainerCallback):
    """Scores the model on the development texts at some steps on the way."""

    def __init__(self, tokenizer: Any, texts: dict[str, str], steps: int) -> None:
        self.tokenizer, self.texts = tokenizer, texts
        self.steps = {max(1, round(share * steps)) for share in CURVE}
        self.points: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            with scoring():
                losses = {name: text_loss(model, self.tokenizer, text) for name, text in self.texts.items()}
            self.points.append(
                {"step": state.global_step, **{name: loss.nats_per_character for name, loss in losses.items()}}
            )


def scoring() -> AbstractContextManager[Any]:
    """In bfloat16 where this processor multiplies it natively, as in training."""
    return torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16("auto"))


def run(kind: str, seed: int, learning_rate: float, scale: Scale, folder: Path) -> dict[str, Any]:
    """Train and score one model."""
    return train_and_score(kind, seed, learning_rate, scale, folder)[0]


def train_and_score(
    kind: str, seed: int, learning_rate: float, scale: Scale, folder: Path
) -> tuple[dict[str, Any], FrozenGlyphForCausalLM, np.ndarray]:
    """What a run stores, the model, and how often it has read each token [V]."""
    started, cpu = time.monotonic(), time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    windows = open_windows(folder, tokenizer, scale.context_length)
    model, facts = build_model(kind, seed, tokenizer, scale)
    start, norm = digest(shared_tensors(model)), mean_norm(model)
    development = {language: text_of(folder, language, "development") for language in scale.languages}
    curve = Curve(tokenizer, development, scale.steps)
    losses, order = train(model, windows, seed, learning_rate, scale, curve)
    read_V = times_read(windows, order, len(tokenizer))
    with scoring():
        texts = {
            language: score_text(model, tokenizer, text_of(folder, language, "held-out"), scale.context_length, read_V)
            for language in scale.languages
        }
    result = {
        "substrate": facts,
        "initial_blocks_and_head": start,
        "batch_order": digest({"order": torch.tensor(order)}),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embedding_norm": [norm, mean_norm(model)],
        "train_loss": losses,
        "curve": curve.points,
        "development": float(np.mean([curve.points[-1][language] for language in scale.languages])),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "texts": texts,
    }
    return result, model, read_V


def mean_norm(model: FrozenGlyphForCausalLM) -> float:
    """Mean length of the token vectors."""
    return float(model.substrate.weight.detach().norm(dim=1).mean())
