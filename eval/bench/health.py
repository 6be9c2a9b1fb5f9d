"""What looking at a stage's health costs, over the time that the stage trains.

    python -m eval.bench.health --out eval/results/bench-health.json

A stage of the recipe's default length (1000 steps of 4096 tokens) trains one block over frozen ones; its time is that
of one step times their number. ``model_health`` looks at the newest block, with as many
examples as growth gives it. Both run in turns; the least time of each counts, because the machine may be busy.
"""

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.models import build_model
from eval.bench.timing import alternate, summary, timed
from eval.bench.toy import ToyWindows
from eval.bench.training_step import TrainingStep, describe
from frozen_glyph.health.checkpoint import EXAMPLES, LENGTH
from frozen_glyph.health.measure import model_health
from frozen_glyph.training.recipe import DEFAULT_STEPS, TrainingRecipe

ALLOWED = 0.02


def main() -> None:
    recipe = TrainingRecipe()
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--depth", type=int, default=4, help="blocks, all but one frozen (default: 4)")
    add_shape_arguments(parser, width=256, batch=recipe.batch_size, context=recipe.context_length, vocab=4096)
    arguments = parser.parse_args()

    about = describe(arguments)
    model = build_model(arguments, arguments.depth, arguments.depth - 1)
    model.substrate.materialize()
    windows = ToyWindows(arguments.batch, arguments.context, arguments.vocab)
    batch = windows.batch(0, arguments.batch, arguments.device)
    looked_at = torch.stack([windows[index % len(windows)]["input_ids"][:LENGTH] for index in range(EXAMPLES)])
    step = TrainingStep(model, arguments, recipe.learning_rate)
    newest = [f"model.layers.{arguments.depth - 1}"]
    turns = {"step": lambda: step(batch), "health": lambda: model_health(model, [looked_at], newest)}
    measured = alternate(
        {name: timed(work, arguments.device) for name, work in turns.items()}, arguments.repeats, warm_up=1
    )
    seconds = {name: summary(own)["seconds_min"] for name, own in measured.items()}
    share = seconds["health"] / (DEFAULT_STEPS * seconds["step"])
    report = {
        **about,
        **{name: getattr(arguments, name) for name in ("depth", "repeats")},
        "steps_of_a_stage": DEFAULT_STEPS,
        "seconds_of_a_step": seconds["step"],
        "seconds_of_health": seconds["health"],
        "share_of_the_stage": share,
        "allowed": ALLOWED,
        "holds": share <= ALLOWED,
    }
    write_report(report, arguments.out)


if __name__ == "__main__":
    main()
