"""One training step of a grown or a monolithic model, its FLOPs and its speed: what benchmarks of training share."""

import argparse
import inspect
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from eval.bench.command import circumstances
from eval.bench.timing import Seconds, summary, timed
from frozen_glyph.training.precision import uses_bf16

# Dense bfloat16 TFLOP/s by NVIDIA's data sheets (SXM cards), for model FLOP utilisation.
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}

SIDE, PRODUCTS = 1024, 8  # of a plain product, and how many make a turn

ATEN = torch.ops.aten
# FlopCounterMode knows CUDA's attention kernels; this is the CPU's. [0] is the query, or the gradient before it.
CPU_ATTENTION = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, key, value
    ),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, query, key, value, *_, **__: (
        sdpa_backward_flop_count(gradient, query, key, value)
    ),
}


class TrainingStep:
    """Forward with labels, backward, AdamW on what trains, in the precision of ``arguments``. Call it to make one.

    ``inputs`` are those of every step that brings none of its own: random ids by default.
    """

    def __init__(self, model: torch.nn.Module, arguments: argparse.Namespace, learning_rate: float = 1e-4) -> None:
        self.model, self.device = model, torch.device(arguments.device)
        self.bf16 = uses_bf16(arguments.precision)
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=learning_rate, fused=True)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(arguments.vocab, (arguments.batch, arguments.context), generator=generator).to(self.device)
        self.inputs = {"input_ids": ids, "labels": ids}
        fused = "skip_logits" in inspect.signature(model.forward).parameters
        self.options: dict[str, Any] = {"skip_logits": True} if fused else {}

    def __call__(self, inputs: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        loss = self.loss(self.inputs if inputs is None else inputs)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model(**inputs, **self.options).loss

    def seconds(self) -> Seconds:
        return timed(self, self.device)()


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and attention in ``work``, counted while it runs."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        work()
    return counter.get_total_flops()


def speed(seconds: Sequence[Seconds], flops: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, tokens and FLOPs a second at the fastest; utilisation where the device's peak is known."""
    times, name = summary(seconds), device_name(arguments)
    peak = next((value for card, value in PEAK_TFLOPS.items() if card in name), None)
    tflops = flops / times["seconds_min"] / 1e12
    return {
        **times,
        "tokens_per_second": round(arguments.batch * arguments.context / times["seconds_min"], 1),
        "flops": flops,
        "tflop_per_second": round(tflops, 4),
        "model_flop_utilisation": round(tflops / peak, 4) if peak else None,
    }


def product(arguments: argparse.Namespace, dtype: torch.dtype) -> Callable[[], Seconds]:
    """A turn of plain matrix products, whose speed says how long FLOPs must take; see ``over_limit``."""
    square = torch.randn(SIDE, SIDE, device=arguments.device).to(dtype)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            _ = square @ square

    return timed(multiply, arguments.device)


def over_limit(seconds: Sequence[Seconds], flops: int, products: Sequence[Seconds], device: str) -> float:
    """The median of ``seconds`` over what ``flops`` take at the speed of the ``product`` turns; a CPU's are its own."""
    clock = "cpu" if device == "cpu" else "wall"
    spent, plain = (statistics.median(getattr(each, clock) for each in turns) for turns in (seconds, products))
    return round(spent / (flops * plain / (PRODUCTS * 2 * SIDE**3)), 3)


def device_name(arguments: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if arguments.device.startswith("cuda") else f"cpu, {os.cpu_count()} cores"


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a report on a model of the shape of ``arguments`` hold for."""
    return {
        **circumstances(),
        "device": device_name(arguments),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16(arguments.precision) else "fp32",
        **{name: getattr(arguments, name) for name in ("width", "vocab", "batch", "context")},
    }
