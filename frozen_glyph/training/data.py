"""Sources -> one packed, memory-mapped array of token ids, cut into training windows; packed once and reused.

Documents are tokenised a batch at a time and appended to a file, so memory is bounded whatever the size of the text.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import Dataset

from frozen_glyph.checkpoint.files import sha256_json, write_atomically, write_json
from frozen_glyph.checkpoint.manifest import Manifest
from frozen_glyph.checkpoint.places import is_first_process
from frozen_glyph.checkpoint.records import SourceRecord
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.training.encode import document_marks, encoded, token_dtype, write_tokens
from frozen_glyph.training.parts import joined, made_parts, remove_parts
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe, TrainingRecipe
from frozen_glyph.training.sources import Identities, Tally, documents, identify, tally_file

__all__ = ["TokenWindows", "open_windows", "pack"]

IGNORED = -100  # label of a token that is not to be predicted


def pack(
    data: DataRecipe,
    tokenizer: Any,
    tokenizer_sha256: str,
    folder: Path,
    progress: bool = False,
    identities: list[list[SourceRecord]] | None = None,
) -> np.memmap:
    """Token ids of the documents of ``data``, each as ``<bos> ... <eos>``: uint16 or uint32 [tokens], memory-mapped.

    The last document is cut where ``data.tokens`` are reached. The file in ``folder`` is named by a fingerprint of
    sources, weights, limit and tokenizer, and appears only when it is complete. It is reused while it has the bytes
    that the folder's manifest recorded; otherwise a warning says so, and it is packed again. ``identities`` of the
    sources, where somebody knows them, spare hashing their text. What ``encode_parts`` left in ``folder`` is joined
    in place of encoding it, and then removed.

    Raises:
        SourceError, TextFileError: a source is not usable.
        FrozenGlyphError: the tokenizer has no token to mark documents with.
    """
    identities = identify(data).text if identities is None else identities
    shares = [
        [identity, source.field, source.weight] for identity, source in zip(identities, data.sources, strict=True)
    ]
    kept = [] if data.normalize else ["line ends kept"]
    fingerprint = sha256_json([shares, data.tokens, tokenizer_sha256, *kept])
    path, packed = folder / f"tokens-{fingerprint[:16]}.npy", Manifest(folder)
    if not (packed.holds(path.name) if is_first_process() else path.exists()):  # the first one comes first
        # The commit that the fingerprint names, even if the dataset is changed in this moment.
        pinned = [
            dataclasses.replace(source, revision=identity[0].get("revision", source.revision))
            for identity, source in zip(identities, data.sources, strict=True)
        ]
        parts = [
            made_parts(source, identity, data.normalize, tokenizer_sha256, folder)
            for source, identity in zip(pinned, identities, strict=True)
        ]
        streams = [
            joined(made, data.normalize, tokenizer) if made else encoded(documents(source, data.normalize), tokenizer)
            for source, made in zip(pinned, parts, strict=True)
        ]
        tally = Tally([0] * len(streams))
        pieces = limited(token_documents(streams, data.sources, tally), data.tokens, tally)
        with packing_bar(data.tokens, progress) as bar:

            def write(temporary: Path) -> None:
                write_tokens(temporary, followed(pieces, bar), token_dtype(tokenizer))
                write_json(tally_file(path), dataclasses.asdict(tally))

            write_atomically(path, write)
        packed.record(path.name, tally_file(path).name)
        remove_parts(itertools.chain.from_iterable(parts), folder)
    return np.lib.format.open_memmap(path, mode="r")


def token_documents(
    streams: Sequence[Iterator[np.ndarray]], sources: Sequence[SourceRecipe], tally: Tally
) -> Iterator[tuple[int, np.ndarray]]:
    """(source, token ids with their marks) of all documents, in the order in which sources and weights bring them."""
    weights = [source.weight for source in sources if source.weight is not None]
    if weights:
        yield from mixed(streams, weights, tally)
    else:
        for index, stream in enumerate(streams):
            for ids in stream:
                yield index, ids


def mixed(
    streams: Sequence[Iterator[np.ndarray]], weights: Sequence[float], tally: Tally
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw from the stream that lags most behind its share of the tokens, the first of equals, until one ends.

    So no stream is ever ahead of its share by more than one document.
    """
    taken = [0] * len(streams)
    while True:
        lagging = min(range(len(streams)), key=lambda index: taken[index] / weights[index])
        ids = next(streams[lagging], None)
        if ids is None:
            if any(next(stream, None) is not None for stream in streams):
                tally.ended = lagging
            return
        taken[lagging] += len(ids)
        yield lagging, ids


def limited(pieces: Iterable[tuple[int, np.ndarray]], tokens: int | None, tally: Tally) -> Iterator[np.ndarray]:
    """The ids of ``pieces`` up to ``tokens`` altogether (None: all), counted by source."""
    left = sys.maxsize if tokens is None else tokens
    for source, ids in pieces:
        tally.tokens[source] += len(ids[:left])
        yield ids[:left]
        left -= len(ids)
        if left <= 0:
            return


def packing_bar(tokens: int | None, visible: bool) -> Progress:
    """A bar of the tokens packed so far; without a limit it only moves."""
    console = Console(stderr=True)  # standard output is for results
    bar = Progress(
        TextColumn("packing text"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} tokens"),
        TimeElapsedColumn() if tokens is None else TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (visible and console.is_terminal),
    )
    bar.add_task("", total=tokens)
    return bar


def followed(pieces: Iterable[np.ndarray], bar: Progress) -> Iterator[np.ndarray]:
    """``pieces``, counted by ``bar``."""
    for ids in pieces:
        yield ids
        bar.advance(bar.task_ids[0], len(ids))


class TokenWindows(Dataset):
    """Consecutive windows of ``context_length`` tokens; the rest that fills no window is left out.

    Items are ``input_ids`` and ``labels``, int64 [T]. Without ``attend_across_documents`` also ``position_ids`` [T]
    that restart where a document does: from them transformers makes the mask that keeps documents apart under eager,
    sdpa and flex attention (flash attention looks at them only in batches of one). No document's first token is then
    predicted from the document before. ``with_index`` adds the window's number as ``index``.

    Args:
        boundary_id: the id that begins a document, ``document_marks(tokenizer)[0]``.
        name: of the text, for the error.

    Raises:
        FrozenGlyphError: ``tokens`` fill no window, or ``boundary_id`` is needed and missing.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        context_length: int,
        attend_across_documents: bool = True,
        boundary_id: int | None = None,
        with_index: bool = False,
        name: str = "text",
    ) -> None:
        if not attend_across_documents and boundary_id is None:
            raise FrozenGlyphError("attend_across_documents=False needs boundary_id, the id that begins a document")
        self.tokens, self.context_length, self.with_index = tokens, context_length, with_index
        self.boundary_id = None if attend_across_documents else boundary_id
        if len(self) == 0:
            raise FrozenGlyphError(
                f"the {name} has {len(tokens)} tokens, fewer than one window of training.context_length="
                f"{context_length}; give more text or shorten the window"
            )

    def __len__(self) -> int:
        return len(self.tokens) // self.context_length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        begin, end = index * self.context_length, (index + 1) * self.context_length
        ids = torch.from_numpy(self.tokens[begin:end].astype(np.int64))
        window: dict[str, Any] = {"input_ids": ids, "labels": ids}
        if self.boundary_id is not None:
            starts = ids == self.boundary_id
            # Where one id both begins and ends documents, the one that another follows is an end.
            following = torch.from_numpy(self.tokens[begin + 1 : end + 1].astype(np.int64))
            starts[: len(following)] &= following != self.boundary_id
            positions = torch.arange(self.context_length)
            window["position_ids"] = positions - torch.where(starts, positions, 0).cummax(0).values
            window["labels"] = ids.masked_fill(starts, IGNORED)
        if self.with_index:
            window["index"] = index
        return window


def collate(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of ``TokenWindows`` as a batch: tensors [B, T]; ``index`` stays a list, for which no device is asked."""
    rows = {name: [window[name] for window in windows] for name in windows[0]}
    return {name: each if name == "index" else torch.stack(each) for name, each in rows.items()}


def open_windows(
    data: DataRecipe,
    training: TrainingRecipe,
    tokenizer: Any,
    tokenizer_sha256: str,
    folder: Path,
    progress: bool = False,
    identities: Identities | None = None,
) -> tuple[TokenWindows, TokenWindows | None]:
    """Windows to train on and, with ``training.eval_steps``, to evaluate on while training; packed into ``folder``.

    ``identities`` of the texts, where somebody knows them, spare hashing them.

    Raises:
        SourceError, TextFileError: a source is not usable.
        FrozenGlyphError: the text fills no window; the tokenizer has no token to mark documents with.
    """
    begin, _ = document_marks(tokenizer)
    text, held_out_text = identify(data) if identities is None else identities

    def windows(
        data: DataRecipe, known: list[list[SourceRecord]], with_index: bool = False, name: str = "text"
    ) -> TokenWindows:
        tokens = pack(data, tokenizer, tokenizer_sha256, folder, progress, known)
        return TokenWindows(tokens, training.context_length, data.attend_across_documents, begin, with_index, name)

    held_out = None
    if training.eval_steps is not None and data.held_out is not None:
        held_out = windows(data.held_out, held_out_text, name="held-out text")
    return windows(data, text, training.prefix_cache != "none"), held_out
