"""How costs grow with depth, experts, ids, documents and items: one table, and a word where a cost is above linear.

    python -m eval.bench.costs --out eval/results/bench-costs.json

Every row doubles, or multiplies by ten, one size and keeps the others; its cost is processor seconds, the least of
``--repeats`` turns. The slope is the exponent between the two largest sizes: 1 is linear, and what does not grow with a
size, as start-up does not, only makes it smaller. Above ``ALLOWED`` the row says so.
"""

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.bench.command import bench_arguments, circumstances, write_report
from eval.bench.generate import build_merged
from eval.bench.models import build_model
from eval.bench.timing import Clock
from eval.bench.training_step import TrainingStep
from frozen_glyph import build_tokenizer
from frozen_glyph.statistics import bootstrap_interval, paired_bootstrap
from frozen_glyph.training.data import pack
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

ALLOWED = 1.15  # of a slope, measured on a machine with other work
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "read", "of", "hats", "that", "were", "not", "there"]
Turn = Callable[[], object]


def main() -> None:
    arguments = parse_arguments()
    report = {**circumstances(), "allowed": ALLOWED, "rows": [measure(*row, arguments) for row in ROWS]}
    report["above_linear"] = [row["cost"] for row in report["rows"] if row["slope"] > ALLOWED]
    write_report(report, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--points", type=int, default=9, help="sizes of each row, from the smallest (default: all)")
    arguments = parser.parse_args()
    if arguments.points < 2:
        parser.error("--points must be 2 or more: a slope needs two sizes")
    return arguments


def measure(
    cost: str, size: str, sizes: Sequence[int], turn_of: Callable[[int], Turn], arguments: argparse.Namespace
) -> dict[str, Any]:
    """The row of one cost: processor seconds by size."""
    sizes = sizes[: arguments.points]
    seconds = {}
    for value in sizes:
        turn, times = turn_of(value), []
        for _ in range(1 + arguments.repeats):  # the first one warms up
            clock = Clock()
            turn()
            times.append(clock.read().cpu)
        seconds[value] = min(times[1:])
    (before, small), (after, large) = [(value, max(seconds[value], 1e-6)) for value in sizes[-2:]]
    slope = math.log(large / small) / math.log(after / before)
    return {"cost": cost, "by": size, "seconds": seconds, "slope": round(slope, 2)}


def shape(**changes: Any) -> argparse.Namespace:
    fields = {"width": 128, "heads": 4, "vocab": 512, "batch": 4, "context": 64, "device": "cpu", "precision": "fp32"}
    return argparse.Namespace(**fields | changes)


def stage_step(depth: int) -> Turn:
    """A step of the stage that adds the last of ``depth`` blocks."""
    return TrainingStep(build_model(shape(), depth, frozen=depth - 1), shape())


def whole_step(depth: int) -> Turn:
    return TrainingStep(build_model(shape(), depth), shape())


def vocabulary_step(ids: int) -> Turn:
    """A step of one block under a head of so many ids."""
    fields = shape(vocab=ids, batch=1)
    return TrainingStep(build_model(fields, 1), fields)


def reading(rule: str) -> Callable[[int], Turn]:
    """A prompt read by ``experts`` under ``rule``."""

    def turn_of(experts: int) -> Turn:
        merged = build_merged(build_model(shape(), 2), experts).eval()
        merged.config.rule = rule
        ids = torch.randint(512, (4, 64), generator=torch.Generator().manual_seed(0))

        def turn() -> None:
            with torch.no_grad():
                merged(ids)

        return turn

    return turn_of


def packing(documents: int) -> Turn:
    """Short documents of .txt packed, each time anew."""
    rng = random.Random(0)
    text = "\n\n".join(" ".join(rng.choices(WORDS, k=8)) for _ in range(documents))
    tokenizer = build_tokenizer([" ".join(WORDS) * 50], 512)

    def turn() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text.txt")
            path.write_text(text, encoding="utf-8")
            pack(DataRecipe([SourceRecipe([str(path)])]), tokenizer, "costs", Path(folder))

    return turn


def values_of(items: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.1, 1.0, items)


ROWS: list[tuple[str, str, Sequence[int], Callable[[int], Turn]]] = [
    ("step of a stage of one block", "depth", (1, 2, 4, 8, 16), stage_step),
    ("step of all blocks", "depth", (1, 2, 4, 8, 16), whole_step),
    ("reading, rule mean", "experts", (2, 4, 8, 16), reading("mean")),
    ("reading, rule posterior", "experts", (2, 4, 8, 16), reading("posterior")),
    ("reading, rule evidence", "experts", (2, 4, 8, 16), reading("evidence")),
    ("step of one block and its head", "ids", (4096, 8192, 16_384, 32_768, 65_536, 131_072), vocabulary_step),
    ("packing", "documents", (1000, 10_000, 100_000, 1_000_000), packing),
    ("interval of a score", "items", (100, 1000, 10_000, 100_000), lambda n: lambda: bootstrap_interval(values_of(n))),
    (
        "paired difference of two scores",
        "items",
        (100, 1000, 10_000, 100_000),
        lambda n: lambda: paired_bootstrap(values_of(n), np.zeros(n)),
    ),
]


if __name__ == "__main__":
    main()
