"""Memory, loss and step time of a growth stage over quantised frozen blocks, against full precision.

    python -m eval.bench.quantize --out eval/results/bench-quantize.json

A small model is trained as a whole, then grown by one block. Each kind trains that block from the same start on the
same batches in turn. Losses are in nats a token on held-out windows: with the quantised blocks as trained, and with
full-precision blocks put back under what was trained, which is the model that a run publishes.
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.models import build_model
from eval.bench.timing import Seconds, alternate, ratios, summary, timed
from eval.bench.toy import ToyWindows
from eval.bench.training_step import TrainingStep, describe
from frozen_glyph import grow
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.quantize import LIBRARIES, plain_parts, quantize_frozen

HELD_OUT = 16  # windows
LEARNING_RATE = 1e-3


def main() -> None:
    parser = bench_arguments(__doc__, repeats=50)  # steps of the new block
    parser.add_argument("--depth", type=int, default=4, help="blocks below the new one (default: 4)")
    add_shape_arguments(parser, width=256, batch=8, context=128, vocab=512)
    parser.add_argument("--steps-below", type=int, default=150, help="steps of the model that is then frozen")
    arguments = parser.parse_args()
    write_report(describe(arguments) | measure(arguments), arguments.out)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    shape = (arguments.context, arguments.vocab)
    windows = ToyWindows(arguments.batch * (arguments.steps_below + arguments.repeats), *shape)
    held_out = ToyWindows(HELD_OUT, *shape, seed=2).batch(0, HELD_OUT, arguments.device)
    below = build_model(arguments, arguments.depth)
    below.substrate.materialize()
    train_below = TrainingStep(below, arguments, LEARNING_RATE)
    for at in range(arguments.steps_below):
        train_below(windows.batch(at, arguments.batch, arguments.device))
    grown = grow(below, 1).train()
    grown.substrate.materialize()
    report: dict[str, Any] = {"none": {}}
    models: dict[str, Any] = {"none": grown}
    for kind in LIBRARIES:
        model = copy.deepcopy(grown)
        try:
            quantize_frozen(model, kind)  # type: ignore[arg-type]
            models[kind], report[kind] = model, {}
        except FrozenGlyphError as error:
            report[kind] = {"not_measured": str(error)}
    steps = {kind: TrainingStep(model, arguments, LEARNING_RATE) for kind, model in models.items()}

    def loss(step: TrainingStep) -> float:
        """Nats a token on held-out windows, in the precision of training."""
        with torch.no_grad():
            return round(step.loss(held_out).item(), 5)

    def turns_of(step: TrainingStep) -> Callable[[], Seconds]:
        numbers = itertools.count(arguments.steps_below)
        return lambda: timed_step(step, windows.batch(next(numbers), arguments.batch, arguments.device))

    for kind, step in steps.items():
        report[kind] |= {"frozen_block_bytes": frozen_block_bytes(step.model), "loss_before_training": loss(step)}
    seconds = alternate({kind: turns_of(step) for kind, step in steps.items()}, arguments.repeats)
    times = {kind: summary(own) for kind, own in seconds.items()}
    for kind, step in steps.items():
        plain = TrainingStep(with_plain_blocks(below, step.model), arguments)
        report[kind] |= {
            "loss_after_training": loss(step),
            "loss_with_full_precision_blocks_put_back": loss(plain),
            **times[kind],
            "step_over_none": ratios(times[kind], times["none"])["seconds_median"],
            "bytes_over_none": round(report[kind]["frozen_block_bytes"] / report["none"]["frozen_block_bytes"], 4),
        }
    fields = ("depth", "steps_below", "repeats")
    return {name: getattr(arguments, name) for name in fields} | {"best_possible_loss": 1.3863, "kinds": report}


def timed_step(step: TrainingStep, inputs: dict[str, torch.Tensor]) -> Seconds:
    return timed(lambda: step(inputs), step.device)()


def frozen_block_bytes(model: Any) -> int:
    """Bytes of all parameters of the frozen blocks."""
    blocks = model.model.layers[: model.config.num_frozen_layers]
    return sum(part.nbytes for weight in blocks.parameters() for part in plain_parts(weight.data))


def with_plain_blocks(below: Any, model: Any) -> Any:
    """What was trained in ``model`` over the blocks of ``below`` in full precision."""
    plain = grow(below, 1)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    plain.load_state_dict(trained, strict=False)
    return plain.train()


if __name__ == "__main__":
    main()
