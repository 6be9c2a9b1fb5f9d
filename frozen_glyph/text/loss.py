"""Held-out loss of a causal language model in nats per character, so that tokenizers can be compared.

Protocol: every document is read as ``<bos>`` plus its tokens in windows of ``context_length`` that overlap by half;
each token is scored once, with at least half a window of context where the document has it. One window is one block.
Blocks of one document depend on each other, so each says which document it is of: documents are the units of intervals
and, for models with one tokenizer, of paired comparisons.
"""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import split_documents

MAX_CONTEXT = 4096
BATCH_TOKENS = 4096  # of a batch: more are hardly faster, and take more memory
BATCH_LOGITS = 1 << 26
IGNORED = -100
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
    model: Any,
    tokenizer: Any,
    text: str | Sequence[str],
    context_length: int | None = None,
    batch_size: int = 8,
    shared: bool = False,
) -> TextLoss:
    """Score ``text``, or documents, under ``model``, on its device.

    ``context_length`` defaults to the model's own, at most ``MAX_CONTEXT``; a longer one than the model was made for
    gives a ``UserWarning``. A batch has ``batch_size`` windows at most, fewer where they are long. ``shared``: every
    process of torch.distributed, if there are several, calls this with the same text, scores its share of the batches
    and returns the whole.

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
    was_training = model.training
    model.eval()
    nats = torch.zeros(len(windows), dtype=torch.float64)
    shared = shared and torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
    for places in batches(windows, batch_size, tokens_at_once(model))[rank::count]:
        nats[places] = window_losses(model, [windows[place] for place in places]).double().sum(1).cpu()
    model.train(was_training)
    if shared:  # zeros are what others scored
        nats = nats.to(model.device)
        torch.distributed.all_reduce(nats)
    return TextLoss(
        nats.cpu().numpy(),
        np.array([float(window.characters) for window in windows]),
        np.array([float(window.bytes) for window in windows]),
        np.array([window.document for window in windows]),
        sum(len(window.input_ids) - window.first_scored for window in windows),
    )


def tokens_at_once(model: Any) -> int:
    """Tokens of a batch: where a model makes the logits of all that is scored, few enough for these."""
    return BATCH_TOKENS if skips_logits(model) else min(BATCH_TOKENS, BATCH_LOGITS // model.config.vocab_size)


def skips_logits(model: Any) -> bool:
    """Whether the model is ours and makes losses without whole logits."""
    return bool(getattr(model, "can_skip_logits", False))


def batches(windows: Sequence[ScoredWindow], batch_size: int, tokens: int) -> list[list[int]]:
    """The places of ``windows``, the longest first, in batches of at most ``tokens`` tokens where one is no longer."""
    found: list[list[int]] = []
    room = 0
    for at in sorted(range(len(windows)), key=lambda at: (-len(windows[at].input_ids), windows[at].first_scored)):
        if room == 0:
            found.append([])
            room = min(batch_size, max(1, tokens // len(windows[at].input_ids)))
        found[-1].append(at)
        room -= 1
    return found


def window_losses(model: Any, windows: Sequence[ScoredWindow]) -> torch.Tensor:
    """Loss of every token of ``windows``, the longest first, but their first ones: float32 [B, T - 1], else zero.

    Rows are filled up on the right, where no causal model looks; so there is no mask.
    """
    length = len(windows[0].input_ids)
    rows = [window.input_ids + window.input_ids[-1:] * (length - len(window.input_ids)) for window in windows]
    input_ids = torch.tensor(rows, device=model.device)
    labels = torch.full_like(input_ids, IGNORED)
    for row, window in enumerate(windows):
        scored = slice(window.first_scored, len(window.input_ids))
        labels[row, scored] = input_ids[row, scored]
    options: dict[str, Any] = {"use_cache": False}
    if skips_logits(model):
        return model(input_ids=input_ids, labels=labels, skip_logits=True, reduction="none", **options).loss
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = length - min(window.first_scored for window in windows) + 1
    logits = model(input_ids=input_ids, **options).logits[:, :-1].float()
    losses = torch.zeros(labels[:, 1:].shape, device=logits.device)
    kept = slice(length - 1 - logits.shape[1], None)
    losses[:, kept] = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels[:, 1:][:, kept], ignore_index=IGNORED, reduction="none"
    )
    return losses
