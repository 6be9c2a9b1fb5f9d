"""Memory, loss and step time of a growth stage over quantised frozen blocks, against full precision.

    python -m eval.bench.quantize --out eval/results/bench-quantize.json

A small model is trained as a whole, then grown by one block. Each kind trains that block from the same start on the
same batches in turn. Losses are in nats a token on held-out windows: with the quantised blocks as trained, and with
full-precision blocks put back under what was trained, which is the model that a run publishes.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.bench.toy import ToyWindows, environment, precision, spread, timed, toy_model, train_steps
from frozen_glyph import grow
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.quantize import LIBRARIES, plain_parts, quantize_frozen

HELD_OUT = 16  # windows


def main() -> None:
    arguments = parse_arguments()
    text = json.dumps(environment(arguments.machine) | measure(arguments), indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text, end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the report to this JSON file as well")
    parser.add_argument("--machine", default="", help="what the report calls this machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4, help="blocks below the new one")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step")
    parser.add_argument("--context-length", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=512)
    parser.add_argument("--steps-below", type=int, default=150, help="steps of the model that is then frozen")
    parser.add_argument("--steps", type=int, default=50, help="steps of the new block, all timed")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    shape = (arguments.context_length, arguments.vocab_size)
    windows = ToyWindows(arguments.batch * (arguments.steps_below + arguments.steps), *shape)
    held_out = ToyWindows(HELD_OUT, *shape, seed=2).batch(0, HELD_OUT, arguments.device)
    below = toy_model(arguments.depth, 0, arguments.width, arguments.vocab_size, arguments.device)
    step = train_steps(below)
    for at in range(arguments.steps_below):
        step(windows.batch(at, arguments.batch, arguments.device))
    grown = grow(below, 1).train()
    grown.substrate.materialize()
    report: dict[str, Any] = {"none": {}}
    models = {"none": grown}
    for kind in LIBRARIES:
        model = copy.deepcopy(grown)
        try:
            quantize_frozen(model, kind)  # type: ignore[arg-type]
            models[kind], report[kind] = model, {}
        except FrozenGlyphError as error:
            report[kind] = {"not_measured": str(error)}
    for kind, model in models.items():
        report[kind]["frozen_block_bytes"] = frozen_block_bytes(model)
        report[kind]["loss_before_training"] = loss(model, held_out)
    steps = {kind: train_steps(model) for kind, model in models.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for at in range(arguments.steps_below, arguments.steps_below + arguments.steps):
        inputs = windows.batch(at, arguments.batch, arguments.device)
        for kind, step in steps.items():
            seconds[kind].append(timed(lambda step=step, inputs=inputs: step(inputs))[0])
    for kind, model in models.items():
        report[kind] |= {
            "loss_after_training": loss(model, held_out),
            "loss_with_full_precision_blocks_put_back": loss(published(below, model), held_out),
            **spread(seconds[kind]),
            "step_over_none": round(float(np.median(seconds[kind]) / np.median(seconds["none"])), 3),
            "bytes_over_none": round(report[kind]["frozen_block_bytes"] / report["none"]["frozen_block_bytes"], 4),
        }
    fields = ("device", "width", "depth", "batch", "context_length", "vocab_size", "steps_below", "steps")
    return {name: getattr(arguments, name) for name in fields} | {"best_possible_loss": 1.3863, "kinds": report}


def frozen_block_bytes(model: Any) -> int:
    """Bytes of all parameters of the frozen blocks."""
    blocks = model.model.layers[: model.config.num_frozen_layers]
    return sum(part.nbytes for weight in blocks.parameters() for part in plain_parts(weight.data))


def published(below: Any, model: Any) -> Any:
    """What was trained in ``model`` over the blocks of ``below`` in full precision."""
    plain = grow(below, 1)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    plain.load_state_dict(trained, strict=False)
    return plain.train()


@torch.no_grad()
def loss(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Nats a token on held-out windows, in the precision of training."""
    with precision(model.device):
        return round(model(**inputs).loss.item(), 5)


if __name__ == "__main__":
    main()
