"""Step time of a growth stage over the monolithic step of the same depth, against the ratio of their FLOPs.

    python -m eval.bench.growth_step --out eval/results/bench-growth-step.json
    python -m eval.bench.growth_step --blocks 3 3 3 --width 1024 --batch 32 --context 1024 --device cuda
    python -m eval.bench.growth_step --blocks 4 4 4 4 --width 1024 --batch 32 --context 1024 --device cuda

A stage runs its frozen blocks forward only, and its own blocks and the head forward and backward. Growing pays what it
promises when the time ratio is no more than 1.10 times the FLOP ratio. Both settings run the same step (forward with
labels, backward, AdamW on what trains); FLOPs are counted while it runs. ``seconds_over_limit``: a step over the time
that a plain matrix product of the same precision, in turns with the steps, takes for as many FLOPs. Every stage has a
process of its own, in which the two settings make their steps in turns after a warm-up.
"""

import argparse
import itertools
import json

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, run_part, write_report
from eval.bench.models import build_model
from eval.bench.timing import alternate, ratios
from eval.bench.training_step import TrainingStep, count_flops, describe, over_limit, product, speed

ALLOWED = 1.10  # times the FLOP ratio


def main() -> None:
    arguments = parse_arguments()
    if arguments.part:
        print(json.dumps(measure_stage(arguments, int(arguments.part[0]))))
        return
    stages = [run_part(stage) for stage in range(2, len(arguments.blocks) + 1)]
    worst = max(stage["time_ratio_over_flop_ratio"]["seconds_median"] for stage in stages)
    report = {
        **describe(arguments),
        "blocks": arguments.blocks,
        "repeats": arguments.repeats,
        "stages": stages,
        "worst_time_ratio_over_flop_ratio": worst,
        "allowed": ALLOWED,
        "holds": worst <= ALLOWED,
    }
    write_report(report, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=7)
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=[3, 3, 3], help="blocks that each stage adds (default: 3 3 3)"
    )
    add_shape_arguments(parser, width=512, batch=4, context=256)
    arguments = parser.parse_args()
    if len(arguments.blocks) < 2:
        parser.error("--blocks needs two stages at least: the first stage is itself monolithic")
    return arguments


def measure_stage(arguments: argparse.Namespace, stage: int) -> dict:
    """Stage ``stage`` (from 2) beside the monolithic model of its depth."""
    ladder = list(itertools.accumulate(arguments.blocks))
    layers, frozen = ladder[stage - 1], ladder[stage - 2]
    settings = {"monolithic": 0, "growth": frozen}
    steps, flops, peaks = {}, {}, {}
    for name, frozen_layers in settings.items():
        at_rest = torch.cuda.memory_allocated() if arguments.device == "cuda" else 0
        steps[name] = TrainingStep(build_model(arguments, layers, frozen_layers), arguments)
        flops[name] = count_flops(steps[name])  # the first step makes the optimizer's state: warm-up
        if arguments.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps[name]()
        if arguments.device == "cuda":
            peaks[name] = round((torch.cuda.max_memory_allocated() - at_rest) / 2**30, 2)
    dtype = torch.bfloat16 if steps["growth"].bf16 else torch.float32
    turns = {name: step.seconds for name, step in steps.items()} | {"product": product(arguments, dtype)}
    seconds = alternate(turns, arguments.repeats)
    measured = {
        name: {
            **speed(seconds[name], flops[name], arguments),
            "seconds_over_limit": over_limit(seconds[name], flops[name], seconds["product"], arguments.device),
            "trainable_parameters": sum(parameter.numel() for parameter in step.trainable),
            "peak_gibibytes": peaks.get(name),
        }
        for name, step in steps.items()
    }

    flop_ratio = flops["growth"] / flops["monolithic"]
    time_ratio = ratios(measured["growth"], measured["monolithic"])
    return {
        "stage": stage,
        "layers": layers,
        "frozen_layers": frozen,
        **measured,
        "flop_ratio": round(flop_ratio, 4),
        "time_ratio": time_ratio,
        "time_ratio_over_flop_ratio": {key: round(value / flop_ratio, 4) for key, value in time_ratio.items()},
    }


if __name__ == "__main__":
    main()
