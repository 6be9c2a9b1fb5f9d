"""Scoring held-out text over what its products must take: the FLOPs of all blocks and of the head at scored positions.

    OMP_NUM_THREADS=1 python -m eval.bench.text_loss --precision fp32 --out eval/results/bench-text-loss.json

A model of random weights scores full windows whose second half counts, in turns with a plain matrix product, whose
speed in the same precision divides the FLOPs. ``added_mebibytes`` is what scoring adds to the memory at its peak.
"""

import argparse
from statistics import median
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, peak_mebibytes, write_report
from eval.bench.models import build_model
from eval.bench.timing import alternate, timed
from eval.bench.training_step import count_flops, describe, over_limit, product
from frozen_glyph.text.loss import ScoredWindow, batches, tokens_at_once, window_losses
from frozen_glyph.training.precision import uses_bf16


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--layers", type=int, default=4, help="blocks (default: 4)")
    add_shape_arguments(parser, width=512, batch=8, context=512)
    arguments = parser.parse_args()
    write_report(measure(arguments), arguments.out)


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    about, dtype = describe(arguments), torch.bfloat16 if uses_bf16(arguments.precision) else torch.float32
    model = build_model(arguments, arguments.layers).to(dtype).eval()
    ids = torch.randint(arguments.vocab, (arguments.batch, arguments.context), device=arguments.device)
    half = arguments.context // 2
    windows = [ScoredWindow(row, half, 1, 1, 0) for row in ids.tolist()]

    def score() -> None:
        for places in batches(windows, arguments.batch, tokens_at_once(model)):
            window_losses(model, [windows[place] for place in places])

    before = peak_mebibytes()
    with torch.backends.mkldnn.flags(enabled=dtype != torch.float32):  # of that, its products are not counted
        flops = count_flops(score)
    turns = {"score": timed(score, arguments.device), "product": product(arguments, dtype)}
    found = alternate(turns, arguments.repeats, warm_up=1)
    return about | {
        "layers": arguments.layers,
        "repeats": arguments.repeats,
        "flops": flops,
        "seconds": round(median([each.cpu for each in found["score"]]), 4),
        "seconds_over_limit": over_limit(found["score"], flops, found["product"], arguments.device),
        "added_mebibytes": peak_mebibytes() - before,
    }


if __name__ == "__main__":
    main()
