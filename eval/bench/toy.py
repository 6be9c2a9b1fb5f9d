"""What growth benchmarks share: a toy text with something to learn, models over it, a training step, the machine."""

import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.substrate.codes import random_code
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.train import uses_bf16


def toy_model(depth: int, frozen: int, width: int, vocab_size: int, device: str = "cpu") -> FrozenGlyphForCausalLM:
    """``depth`` blocks, ``frozen`` of them frozen, over random codes whose vectors are computed once."""
    torch.manual_seed(0)
    config = FrozenGlyphConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        substrate_bits=width,
        num_hidden_layers=depth,
        num_frozen_layers=frozen,
        num_attention_heads=max(1, width // 64),
        use_cache=False,
    )
    model: Any = FrozenGlyphForCausalLM(config)
    model.substrate.packed_bits.copy_(torch.from_numpy(random_code(vocab_size, width, seed=0)))
    model.substrate.center.fill_(8)
    model.substrate.materialize()
    return model.to(device).train()


class ToyWindows(TokenWindows):
    """Windows of a Markov chain in which every token has four successors (at best log 4 nats a token), by index."""

    def __init__(self, count: int, context_length: int, vocab_size: int, seed: int = 0) -> None:
        successors = np.random.default_rng(1).integers(0, vocab_size, (vocab_size, 4))
        generator = np.random.default_rng(seed)
        tokens = np.zeros(count * context_length, dtype=np.uint16 if vocab_size <= 1 << 16 else np.uint32)
        for at in range(1, len(tokens)):
            tokens[at] = successors[tokens[at - 1], generator.integers(4)]
        super().__init__(tokens, context_length)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return super().__getitem__(index) | {"index": torch.tensor(index)}

    def batch(self, step: int, size: int, device: str = "cpu", index: bool = False) -> dict[str, torch.Tensor]:
        """Batch number ``step`` of ``size`` windows, round and round."""
        items = [self[(step * size + row) % len(self)] for row in range(size)]
        names = [name for name in items[0] if index or name != "index"]
        return {name: torch.stack([item[name] for item in items]).to(device) for name in names}


def precision(device: torch.device) -> AbstractContextManager:
    """Autocast as the growth command's ``precision: auto`` chooses it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16("auto"))


def train_steps(model: Any, learning_rate: float = 1e-3) -> Callable[[dict[str, torch.Tensor]], float]:
    """A function that makes one AdamW step on a batch and returns its loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)

    def step(inputs: dict[str, torch.Tensor]) -> float:
        optimizer.zero_grad()
        with precision(model.device):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what ``work`` returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def spread(seconds: list[float]) -> dict[str, float]:
    """Minimum and median of ``seconds``."""
    return {"min_seconds": round(min(seconds), 5), "median_seconds": round(float(np.median(seconds)), 5)}


def environment(machine: str) -> dict[str, Any]:
    """What a report says about where it was measured."""
    return {
        "machine": machine or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bf16": uses_bf16("auto"),
    }
