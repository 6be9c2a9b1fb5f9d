"""One run of the substrate study: a model on one kind of embedding, trained by the package's trainer and scored."""

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback

from eval.studies.common.ground import held_out_text
from eval.studies.common.losses import record_of
from eval.studies.substrate.data import LANGUAGES, Scale, open_windows
from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, GlyphSubstrate
from frozen_glyph.text.loss import TextLoss, text_loss
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.train import Phase, train_phase, uses_bf16

KINDS = ("grid", "published", "binary", "random", "trainable", "random-trained")  # the last two train the embedding
CURVE = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the budget after which the model is also scored
CURVE_SHARE = 1 / 8  # of every held-out text is read for the curve


def build_model(kind: str, seed: int, tokenizer: Any, scale: Scale) -> tuple[FrozenGlyphForCausalLM, dict[str, Any]]:
    """A fresh model on substrate ``kind``, and facts about it; blocks and head follow from ``seed`` alone.

    ``trainable`` starts as transformers initialises an embedding, ``random-trained`` with the vectors of ``random``.
    """
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": scale.hidden_size,
        "num_hidden_layers": scale.layers,
        "num_attention_heads": scale.heads,
        "max_position_embeddings": scale.context_length,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    }
    torch.manual_seed(seed)
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields, substrate_trainable=True))
    if kind == "trainable":
        return model, {}
    layout = "random" if kind == "random-trained" else kind
    glyphs = GlyphSubstrate.build(tokenizer, width=scale.hidden_size, layout=layout, seed=seed)
    facts = {key: glyphs.provenance[key] for key in ("bits", "width", "collisions", "smallest_distance")}
    if kind == "random-trained":
        model.substrate.load_state_dict({"weight": glyphs.as_embedding().weight})
        return model, facts
    frozen = FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields, substrate_bits=glyphs.bits, **glyphs.geometry))
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
        order.extend(inputs["index"].tolist())
        return {name: tensor for name, tensor in inputs.items() if name != "index"}

    phase = Phase(scale.steps, learning_rate, seed)
    with tempfile.TemporaryDirectory() as work:
        record = train_phase(model, windows, phase, recipe, Path(work), callbacks, prepare_inputs=note_order)
    return [entry["loss"] for entry in record["history"] if "loss" in entry], order


class Curve(TrainerCallback):
    """Scores the model on the beginning of each text at some steps on the way."""

    def __init__(self, tokenizer: Any, texts: dict[str, str], steps: int) -> None:
        self.tokenizer = tokenizer
        self.texts = {language: text[: int(len(text) * CURVE_SHARE)] for language, text in texts.items()}
        self.steps = {max(1, round(share * steps)) for share in CURVE}
        self.points: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            losses = score(model, self.tokenizer, self.texts)
            self.points.append(
                {"step": state.global_step, **{name: loss.nats_per_character for name, loss in losses.items()}}
            )


def score(model: Any, tokenizer: Any, texts: dict[str, str]) -> dict[str, TextLoss]:
    """In bfloat16 where this processor multiplies it natively, as in training."""
    with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16("auto")):
        return {language: text_loss(model, tokenizer, text) for language, text in texts.items()}


def run(kind: str, seed: int, learning_rate: float, scale: Scale, data: Path, folder: Path) -> dict[str, Any]:
    """Train and score one model."""
    started, cpu = time.monotonic(), time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = {language: held_out_text(data, language) for language in LANGUAGES}
    windows = open_windows(folder, tokenizer, scale.context_length)
    model, facts = build_model(kind, seed, tokenizer, scale)
    start, norm = digest(shared_tensors(model)), mean_norm(model)
    curve = Curve(tokenizer, held_out, scale.steps)
    losses, order = train(model, windows, seed, learning_rate, scale, curve)
    parts = score(model, tokenizer, held_out)
    return {
        "kind": kind,
        "seed": seed,
        "learning_rate": learning_rate,
        "substrate": facts,
        "initial_blocks_and_head": start,
        "batch_order": digest({"order": torch.tensor(order)}),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embedding_norm": [norm, mean_norm(model)],
        "train_loss": losses,
        "curve": curve.points,
        "precision": "bf16" if uses_bf16("auto") else "fp32",
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "texts": {language: {**record_of(part), "tokens": part.tokens} for language, part in parts.items()},
    }


def mean_norm(model: FrozenGlyphForCausalLM) -> float:
    """Mean length of the token vectors."""
    return float(model.substrate.weight.detach().norm(dim=1).mean())
