"""Keep what the frozen blocks make of each training window, so that a step costs the same at any depth.

States are rounded to bfloat16, at the first visit too: what a step computes depends neither on how often a window came
nor on what a killed run left behind. Each window has a checksum that is written after its states: what a kill, a
truncation or a damaged disk left is noticed when it is read, and computed again.

Shapes: N windows, B batch, T tokens, D hidden size.
"""

import math
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.errors import FrozenGlyphError


def prefix_cache_bytes(windows: int, context_length: int, hidden_size: int) -> int:
    """Bytes of the states of so many windows: two for each number."""
    return 2 * windows * context_length * hidden_size


class PrefixCache:
    """Called on a batch: takes its ``index``, a list, out and puts ``prefix_states`` [B, T, D] (bfloat16) in.

    Args:
        model: its first ``config.num_frozen_layers`` blocks make the states; they must not change any more.
        windows: the training windows, with ``index`` in each item.
        location: folder for the memory-mapped files, which a later run with the same ``identity`` goes on using;
            None: in memory.
        identity: whatever else determines the states (digest of the frozen weights, of the tokens, of the packing).
        bf16: compute the states under bfloat16 autocast, as the training step does.

    Raises:
        FrozenGlyphError: there is no frozen prefix or part of it trains; windows have no index; the states need more
            than the free space of ``location`` or the machine's memory.
    """

    def __init__(self, model: Any, windows: Any, location: Path | None, identity: str, bf16: bool = False) -> None:
        check_prefix(model)
        first = windows[0]
        if "index" not in first:
            raise FrozenGlyphError(
                "a prefix cache needs windows that say which they are: TokenWindows(with_index=True)"
            )
        self.model, self.windows, self.bf16 = model.model, windows, bf16
        shape = (len(windows), len(first["input_ids"]), model.config.hidden_size)
        self.nbytes = prefix_cache_bytes(*shape)
        fingerprint = sha256_json([identity, *shape, sorted(first), model.config.num_frozen_layers, bf16])[:16]
        self.files: list[Path] = []
        if location is None:
            check_memory(self.nbytes)
            self.states = torch.empty(shape, dtype=torch.bfloat16)
            self.checksums = torch.zeros(len(windows), dtype=torch.int64)
        else:
            location.mkdir(parents=True, exist_ok=True)
            self.files = [location / f"prefix-{fingerprint}.{kind}" for kind in ("states", "checksums")]
            self.states = mapped(self.files[0], shape, torch.bfloat16)
            self.checksums = mapped(self.files[1], shape[:1], torch.int64)
        self.trusted = [False] * len(windows)  # filled or checked in this process

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = dict(inputs)
        index: list[int] = inputs.pop("index")
        for row, window in enumerate(index):
            if not self.holds(window):
                self.fill(window, {name: tensor[row : row + 1] for name, tensor in inputs.items() if name != "labels"})
        return inputs | {"prefix_states": self.take(index, inputs["input_ids"].device)}

    def take(self, index: list[int], device: torch.device) -> torch.Tensor:
        """The states of windows on ``device``, on their way there while it computes."""
        rows = torch.empty(
            (len(index), *self.states.shape[1:]), dtype=self.states.dtype, pin_memory=device.type == "cuda"
        )
        torch.index_select(self.states, 0, torch.tensor(index), out=rows)
        return rows.to(device, non_blocking=True)

    def holds(self, window: int) -> bool:
        """Whether the states of ``window`` are there, undamaged."""
        if not self.trusted[window]:
            self.trusted[window] = bool(self.checksums[window] == checksum(self.states[window]))
        return self.trusted[window]

    def fill(self, window: int, inputs: dict[str, torch.Tensor]) -> None:
        """Compute and keep the states of one window; alone, so that they do not depend on the rest of its batch."""
        if not torch.equal(inputs["input_ids"][0].cpu(), self.windows[window]["input_ids"]):
            raise FrozenGlyphError(f"window {window} of the batch is not the window {window} of this cache")
        with torch.autocast(inputs["input_ids"].device.type, dtype=torch.bfloat16, enabled=self.bf16):
            self.states[window] = self.model.prefix(**inputs)[0]
        self.checksums[window] = checksum(self.states[window])
        self.trusted[window] = True


def checksum(states: torch.Tensor) -> int:
    """CRC-32 of the bytes of ``states``, plus 1: 0 is what a file that nobody wrote to holds."""
    return 1 + zlib.crc32(states.view(torch.uint8).numpy().data)


def check_prefix(model: Any) -> None:
    """Raise ``FrozenGlyphError`` unless ``model`` has frozen blocks that compute the same at every visit."""
    frozen, dropout = model.config.num_frozen_layers, model.config.attention_dropout
    below = [model.substrate, *model.model.layers[:frozen]]
    problems = {
        "the model has no frozen blocks": frozen == 0,
        "its frozen blocks have adapters that train": any(p.requires_grad for part in below for p in part.parameters()),
        f"config.attention_dropout={dropout} changes them at every visit": dropout > 0,
    }
    for problem, found in problems.items():
        if found:
            raise FrozenGlyphError(f"there are no states to keep: {problem}; leave out training.prefix_cache")


def machine_memory() -> int | None:
    """Bytes of memory of this machine, used or not; None where it does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def check_memory(needed: int) -> None:
    """Raise ``FrozenGlyphError`` when the machine has less than ``needed`` bytes of memory."""
    memory = machine_memory()
    if memory is not None and needed > memory:
        raise FrozenGlyphError(
            f"training.prefix_cache=memory needs {needed:,} bytes, the machine has {memory:,}; say disk, or none"
        )


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The file ``path`` as a tensor whose changes go to the file; zeros where it did not exist or was cut off.

    The whole file is reserved now, so that no later write can meet a full disk.
    """
    needed = math.prod(shape) * dtype.itemsize
    missing = needed - (path.stat().st_size if path.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    if missing > free:
        raise FrozenGlyphError(
            f"training.prefix_cache=disk needs {missing:,} bytes for {str(path)!r}, {free:,} are free; "
            "free some, give shorter data, or say none"
        )
    if missing > 0:
        with path.open("ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            else:
                file.truncate(needed)
    return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
