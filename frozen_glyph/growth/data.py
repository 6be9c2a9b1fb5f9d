"""Text files -> one packed, memory-mapped array of token ids, cut into training windows; packed once and reused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from frozen_glyph.checkpoint.files import write_atomically
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import read_text, split_documents

BATCH_DOCUMENTS = 256


def text_hashes(paths: list[Path]) -> list[dict[str, str]]:
    """Name and sha256 of each text, as provenance records them."""
    return [{"name": path.name, "sha256": hashlib.sha256(read_text(path).encode()).hexdigest()} for path in paths]


def pack(paths: list[Path], tokenizer: Any, tokenizer_sha256: str, folder: Path) -> np.ndarray:
    """Token ids of all documents of ``paths``, each as ``<bos> ... <eos>``: uint16 or uint32 [tokens], memory-mapped.

    The file in ``folder`` is named by a fingerprint of texts and tokenizer and reused when it exists.
    """
    identity = json.dumps([text_hashes(paths), tokenizer_sha256])
    path = folder / f"tokens-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        width = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
        pieces = []
        for text_path in paths:
            documents = split_documents(read_text(text_path))
            for at in range(0, len(documents), BATCH_DOCUMENTS):
                batch = tokenizer(documents[at : at + BATCH_DOCUMENTS], add_special_tokens=False)["input_ids"]
                pieces += [
                    np.array([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id], dtype=width) for ids in batch
                ]

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.save(file, np.concatenate(pieces))

        write_atomically(path, save)
    return np.load(path, mmap_mode="r")


class TokenWindows(Dataset):
    """Consecutive windows of ``context_length`` tokens; the rest that fills no window is left out."""

    def __init__(self, tokens: np.ndarray, context_length: int) -> None:
        self.tokens, self.context_length = tokens, context_length
        if len(self) == 0:
            raise FrozenGlyphError(
                f"the text has {len(tokens)} tokens, fewer than one window of training.context_length="
                f"{context_length}; give more text or shorten the window"
            )

    def __len__(self) -> int:
        return len(self.tokens) // self.context_length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        begin = index * self.context_length
        ids = torch.from_numpy(self.tokens[begin : begin + self.context_length].astype(np.int64))
        return {"input_ids": ids, "labels": ids}
