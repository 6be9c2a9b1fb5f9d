"""Train the same small model on several substrates and on trained tables: which one learns real text best?

    python -m eval.studies.substrate --data DIR --out eval/results/substrate-study

DIR holds text/{en,ru,zh}.txt and .valid.txt. Every arm runs at three learning rates at seed 0; the best one on a
development text then runs at the other seeds: 50 runs of about 200 processor seconds. ``--kinds`` chooses arms; the
same command resumes a study that was stopped, and ``--report`` tells of what has finished. Everything but the embedding
is equal at one seed: tokenizer, initial blocks and head, batches and their order, optimiser, schedule. The question is
that of arXiv 2507.04886 and 2605.09751; the scale is far smaller.
"""

import dataclasses
from typing import Any

from transformers import AutoTokenizer

from eval.studies.common.jobs import Job, Results, carry_out, study_arguments
from eval.studies.substrate.arms import ARMS, build_model, effective_dimensions
from eval.studies.substrate.comparison import arms_of, best_rates, summarise
from eval.studies.substrate.data import SMOKE, Scale, chance_levels, prepare, study_folder
from eval.studies.substrate.rarity import curve_of
from eval.studies.substrate.report import as_markdown
from eval.studies.substrate.runs import run
from frozen_glyph.checkpoint.files import read_json

RATES = (1e-3, 2e-3, 4e-3)
RARE_RIVALS = ("grid", "random-long", "trainable", "random-trained")  # of whitened pictures, behind rare tokens


def main() -> None:
    parser = study_arguments("substrate-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt")
    parser.add_argument("--kinds", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument("--steps", type=int, help=f"optimiser steps of a run (default: {Scale.steps})")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="learning rates (default: %(default)s)")
    arguments = parser.parse_args()
    scale, data = SMOKE if arguments.smoke else Scale(), arguments.data
    scale = dataclasses.replace(scale, steps=arguments.steps or scale.steps)
    arguments.work = folder = study_folder(scale, data, arguments.work)
    first = [(kind, 0, rate) for kind in arguments.kinds for rate in arguments.rates]

    def others(results: Results) -> list[Job]:
        rates = best_rates(list(results.values()))
        return [(kind, seed, rates[kind]) for seed in range(1, arguments.seeds) for kind in rates]

    def report(results: dict[Any, dict[str, Any]]) -> dict[str, Any]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        runs = list(results.values())
        arms = arms_of(runs)
        fresh = {kind: build_model(kind, 0, tokenizer, scale)[0].substrate.weight for kind in arms}
        return summarise(
            runs,
            scale.settings(),
            chance_levels(folder, scale),
            {kind: effective_dimensions(vectors) for kind, vectors in fresh.items()},
            read_json(folder / "study.json")["texts"],
            [row for rival in RARE_RIVALS for row in curve_of(arms, "grid-whitened", rival)],
        )

    carry_out(
        arguments,
        prepare=lambda: prepare(scale, data, folder),
        phases=[first, others],
        run=lambda kind, seed, rate: run(kind, int(seed), float(rate), scale, folder),
        summarise=report,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
