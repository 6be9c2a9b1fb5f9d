"""One run of the unseen study: a model of the substrate study, and how it takes to texts that it never read."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from eval.studies.substrate.data import text_of
from eval.studies.substrate.rarity import score_text
from eval.studies.substrate.runs import scoring, train_and_score
from eval.studies.unseen.probes import Scale, adapting_windows
from frozen_glyph.text.documents import split_documents

Scored = dict[str, Any]


def run(kind: str, seed: int, learning_rate: float, scale: Scale, folder: Path, unseen: list[str]) -> dict[str, Any]:
    """A run of the substrate study, with each unseen text in ``texts`` by ``place(name, steps)`` and its facts in
    ``unseen``."""
    started = time.process_time()
    result, model, read_V = train_and_score(kind, seed, learning_rate, scale, folder)
    result["unseen"] = {}
    for name in unseen:
        texts, facts = probe(model, name, seed, scale, folder, read_V)
        result["texts"] |= texts
        result["unseen"][name] = facts
    return result | {"cpu_seconds": time.process_time() - started}


def place(name: str, steps: int) -> str:
    return f"{name}@{steps}"


def probe(
    model: Any, name: str, seed: int, scale: Scale, folder: Path, read_V: np.ndarray
) -> tuple[dict[str, Scored], dict[str, Any]]:
    """The unseen text as the model is and after some steps, and facts: the share of its tokens that were never read,
    and by rate the mean loss of the steps' batches, each before it is trained on."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = text_of(folder, name, "unseen")
    windows = adapting_windows(scale, name, folder, tokenizer)
    order = np.random.default_rng(seed).permutation(len(windows))[: scale.needed]
    rows = torch.stack([windows[index]["input_ids"] for index in order.tolist()])
    batches = rows.split(scale.adapted_windows)
    texts: dict[str, Scored] = {}

    def score(steps: int, adapted: Any) -> None:
        if steps in scale.adapted:
            with scoring():
                scored = score_text(adapted, tokenizer, text, scale.context_length, read_V, known=True)
            texts[place(name, steps)] = scored

    losses = {rate: float(np.mean(adapt(model, batches, rate))) for rate in scale.adapted_rates}
    chosen = min(losses, key=lambda rate: losses[rate] if np.isfinite(losses[rate]) else np.inf)
    score(0, model)
    adapt(model, batches, chosen, score)
    ids = np.concatenate([tokenizer(each)["input_ids"] for each in split_documents(text)])
    return texts, {
        "never_read": float((read_V[ids] == 0).mean()),
        "rate": chosen,
        "losses": {f"{rate:g}": loss for rate, loss in losses.items()},
    }


def adapt(
    model: Any,
    batches: tuple[torch.Tensor, ...],
    learning_rate: float,
    after: Callable[[int, Any], None] = lambda steps, model: None,
) -> list[float]:
    """Train a copy of ``model`` on ``batches`` [B, T] of token ids with AdamW at a constant rate: what trained before
    trains again. The loss of each before it is trained on; ``after`` gets the number of steps and the copy."""
    model = copy.deepcopy(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    losses = []
    for steps, ids_BT in enumerate(batches, start=1):
        model.train()
        with scoring():
            loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        after(steps, model)
    return losses
