"""Peak memory of a training step beyond the frozen weights, stage by stage: it must not grow with depth.

    python -m eval.bench.memory --out eval/results/bench-memory.json
    python -m eval.bench.memory --width 1024 --batch 32 --context 1024 --device cuda

Each stage adds one block. Every stage has a process of its own, which makes three steps (forward with labels, backward,
AdamW) and reports its peak less the bytes of its frozen blocks. On CUDA the peak is the allocator's. On CPU it is
exact as well: the profiler reports every allocation of torch from before the model is made, so the largest total is the
peak, free of interpreter and libraries. The resident memory of the process stands beside it as a check from outside;
it also holds those, and what malloc keeps. From stage 2 on everything but the frozen blocks should stay: the newest
block with gradients, optimizer state and saved activations, the head, and the substrate. Stage 1 freezes no block and
is left out.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from eval.bench.command import add_shape_arguments, bench_arguments, peak_mebibytes, run_part, write_report
from eval.bench.models import build_model
from eval.bench.training_step import TrainingStep, describe

ALLOWED = 1.05  # largest peak over smallest, from stage 2 on


def main() -> None:
    arguments = parse_arguments()
    if arguments.part:
        print(json.dumps(measure_stage(arguments, int(arguments.part[0]))))
        return
    stages = [run_part(stage) for stage in range(2, arguments.stages + 1)]
    beyond = [stage["beyond_frozen_mebibytes"] for stage in stages]
    growth = max(beyond) / min(beyond)
    report = {
        **describe(arguments),
        "steps": arguments.repeats,
        "stages": stages,
        "largest_over_smallest": round(growth, 4),
        "allowed": ALLOWED,
        "holds": growth <= ALLOWED,
    }
    write_report(report, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--stages", type=int, default=8, help="stages of one block each (default: 8)")
    add_shape_arguments(parser, width=512, batch=4, context=256)
    arguments = parser.parse_args()
    if arguments.stages < 3:
        parser.error("--stages must be 3 at least: the first has no frozen block, and one peak compares with nothing")
    return arguments


def measure_stage(arguments: argparse.Namespace, stage: int) -> dict:
    """Peak of the model of ``stage`` blocks of which the newest trains."""
    if arguments.device == "cpu":
        resident_before = peak_mebibytes()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
            step = train(arguments, stage)
        peak = peak_of_trace(profiler)
        others = {"resident_mebibytes": peak_mebibytes(), "resident_mebibytes_before": resident_before}
    else:
        step = train(arguments, stage)
        peak = torch.cuda.max_memory_allocated()
        others = {"reserved_mebibytes": to_mebibytes(torch.cuda.max_memory_reserved())}
    frozen = sum(
        parameter.numel() * parameter.element_size()
        for parameter in step.model.parameters()
        if not parameter.requires_grad
    )
    return {
        "stage": stage,
        "peak_mebibytes": to_mebibytes(peak),
        "frozen_mebibytes": to_mebibytes(frozen),
        "beyond_frozen_mebibytes": to_mebibytes(peak - frozen),
        "trainable_parameters": sum(parameter.numel() for parameter in step.trainable),
        **others,
    }


def train(arguments: argparse.Namespace, stage: int) -> TrainingStep:
    step = TrainingStep(build_model(arguments, stage, stage - 1), arguments)
    for _ in range(arguments.repeats):  # the first makes the optimizer's state; from the second on steps are alike
        step()
    return step


def peak_of_trace(profiler: profile) -> int:
    """The largest total of bytes that torch's CPU allocator held while ``profiler`` ran."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def to_mebibytes(size: int) -> float:
    return round(size / 2**20, 2)


if __name__ == "__main__":
    main()
