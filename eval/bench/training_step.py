"""One training step of a grown or a monolithic model, its FLOPs and its time: what the benchmarks of training share."""

import argparse
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from eval.processes import own_command
from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.substrate.codes import random_code
from frozen_glyph.training.train import uses_bf16

# Dense bfloat16 TFLOP/s by NVIDIA's data sheets (SXM cards), for model FLOP utilisation.
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}

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


def add_shape_arguments(parser: argparse.ArgumentParser, width: int, batch: int, context: int) -> None:
    """The options that say what is trained and where; defaults are for two CPU cores."""
    parser.add_argument("--width", type=int, default=width, help=f"hidden size (default: {width})")
    parser.add_argument("--heads", type=int, help="attention heads (default: one for each 32 of the width)")
    parser.add_argument("--vocab", type=int, default=65536, help="token ids (default: 65536)")
    parser.add_argument("--batch", type=int, default=batch, help=f"sequences in a step (default: {batch})")
    parser.add_argument("--context", type=int, default=context, help=f"tokens in a sequence (default: {context})")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where native")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file as well")


def build_model(arguments: argparse.Namespace, layers: int, frozen: int = 0) -> FrozenGlyphForCausalLM:
    """A model of ``layers`` blocks of which the first ``frozen`` do not train, on random substrate bits."""
    torch.manual_seed(0)
    config = FrozenGlyphConfig(
        vocab_size=arguments.vocab,
        hidden_size=arguments.width,
        substrate_bits=arguments.width,
        num_hidden_layers=layers,
        num_frozen_layers=frozen,
        num_attention_heads=arguments.heads or arguments.width // 32,
        max_position_embeddings=arguments.context,
        use_cache=False,  # as transformers' Trainer sets it
    )
    model = FrozenGlyphForCausalLM(config)
    embedding = model.get_input_embeddings()
    embedding.packed_bits.copy_(torch.from_numpy(random_code(arguments.vocab, arguments.width, seed=0)))
    embedding.center.fill_(8)
    return model.to(arguments.device).train()


class TrainingStep:
    """Forward with labels, backward, AdamW on what trains: the step of both settings. Call it to make one."""

    def __init__(self, model: torch.nn.Module, arguments: argparse.Namespace) -> None:
        self.model, self.device = model, torch.device(arguments.device)
        self.bf16 = uses_bf16(arguments.precision)
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(arguments.vocab, (arguments.batch, arguments.context), generator=generator)
        self.ids = ids.to(self.device)
        fused = "skip_logits" in inspect.signature(model.forward).parameters
        self.options: dict[str, Any] = {"skip_logits": True} if fused else {}

    def __call__(self) -> None:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.model(input_ids=self.ids, labels=self.ids, **self.options).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def seconds(self) -> "Seconds":
        clock = Clock(self.device)
        self()
        return clock.read()


class Seconds(NamedTuple):
    """Wall-clock seconds, and the processor's: those say more of a step on CPU when others use the machine too."""

    wall: float
    cpu: float


class Clock:
    """Seconds since it was made, with the device's work done at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.now()

    def now(self) -> Seconds:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return Seconds(time.perf_counter(), time.process_time())

    def read(self, steps: int = 1) -> Seconds:
        """For each of ``steps``."""
        return Seconds(*((now - start) / steps for now, start in zip(self.now(), self.start, strict=True)))


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and attention in ``work``, counted while it runs."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        work()
    return counter.get_total_flops()


def alternate(steps: dict[str, Callable[[], Seconds]], repeats: int) -> dict[str, list[Seconds]]:
    """Seconds of every contestant, ``repeats`` times in turns, so that all meet the same weather.

    Every other turn runs backwards, so that none always follows the same one.
    """
    order = list(steps)
    turns = [{name: steps[name]() for name in order[:: -1 if turn % 2 else 1]} for turn in range(repeats)]
    return {name: [turn[name] for turn in turns] for name in steps}


def speed(seconds: list[Seconds], flops: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, tokens and FLOPs a second at the fastest; utilisation where the device's peak is known."""
    wall, cpu = zip(*seconds, strict=True)
    name = device_name(arguments)
    peak = next((value for card, value in PEAK_TFLOPS.items() if card in name), None)
    tflops = flops / min(wall) / 1e12
    return {
        "seconds_min": min(wall),
        "seconds_median": statistics.median(wall),
        "cpu_seconds_min": min(cpu),
        "cpu_seconds_median": statistics.median(cpu),
        "tokens_per_second": round(arguments.batch * arguments.context / min(wall), 1),
        "flops": flops,
        "tflop_per_second": round(tflops, 4),
        "model_flop_utilisation": round(tflops / peak, 4) if peak else None,
    }


def ratios(measured: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Every time of ``measured`` over that of ``base``, both from ``speed``."""
    return {key: round(measured[key] / base[key], 4) for key in measured if "seconds_m" in key}


def device_name(arguments: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if arguments.device.startswith("cuda") else f"cpu, {os.cpu_count()} cores"


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a report hold for."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": device_name(arguments),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16(arguments.precision) else "fp32",
        **{name: getattr(arguments, name) for name in ("width", "vocab", "batch", "context")},
    }


def run_part(*extra: str) -> dict[str, Any]:
    """This benchmark in a fresh process, with its own arguments and ``extra`` ones; its last line is the result."""
    result = subprocess.run(own_command(*extra), stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1]
    print(*extra, result, file=sys.stderr)
    return json.loads(result)


def write_report(report: dict[str, Any], out: Path | None) -> None:
    """Print ``report``, and write it to ``out`` if given."""
    text = json.dumps(report, indent=2) + "\n"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    print(text, end="")
