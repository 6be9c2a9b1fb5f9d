"""Bench: loss and gradients of the head without whole logits, beside the plain way, over vocabularies and widths.

    python -m eval.bench.loss --out eval/results/bench-loss.json

Every measurement runs in a process of its own, so that its peak memory is its own; the plain way is measured in the
same run, and the ratios to it are the result. On a CPU seconds are processor time of one thread.
"""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eval.bench.command import bench_arguments, circumstances, peak_mebibytes, run_part, write_report
from frozen_glyph.model import loss_frozen_glyph
from frozen_glyph.model.loss_frozen_glyph import chunked_causal_loss

MB = 1_000_000


def plain(states_BTD: torch.Tensor, head: nn.Linear, labels_BT: torch.Tensor) -> torch.Tensor:
    """What transformers' ForCausalLMLoss does."""
    return nn.functional.cross_entropy(head(states_BTD)[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten())


def torch_fused(states_BTD: torch.Tensor, head: nn.Linear, labels_BT: torch.Tensor) -> torch.Tensor:
    """PyTorch's own since 2.13; it does not know autocast, so its inputs are cast here."""
    states_ND, weight, bias = states_BTD[:, :-1].flatten(0, 1), head.weight, head.bias
    if torch.is_autocast_enabled(states_BTD.device.type):
        states_ND, weight, bias = (part.to(torch.bfloat16) for part in (states_ND, weight, bias))
    options = torch.nn.LinearCrossEntropyOptions()
    labels_N = labels_BT[:, 1:].flatten()
    return nn.functional.linear_cross_entropy(states_ND, weight, labels_N, linear_bias=bias, options=options)


def checkpointed(states_BTD: torch.Tensor, head: nn.Linear, labels_BT: torch.Tensor) -> torch.Tensor:
    """Chunks whose logits autograd computes twice."""

    def total(states_CD: torch.Tensor, labels_C: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(head(states_CD).float(), labels_C, reduction="sum")

    labels_N, size = labels_BT[:, 1:].flatten(), loss_frozen_glyph.CHUNK_TOKENS
    chunks = zip(states_BTD[:, :-1].flatten(0, 1).split(size), labels_N.split(size), strict=True)
    return sum(checkpoint(total, *chunk, use_reentrant=False) for chunk in chunks) / len(labels_N)


WAYS: dict[str, Callable] = {"plain": plain, "ours": chunked_causal_loss, "checkpointed": checkpointed}
if hasattr(nn.functional, "linear_cross_entropy"):
    WAYS["torch"] = torch_fused


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--vocab", type=int, nargs="+", default=[4096, 65536, 131072])
    parser.add_argument("--width", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--tokens", type=int, default=2048, help="in sequences of 1024 (default: 2048)")
    parser.add_argument("--chunk", type=int, default=loss_frozen_glyph.CHUNK_TOKENS, help="tokens of our chunks")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure(arguments)))
        return
    about = circumstances()
    rows = []
    for setting in itertools.product(arguments.vocab, arguments.width, arguments.precision):
        found = {way: run_part(way, *setting, OMP_NUM_THREADS="1") for way in arguments.ways}
        for way, row in found.items():
            for key, ratio in (("seconds", "seconds_to_plain"), ("peak_mb", "memory_to_plain")):
                base = found["plain"][key]
                row[ratio] = round(row[key] / base, 2) if base else None  # too small to see
            rows.append(dict(zip(("vocab", "width", "precision", "way"), (*setting, way), strict=True)) | row)
    settings = {name: getattr(arguments, name) for name in ("tokens", "chunk", "device", "repeats")}
    write_report(about | settings | {"rows": rows}, arguments.out)


def measure(arguments: argparse.Namespace) -> dict:
    """Seconds of forward and backward pass, memory that they added at their peak, and the loss."""
    way, vocab, width, precision = arguments.part
    loss_frozen_glyph.CHUNK_TOKENS = arguments.chunk
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    head = nn.Linear(int(width), int(vocab)).to(device)
    states = torch.randn(arguments.tokens // 1024, 1024, int(width), device=device, requires_grad=True)
    labels = torch.randint(int(vocab), states.shape[:2], device=device)
    cuda, seconds = device.type == "cuda", []
    before = torch.cuda.memory_allocated() if cuda else resident_mb()
    for _ in range(arguments.repeats):
        head.zero_grad()
        states.grad = None
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter() if cuda else time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = WAYS[way](states, head, labels)
        loss.backward()
        if cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() if cuda else time.process_time()) - started)
    peak = torch.cuda.max_memory_allocated() / MB if cuda else peak_mebibytes()
    return {
        "seconds": round(min(seconds), 3),
        "peak_mb": round(peak - (before / MB if cuda else before)),
        "loss": loss.item(),
        "head_gradient": head.weight.grad.norm().item(),
    }


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
