"""The arms of the substrate study: embeddings that differ in nothing but their vectors, and a model on each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.studies.substrate.data import Scale, open_windows
from eval.studies.substrate.rivals import by_script, outlines, whiten_by_text
from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, GlyphSubstrate


@dataclass(frozen=True)
class Arm:
    """``layout`` None starts as transformers initialises a table; ``long`` vectors are as long as whitened ones;
    ``by_text`` whitens by the tokens of the training text; ``table`` makes float32 vectors that do not train, of a
    tokenizer and a width."""

    layout: str | None
    whiten: str | None = None
    long: bool = False
    trained: bool = False
    by_text: bool = False
    table: Callable[[Any, int], torch.Tensor] | None = None

    def build(self, tokenizer: Any, width: int, seed: int) -> GlyphSubstrate:
        """The frozen vectors, or those that a trained table starts with."""
        scale = math.sqrt(width) / 4 if self.long else None
        layout = self.layout or "grid"
        glyphs = GlyphSubstrate.build(tokenizer, width, layout, seed=seed, whiten=self.whiten, scale=scale)
        return whiten_by_text(glyphs, times_in_text(tokenizer)) if self.by_text else glyphs


ARMS = {
    "grid": Arm("grid", whiten="none"),
    "grid-partial": Arm("grid", whiten="partial"),
    "grid-whitened": Arm("grid", whiten="full"),
    "grid-by-text": Arm("grid", whiten="full", by_text=True),
    "grid-by-script": Arm(None, table=by_script),
    "published": Arm("published"),
    "published-whitened": Arm("published", whiten="full"),
    "published-48": Arm(None, table=partial(outlines, side=48)),
    "published-64": Arm(None, table=partial(outlines, side=64)),
    "random": Arm("random"),
    "random-long": Arm("random", long=True),
    "trainable": Arm(None, trained=True),
    "random-trained": Arm("random", trained=True),
    "binary": Arm("binary"),
}


def times_in_text(tokenizer: Any) -> np.ndarray:
    """How often each token stands in the training text beside which ``tokenizer`` lies: int64 [V]."""
    tokens = open_windows(Path(tokenizer.name_or_path), tokenizer, context_length=1).tokens
    return np.bincount(tokens, minlength=len(tokenizer))


def build_model(kind: str, seed: int, tokenizer: Any, scale: Scale) -> tuple[FrozenGlyphForCausalLM, dict[str, Any]]:
    """A fresh model on the arm ``kind``, and facts about its vectors; blocks and head follow from ``seed`` alone."""
    arm = ARMS[kind]
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
    if arm.table is not None:
        model.substrate.load_state_dict({"weight": arm.table(tokenizer, scale.hidden_size)})
        model.substrate.requires_grad_(False)
    if arm.layout is None:
        return model, {}
    glyphs = arm.build(tokenizer, scale.hidden_size, seed)
    facts = {key: glyphs.provenance[key] for key in ("bits", "width", "collisions", "smallest_distance")}
    if arm.trained:
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
