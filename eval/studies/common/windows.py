"""Losses of several models on one held-out text, window by window, from logits that are computed once."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from frozen_glyph.text.loss import ScoredWindow, windows_of

Losses = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]


@torch.no_grad()
def score_windows(
    models: list[Any], tokenizer: Any, text: str, context_length: int, batch_size: int = 8
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[ScoredWindow]]]:
    """Batches of the windows that ``text_loss`` scores: each model's logits [M, B, T, V], the tokens they predict and
    which of these are scored [B, T], and the windows."""
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
        yield torch.stack(logits), ids_BT[:, 1:], scored_BT, batch


def nats_of_windows(
    models: list[Any], tokenizer: Any, text: str, context_length: int, losses: Losses
) -> dict[str, Any]:
    """``characters`` and ``documents`` of each window, and its ``nats`` under everything that ``losses`` names.

    ``losses`` maps logits [M, B, T, V] and targets [B, T] to the nats of each target [B, T], by name.
    """
    windows: list[ScoredWindow] = []
    nats: dict[str, list[float]] = {}
    for logits_MBTV, targets_BT, scored_BT, batch in score_windows(models, tokenizer, text, context_length):
        windows += batch
        for name, loss_BT in losses(logits_MBTV, targets_BT).items():
            nats.setdefault(name, []).extend((loss_BT * scored_BT).double().sum(-1).tolist())
    return {
        "characters": [window.characters for window in windows],
        "documents": [window.document for window in windows],
        "nats": nats,
    }
