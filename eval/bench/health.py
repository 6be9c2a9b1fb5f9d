"""What looking at a stage's health costs, over the time that the stage trains.

    python -m eval.bench.health --out eval/results/bench-health.json

A stage of the recipe's default length (1000 steps of 4096 tokens) trains one block over frozen ones; its time is that
of one step times their number. ``model_health`` looks at the newest block, with as many
examples as growth gives it. Both run in turns; the least time of each counts, because the machine may be busy.
"""

import argparse
from pathlib import Path

import torch

from eval.bench.toy import ToyWindows, environment, timed, toy_model, train_steps
from frozen_glyph.checkpoint.files import write_json
from frozen_glyph.health.checkpoint import EXAMPLES, LENGTH
from frozen_glyph.health.measure import model_health
from frozen_glyph.training.recipe import DEFAULT_STEPS, TrainingRecipe

ALLOWED = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4, help="blocks, all but one frozen")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--machine", default="", help="what to call it in the report")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    recipe = TrainingRecipe()
    model = toy_model(arguments.depth, arguments.depth - 1, arguments.width, arguments.vocab)
    windows = ToyWindows(recipe.batch_size, recipe.context_length, arguments.vocab)
    batch = windows.batch(0, recipe.batch_size)
    looked_at = torch.stack([windows[index % len(windows)]["input_ids"][:LENGTH] for index in range(EXAMPLES)])
    step = train_steps(model, recipe.learning_rate)
    work = {
        "step": lambda: step(batch),
        "health": lambda: model_health(model, [looked_at], [f"model.layers.{arguments.depth - 1}"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(arguments.repeats + 1):
        for name, run in work.items():
            spent, _ = timed(run)
            if turn:  # the first one is for warming up
                seconds[name].append(spent)
    share = min(seconds["health"]) / (DEFAULT_STEPS * min(seconds["step"]))
    report = {
        **{name: getattr(arguments, name) for name in ("width", "depth", "vocab", "repeats")},
        "steps_of_a_stage": DEFAULT_STEPS,
        "tokens_of_a_step": recipe.batch_tokens,
        "seconds_of_a_step": min(seconds["step"]),
        "seconds_of_health": min(seconds["health"]),
        "share_of_the_stage": share,
        "allowed": ALLOWED,
        "holds": share <= ALLOWED,
        **environment(arguments.machine),
    }
    if arguments.out:
        write_json(arguments.out, report)
    print(report)


if __name__ == "__main__":
    main()
