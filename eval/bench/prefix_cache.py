"""Step time of a deep model whose frozen prefix is cached, against a model of one block and the same without a cache.

    python -m eval.bench.prefix_cache --out eval/results/bench-prefix-cache.json

One block trains in each: a model of depth 1; depth 16 cached in memory and on disk; depth 16 uncached. All take the
same batches in turn, so that whatever else the machine does slows all alike. Cached and uncached start equal, and the
largest difference of their losses on the way is reported: it is what rounding the states to bfloat16 costs.
"""

import argparse
import json
import tempfile
from pathlib import Path

from eval.bench.toy import ToyWindows, environment, spread, timed, toy_model, train_steps
from frozen_glyph.growth.prefix_cache import PrefixCache
from frozen_glyph.training.train import frozen_digest, uses_bf16


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = environment(arguments.machine) | measure(arguments, Path(folder))
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text, end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the report to this JSON file as well")
    parser.add_argument("--machine", default="", help="what the report calls this machine")
    parser.add_argument("--folder", help="where the cache on disk lies (default: the system's temporary folder)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step")
    parser.add_argument("--context-length", type=int, default=256)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=12, help="steps of each model that are timed")
    parser.add_argument("--batches", type=int, default=4, help="different batches; each comes again and again")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    shape, size = (arguments.width, arguments.vocab_size, arguments.device), arguments.batch
    windows = ToyWindows(arguments.batches * size, arguments.context_length, arguments.vocab_size)
    deep = {name: toy_model(arguments.depth, arguments.depth - 1, *shape) for name in ("memory", "disk", "uncached")}
    caches = {
        name: PrefixCache(deep[name], windows, location, frozen_digest(deep[name]), uses_bf16("auto"))
        for name, location in (("memory", None), ("disk", folder))
    }
    steps = {name: train_steps(model) for name, model in (deep | {"depth 1": toy_model(1, 0, *shape)}).items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    first_visit: dict[str, list[float]] = {name: [] for name in steps}  # the uncached ones for comparison
    difference = dict.fromkeys(caches, 0.0)
    loss = {}
    for at in range(arguments.batches + arguments.rounds):
        for name, step in steps.items():
            inputs = windows.batch(at, size, arguments.device, index=name in caches)
            prepare = caches.get(name, dict)
            elapsed, loss[name] = timed(lambda step=step, prepare=prepare, inputs=inputs: step(prepare(inputs)))
            (seconds if at >= arguments.batches else first_visit)[name].append(elapsed)
        difference = {name: max(largest, abs(loss[name] - loss["uncached"])) for name, largest in difference.items()}
    times = {name: spread(values) for name, values in seconds.items()}
    return {
        "device": arguments.device,
        "width": arguments.width,
        "depth": arguments.depth,
        "batch_tokens": size * arguments.context_length,
        "vocab_size": arguments.vocab_size,
        "rounds": arguments.rounds,
        "cache_megabytes": round(caches["disk"].nbytes / 1e6, 2),
        "steps": times,
        "first_visit": {name: spread(values) for name, values in first_visit.items()},
        "over_depth_1": {
            name: {
                kind.removesuffix("_seconds"): round(times[name][kind] / times["depth 1"][kind], 3)
                for kind in ("min_seconds", "median_seconds")
            }
            for name in deep
        },
        "largest_loss_difference_to_uncached": {name: round(value, 6) for name, value in difference.items()},
        "last_loss": {name: round(value, 4) for name, value in loss.items()},
    }


if __name__ == "__main__":
    main()
