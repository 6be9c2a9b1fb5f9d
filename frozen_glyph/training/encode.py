"""Texts -> token ids between the marks of a document, on all cores, in the order of the texts; and a file of them."""

import copy
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.memory import give_back

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1 << 18
# Of batches at work at a time: a tokenizer takes some 100 bytes a character.
CHARACTERS_AT_WORK = 1 << 20
CHARACTERS_KEPT = 1 << 21  # read until memory that is free again, in each of the tokenizer's threads, is given back


def encoded(texts: Iterable[str], tokenizer: Any) -> Iterator[np.ndarray]:
    """The ids of each of ``texts`` between its marks, uint32; nothing in a text makes such a mark.

    The tokenizer leaves Python's lock and divides a batch among cores; while it is at work the next batches are read
    and begun.
    """
    start, end = document_marks(tokenizer)
    # The tokenizer's own core: calling the wrapper would compute offsets too, which takes more than twice the time.
    core = copy.deepcopy(tokenizer.backend_tokenizer)
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = True  # as any other text, not as one id

    def encode(batch: list[str]) -> list[np.ndarray]:
        encodings = core.encode_batch_fast(batch, add_special_tokens=False)
        return [np.array([start, *encoding.ids, end], dtype=np.uint32) for encoding in encodings]

    at_work: deque[tuple[int, Future[list[np.ndarray]]]] = deque()
    characters = kept = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in batches(texts):
            size = sum(map(len, batch))
            while at_work and characters + size > CHARACTERS_AT_WORK:
                done, ids = at_work.popleft()
                characters -= done
                yield from ids.result()
            at_work.append((size, pool.submit(encode, batch)))
            characters += size
            kept += size
            if kept >= CHARACTERS_KEPT:
                give_back()
                kept = 0
        for _, ids in at_work:
            yield from ids.result()


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most ``BATCH_DOCUMENTS`` texts, each ended by the text that brings it to ``BATCH_CHARACTERS``."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def document_marks(tokenizer: Any) -> tuple[int, int]:
    """The ids that begin and end a document; one id does both where the tokenizer has only one."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is None and eos is None:
        raise FrozenGlyphError("the tokenizer has neither bos_token nor eos_token; give it one to mark documents with")
    return (eos if bos is None else bos), (bos if eos is None else eos)


def token_dtype(tokenizer: Any) -> np.dtype:
    """The smallest type that holds every id of ``tokenizer``."""
    return np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)


def write_tokens(path: Path, pieces: Iterable[np.ndarray], dtype: np.dtype) -> None:
    """Append ``pieces`` to a .npy file; how many ids it holds is written last."""
    with path.open("wb") as file:
        write_header(file, dtype, 0)
        count = 0
        for ids in pieces:
            file.write(ids.astype(dtype).tobytes())
            count += len(ids)
        file.seek(0)
        write_header(file, dtype, count)


def write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    """The head of a .npy file of ``count`` ids, which NumPy pads to the same size for any count."""
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, head)
