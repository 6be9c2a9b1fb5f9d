"""Train the same small model on several substrates and on a trainable embedding: which one learns real text best?

    python -m eval.studies.substrate --data DIR --out eval/results/substrate-study

DIR holds text/{en,ru,zh}.txt and .valid.txt. 24 runs of about 200 processor seconds; the same command resumes a study
that was stopped. Everything but the embedding is equal at one seed: tokenizer, initial blocks and head, batches and
their order, optimiser, schedule. The question is that of arXiv 2507.04886 and 2605.09751; the scale is far smaller.

Runs train with the package's own trainer. The results in eval/results come from a loop of the study's own on the same
batches, whose warm-up was one step ahead (its first step has a rate above 0, the trainer's has 0): at equal settings
losses differ by that step's progress, and by no more than 0.0003 nats per character once it is taken out.
"""

import dataclasses
from typing import Any

from transformers import AutoTokenizer

from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.substrate.comparison import summarise
from eval.studies.substrate.data import SMOKE, Scale, chance_levels, prepare, study_folder
from eval.studies.substrate.report import as_markdown
from eval.studies.substrate.runs import CURVE_SHARE, KINDS, build_model, effective_dimensions, run
from frozen_glyph.checkpoint.files import read_json

CHECK_KINDS = ("grid", "random", "trainable")  # also trained at other learning rates


def main() -> None:
    parser = study_arguments("substrate-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--steps", type=int, help=f"optimiser steps of a run (default: {Scale.steps})")
    parser.add_argument("--rate", type=float, default=Scale.learning_rate, help="learning rate (default: %(default)s)")
    parser.add_argument("--check-rates", nargs="*", type=float, default=[1e-3, 4e-3], help="tried at the first seed")
    parser.add_argument("--check-kinds", nargs="*", choices=KINDS, default=CHECK_KINDS, help="that try them")
    arguments = parser.parse_args()
    scale, data = SMOKE if arguments.smoke else Scale(), arguments.data
    scale = dataclasses.replace(scale, steps=arguments.steps or scale.steps)
    arguments.work = folder = study_folder(scale, data, arguments.work)
    jobs = [(kind, seed, arguments.rate) for seed in range(arguments.seeds) for kind in arguments.kinds]
    jobs += [(kind, 0, rate) for rate in arguments.check_rates for kind in arguments.check_kinds]

    def report(results: dict[Any, dict[str, Any]]) -> dict[str, Any]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        fresh = {kind: build_model(kind, 0, tokenizer, scale)[0].substrate.weight for kind in arguments.kinds}
        return summarise(
            list(results.values()),
            scale.settings() | {"curve_share": CURVE_SHARE},
            arguments.rate,
            chance_levels(data, folder, scale),
            {kind: effective_dimensions(vectors) for kind, vectors in fresh.items()},
            read_json(folder / "study.json")["texts"],
        )

    carry_out(
        arguments,
        prepare=lambda: prepare(scale, data, folder),
        phases=[list(dict.fromkeys(jobs))],
        run=lambda kind, seed, rate: run(kind, int(seed), float(rate), scale, data, folder),
        summarise=report,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
