"""Scoring held-out text over what its products must take: the FLOPs of all blocks and of the head at scored positions.

    OMP_NUM_THREADS=1 python -m eval.bench.text_loss --precision fp32 --out eval/results/bench-text-loss.json

A model of random weights scores full windows whose second half counts, in turns with a plain matrix product, whose
speed divides the FLOPs. ``added_mebibytes`` is what scoring adds to the memory at its peak.
"""

import argparse
from statistics import median
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, peak_mebibytes, write_report
from eval.bench.models import build_model
from eval.bench.timing import alternate, timed
from eval.bench.training_step import count_flops, describe
from frozen_glyph.text.loss import ScoredWindow, batches, tokens_at_once, window_losses

SIDE = 1024  # of the plain product


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--layers", type=int, default=4, help="blocks (default: 4)")
    add_shape_arguments(parser, width=512, batch=8, context=512)
    arguments = parser.parse_args()
    write_report(measure(arguments), arguments.out)


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    about, model = describe(arguments), build_model(arguments, arguments.layers).eval()
    ids = torch.randint(arguments.vocab, (arguments.batch, arguments.context), device=arguments.device)
    half = arguments.context // 2
    windows = [ScoredWindow(row, half, 1, 1, 0) for row in ids.tolist()]
    square = torch.randn(SIDE, SIDE, device=arguments.device)

    def score() -> None:
        for places in batches(windows, arguments.batch, tokens_at_once(model)):
            window_losses(model, [windows[place] for place in places])

    before = peak_mebibytes()
    with torch.backends.mkldnn.flags(enabled=False):  # its products are not counted
        flops = count_flops(score)
    turns = {"score": timed(score, arguments.device), "product": timed(lambda: square @ square, arguments.device)}
    found = alternate(turns, arguments.repeats, warm_up=1)
    seconds = {name: median([each.cpu for each in own]) for name, own in found.items()}
    limit = flops * seconds["product"] / (2 * SIDE**3)
    return about | {
        "layers": arguments.layers,
        "repeats": arguments.repeats,
        "flops": flops,
        "seconds": round(seconds["score"], 4),
        "seconds_over_limit": round(seconds["score"] / limit, 3),
        "added_mebibytes": peak_mebibytes() - before,
    }


if __name__ == "__main__":
    main()
