"""The head's product by oneDNN beside torch's ``linear``, which uses MKL, for several numbers of states.

    python -m eval.bench.head --out eval/results/bench-head.json

Float32 on a CPU, in turns. ``OutputHead`` takes the one of them that ``onednn_serves`` says.
"""

import argparse
from statistics import median
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.timing import alternate, timed
from eval.bench.training_step import describe
from frozen_glyph.model.head_frozen_glyph import HAS_BOTH, head_linear, onednn_serves

STATES = (1, 16, 64, 256, 1024)


def main() -> None:
    parser = bench_arguments(__doc__, repeats=15)
    add_shape_arguments(parser, width=512, batch=8, context=512)
    parser.set_defaults(precision="fp32")
    arguments = parser.parse_args()
    if not HAS_BOTH:
        parser.error("this torch has MKL or oneDNN, not both: there is nothing to compare")
    write_report(measure(arguments), arguments.out)


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    about = describe(arguments)
    torch.manual_seed(0)
    weight, bias = torch.randn(arguments.vocab, arguments.width), torch.randn(arguments.vocab)
    rows = {}
    for count in STATES:
        states = torch.randn(count, arguments.width)
        turns = {
            "linear": timed(lambda states=states: torch.nn.functional.linear(states, weight, bias)),
            "onednn": timed(
                lambda states=states: torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
            ),
            "head": timed(lambda states=states: head_linear(states, weight, bias)),
        }
        measured = alternate(turns, arguments.repeats, warm_up=2)
        seconds = {name: median(each.wall for each in own) for name, own in measured.items()}
        rows[str(count)] = {
            **{f"{name}_seconds": each for name, each in seconds.items()},
            "linear_over_onednn": round(seconds["linear"] / seconds["onednn"], 3),
            "linear_over_head": round(seconds["linear"] / seconds["head"], 3),
            "by_onednn": onednn_serves(states, weight, bias),
        }
    return {
        **about,
        "repeats": arguments.repeats,
        "states": rows,
    }


if __name__ == "__main__":
    main()
