"""A toy text with something to learn."""

from typing import Any

import numpy as np

from frozen_glyph.training.data import TokenWindows, collate


class ToyWindows(TokenWindows):
    """Windows of a Markov chain in which every token has four successors (at best log 4 nats a token), by index."""

    def __init__(self, count: int, context_length: int, vocab_size: int, seed: int = 0) -> None:
        successors = np.random.default_rng(1).integers(0, vocab_size, (vocab_size, 4))
        generator = np.random.default_rng(seed)
        tokens = np.zeros(count * context_length, dtype=np.uint16 if vocab_size <= 1 << 16 else np.uint32)
        for at in range(1, len(tokens)):
            tokens[at] = successors[tokens[at - 1], generator.integers(4)]
        super().__init__(tokens, context_length)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"index": index}

    def batch(self, step: int, size: int, device: str = "cpu", index: bool = False) -> dict[str, Any]:
        """Batch number ``step`` of ``size`` windows, round and round."""
        batch = collate([self[(step * size + row) % len(self)] for row in range(size)])
        numbers = {"index": batch.pop("index")}
        return {name: tensor.to(device) for name, tensor in batch.items()} | (numbers if index else {})
