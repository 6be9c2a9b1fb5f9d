"""Step time of a deep model whose frozen prefix is cached, against a model of one block and the same without a cache.

    python -m eval.bench.prefix_cache --out eval/results/bench-prefix-cache.json

One block trains in each: a model of depth 1; depth 16 cached in memory and on disk; depth 16 uncached. All take the
same batches in turn, so that whatever else the machine does slows all alike. Cached and uncached start equal, and the
largest difference of their losses on the way is reported: it is what rounding the states to bfloat16 costs.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.models import build_model
from eval.bench.timing import Clock, Seconds, alternate, ratios, summary
from eval.bench.toy import ToyWindows
from eval.bench.training_step import TrainingStep, describe
from frozen_glyph.growth.prefix_cache import PrefixCache
from frozen_glyph.training.train import frozen_digest

LEARNING_RATE = 1e-3


def main() -> None:
    parser = bench_arguments(__doc__, repeats=12)
    parser.add_argument("--folder", help="where the cache on disk lies (default: the system's temporary folder)")
    parser.add_argument("--depth", type=int, default=16, help="blocks, all but one frozen (default: 16)")
    add_shape_arguments(parser, width=256, batch=8, context=256, vocab=4096)
    parser.add_argument("--batches", type=int, default=4, help="different batches; each comes again and again")
    arguments = parser.parse_args()
    about = describe(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = about | measure(arguments, Path(folder))
    write_report(report, arguments.out)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    windows = ToyWindows(arguments.batches * arguments.batch, arguments.context, arguments.vocab)
    depths = dict.fromkeys(("memory", "disk", "uncached"), arguments.depth) | {"depth 1": 1}
    steps = {}
    for name, depth in depths.items():
        model = build_model(arguments, depth, depth - 1)
        model.substrate.materialize()
        steps[name] = TrainingStep(model, arguments, LEARNING_RATE)
    caches = {
        name: PrefixCache(steps[name].model, windows, location, frozen_digest(steps[name].model), steps[name].bf16)
        for name, location in (("memory", None), ("disk", folder))
    }

    def turns_of(name: str) -> Callable[[], tuple[Seconds, float]]:
        """Steps on one batch after the other: seconds and loss of each."""
        step, prepare, numbers = steps[name], caches.get(name, dict), itertools.count()

        def turn() -> tuple[Seconds, float]:
            inputs = windows.batch(next(numbers), arguments.batch, arguments.device, index=name in caches)
            clock = Clock(arguments.device)
            loss = step(prepare(inputs)).item()
            return clock.read(), loss

        return turn

    rounds = alternate({name: turns_of(name) for name in steps}, arguments.batches + arguments.repeats)
    losses = {name: [loss for _, loss in own] for name, own in rounds.items()}
    seconds = {name: [spent for spent, _ in own] for name, own in rounds.items()}
    first_visit = {name: summary(own[: arguments.batches]) for name, own in seconds.items()}
    later = {name: summary(own[arguments.batches :]) for name, own in seconds.items()}
    return {
        **{name: getattr(arguments, name) for name in ("depth", "batches", "repeats")},
        "cache_megabytes": round(caches["disk"].nbytes / 1e6, 2),
        "steps": later,
        "first_visit": first_visit,
        "over_depth_1": {name: ratios(later[name], later["depth 1"]) for name in steps if name != "depth 1"},
        "largest_loss_difference_to_uncached": {
            name: round(max(abs(own - other) for own, other in zip(losses[name], losses["uncached"], strict=True)), 6)
            for name in caches
        },
        "last_loss": {name: round(own[-1], 4) for name, own in losses.items()},
    }


if __name__ == "__main__":
    main()
