"""Bench: loss and gradients of the head without whole logits, beside the plain way, over vocabularies and widths.

    python -m eval.bench.loss --out eval/results/bench-loss.json

Times are taken in turns in one process, beside ``products``: the three products that any way must make, of factors
that lie ready. Memory is what a process of its own adds, and ``beyond_gradients`` what of it is not the result. On a
CPU seconds are processor time of one thread.
"""

import argparse
import itertools
import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eval.bench.command import bench_arguments, circumstances, peak_mebibytes, run_part, write_report
from eval.bench.timing import alternate, timed
from frozen_glyph.model.loss_frozen_glyph import chunked_causal_loss

MEBIBYTE = 2**20


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
    """Chunks of 1,024 tokens whose logits autograd computes twice."""

    def total(states_CD: torch.Tensor, labels_C: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(head(states_CD).float(), labels_C, reduction="sum")

    labels_N = labels_BT[:, 1:].flatten()
    chunks = zip(states_BTD[:, :-1].flatten(0, 1).split(1024), labels_N.split(1024), strict=True)
    return sum(checkpoint(total, *chunk, use_reentrant=False) for chunk in chunks) / len(labels_N)


WAYS: dict[str, Callable] = {"plain": plain, "ours": chunked_causal_loss, "checkpointed": checkpointed}
if hasattr(nn.functional, "linear_cross_entropy"):
    WAYS["torch"] = torch_fused


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--vocab", type=int, nargs="+", default=[65536, 131072])
    parser.add_argument("--width", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["plain", "ours"])
    parser.add_argument("--tokens", type=int, default=2048, help="in sequences of 1024 (default: 2048)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.part:
        kind, *setting = arguments.part
        case = Case(arguments, *setting)
        print(json.dumps(case.seconds() if kind == "time" else case.memory(kind)))
        return
    about = circumstances()
    rows = []
    for setting in itertools.product(arguments.vocab, arguments.width, arguments.precision):
        seconds = run_part("time", *setting, OMP_NUM_THREADS="1")
        row = dict(zip(("vocab", "width", "precision"), setting, strict=True)) | {"products": seconds["products"]}
        for way in arguments.ways:
            times = {"seconds": seconds[way], "over_products": round(seconds[way] / seconds["products"], 3)}
            rows.append(row | {"way": way} | times | run_part(way, *setting, OMP_NUM_THREADS="1"))
    settings = {name: getattr(arguments, name) for name in ("tokens", "device", "repeats")}
    write_report(about | settings | {"rows": rows}, arguments.out)


class Case:
    """States, head and labels of one setting."""

    def __init__(self, arguments: argparse.Namespace, vocab: str, width: str, precision: str) -> None:
        self.arguments, self.device, self.bf16 = arguments, torch.device(arguments.device), precision == "bf16"
        torch.manual_seed(0)
        self.head = nn.Linear(int(width), int(vocab)).to(self.device)
        shape = (arguments.tokens // 1024, 1024, int(width))
        self.states = torch.randn(shape, device=self.device, requires_grad=True)
        self.labels = torch.randint(int(vocab), shape[:2], device=self.device)

    def run(self, way: str) -> torch.Tensor:
        """The loss, after its backward pass."""
        self.head.zero_grad()
        self.states.grad = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = WAYS[way](self.states, self.head, self.labels)
        loss.backward()
        return loss

    def seconds(self) -> dict[str, float]:
        """Median of forward and backward pass by way, and of the three products."""
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        states, weight = self.states.detach().flatten(0, 1).to(dtype), self.head.weight.detach().to(dtype)
        gradient = (states[:1024] @ weight.T).mul_(1e-3)

        def products() -> None:
            for chunk in states.split(1024):
                _ = chunk @ weight.T
                _ = gradient[: len(chunk)] @ weight
                _ = gradient[: len(chunk)].T @ chunk

        turns = {way: timed(lambda way=way: self.run(way), self.device) for way in self.arguments.ways}
        turns["products"] = timed(products, self.device)
        found = alternate(turns, self.arguments.repeats, warm_up=1)
        cpu = self.device.type == "cpu"
        return {way: round(statistics.median([t.cpu if cpu else t.wall for t in own]), 4) for way, own in found.items()}

    def memory(self, way: str) -> dict[str, Any]:
        """Mebibytes that two passes added at their peak, the loss, and the norm of the weight's gradient."""
        cuda = self.device.type == "cuda"
        before = torch.cuda.memory_allocated() / MEBIBYTE if cuda else resident_mebibytes()
        for _ in range(2):
            loss = self.run(way)
        peak = (torch.cuda.max_memory_allocated() / MEBIBYTE if cuda else peak_mebibytes()) - before
        gradients: list[Any] = [self.states.grad, *(parameter.grad for parameter in self.head.parameters())]
        return {
            "peak_mebibytes": round(peak),
            "beyond_gradients_mebibytes": round(peak - sum(grad.nbytes for grad in gradients) / MEBIBYTE),
            "loss": loss.item(),
            "head_gradient": gradients[1].norm().item(),
        }


def resident_mebibytes() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEBIBYTE


if __name__ == "__main__":
    main()
