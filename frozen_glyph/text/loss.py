"""Held-out loss of a causal language model in nats per character, so that tokenizers can be compared.

Protocol: every document is read as ``<bos>`` plus its tokens in windows of ``context_length`` that overlap by half;
each token is scored once, with at least half a window of context where the document has it. One window is one block.
Blocks of one document depend on each other, so each says which document it is of: documents are the units of intervals
and, for models with one tokenizer, of paired comparisons.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import split_documents

MAX_CONTEXT = 4096
# Arguments of a tokenizer. Texts are cut into windows afterwards, so that none is too long (``verbose`` warns of it).
AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}


@dataclass(frozen=True)
class TextLoss:
    """Summed loss of a text by block: ``nats``, ``characters`` and ``bytes`` (of UTF-8) are float64 [blocks].

    ``documents`` [blocks] are the places of their documents in the text, from 0.
    """

    nats: np.ndarray
    characters: np.ndarray
    bytes: np.ndarray
    documents: np.ndarray
    tokens: int

    @property
    def nats_per_character(self) -> float:
        return float(self.nats.sum() / self.characters.sum())

    @property
    def bits_per_byte(self) -> float:
        return float(self.nats.sum() / np.log(2) / self.bytes.sum())

    def uniform_nats_per_character(self, vocab_size: int) -> float:
        """What a model scores that gives every token of its vocabulary the same probability: the level of chance."""
        return float(self.tokens * np.log(vocab_size) / self.characters.sum())


@dataclass(frozen=True)
class ScoredWindow:
    """Token ids of one window; targets before ``first_scored`` were scored by the window before."""

    input_ids: list[int]
    first_scored: int
    characters: int
    bytes: int
    document: int


def windows_of(text: str | Sequence[str], tokenizer: Any, context_length: int) -> list[ScoredWindow]:
    """Cut ``text``, or documents, into scored windows; their characters add up to those of the documents.

    What spells a special token is read as the characters that it is written in.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    prefix = [] if start is None else [start]
    windows = []
    for place, document in enumerate(split_documents(text) if isinstance(text, str) else text):
        encoded = tokenizer(document, **AS_TEXT, return_offsets_mapping=True)
        ids = prefix + encoded["input_ids"]
        # Byte tokens of one character share its offsets, so count how far each token moves the furthest end.
        ends = np.maximum.accumulate([0] * len(prefix) + [end for _, end in encoded["offset_mapping"]])
        counted = 0
        for begin, first_scored, end in window_bounds(len(ids), context_length):
            read = int(ends[end - 1])
            piece = document[counted:read]
            windows.append(ScoredWindow(ids[begin:end], first_scored, len(piece), len(piece.encode()), place))
            counted = read
    return windows


def window_bounds(length: int, context_length: int) -> Iterator[tuple[int, int, int]]:
    """Where each window of ``length`` tokens begins, its first token that none before has scored, and where it ends."""
    scored = 1
    for begin in range(0, length, max(1, context_length // 2)):
        end = min(begin + context_length, length)
        if end > scored:
            yield begin, scored - begin, end
            scored = end


@torch.no_grad()
def text_loss(
    model: Any, tokenizer: Any, text: str | Sequence[str], context_length: int | None = None, batch_size: int = 8
) -> TextLoss:
    """Score ``text``, or documents, under ``model``.

    ``context_length`` defaults to the model's own, at most ``MAX_CONTEXT``; a longer one than the model was made for
    gives a ``UserWarning``.

    Raises:
        FrozenGlyphError: ``context_length`` is below 2, or ``text`` holds nothing to score.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if context_length is None:
        context_length = min(model.config.max_position_embeddings, MAX_CONTEXT)
    elif longest is not None and context_length > longest:
        warnings.warn(
            f"context_length={context_length} exceeds max_position_embeddings={longest} of the model, which was not "
            "made to read so far back",
            stacklevel=3,  # beyond the decorator
        )
    if context_length < 2:
        raise FrozenGlyphError(f"context_length={context_length} must be at least 2: one token to read, one to score")
    windows = windows_of(text, tokenizer, context_length)
    if not windows:
        raise FrozenGlyphError("the text holds nothing to score; give one that is not blank")
    pad = tokenizer.pad_token_id or 0
    was_training = model.training
    model.eval()
    nats, tokens = [], 0
    for at in range(0, len(windows), batch_size):
        batch = windows[at : at + batch_size]
        length = max(len(window.input_ids) for window in batch)
        rows = [window.input_ids + [pad] * (length - len(window.input_ids)) for window in batch]
        input_ids = torch.tensor(rows, device=model.device)
        lengths = torch.tensor([len(window.input_ids) for window in batch], device=model.device)
        mask = (torch.arange(length, device=model.device) < lengths[:, None]).long()
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
        for window, row in zip(batch, losses.double().cpu(), strict=True):
            scored = row[window.first_scored - 1 : len(window.input_ids) - 1]
            nats.append(float(scored.sum()))
            tokens += len(scored)
    model.train(was_training)
    return TextLoss(
        np.array(nats),
        np.array([float(window.characters) for window in windows]),
        np.array([float(window.bytes) for window in windows]),
        np.array([window.document for window in windows]),
        tokens,
    )
