"""Train the same small model on several substrates and on trained tables: which one learns real text best?

    python -m eval.studies.substrate --data DIR --out eval/results/substrate-study

DIR holds text/{en,ru,zh}.txt and .valid.txt, or those of ``--languages``. Every arm runs at three learning rates at
seed 0, and at one beyond where the best lies at an end; the best one on a development text then runs at the other
seeds: 5 to 6 runs an arm of about 120 processor seconds. ``--kinds`` chooses arms; the same command resumes a study
that was stopped, and ``--report`` tells of what has finished. Everything but the embedding is equal at one seed:
tokenizer, initial blocks and head, batches and their order, optimiser, schedule. The question is that of arXiv
2507.04886 and 2605.09751; the scale is far smaller.

``--width``, ``--depth``, ``--vocab`` and ``--languages`` make another study, in a folder of its own. A run then takes
1.7 times as long at depth 4 and 2.3 times at width 512. ``--steps`` makes all arms of a study cheaper, which its report
says; warm-up stays.
"""

import dataclasses
from typing import Any

from transformers import AutoTokenizer

from eval.studies.common.arms import arm_phases
from eval.studies.common.jobs import Results, carry_out, study_arguments
from eval.studies.substrate.arms import ARMS, build_model, effective_dimensions
from eval.studies.substrate.comparison import arms_of, summarise
from eval.studies.substrate.data import LANGUAGES, SMOKE, Scale, chance_levels, prepare, study_folder
from eval.studies.substrate.rarity import curve_of
from eval.studies.substrate.report import as_markdown
from eval.studies.substrate.runs import run
from frozen_glyph.checkpoint.files import read_json

HEAD = 32  # numbers of an attention head
RARE_RIVALS = ("grid", "random-long", "trainable", "random-trained")  # of whitened pictures, behind rare tokens


def main() -> None:
    parser = study_arguments("substrate-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt")
    parser.add_argument("--kinds", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument("--steps", type=int, help=f"optimiser steps of a run (default: {Scale.steps})")
    parser.add_argument("--width", type=int, help=f"of the model, a multiple of {HEAD} (default: {Scale.hidden_size})")
    parser.add_argument("--depth", type=int, help=f"blocks (default: {Scale.layers})")
    parser.add_argument("--vocab", type=int, help=f"token ids, 65536 being bmp (default: {Scale.vocab_size})")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), help="of the text (default: en ru zh)")
    arguments = parser.parse_args()
    scale, data = SMOKE if arguments.smoke else Scale(), arguments.data
    width = arguments.width or scale.hidden_size
    if width < HEAD or width % HEAD:
        parser.error(f"--width {width} must be a multiple of {HEAD}")
    scale = dataclasses.replace(
        scale,
        steps=arguments.steps or scale.steps,
        hidden_size=width,
        heads=width // HEAD,
        layers=arguments.depth or scale.layers,
        vocab_size=arguments.vocab or scale.vocab_size,
        languages=tuple(dict.fromkeys(arguments.languages)),
    )
    arguments.work = folder = study_folder(scale, data, arguments.work)
    kinds, seeds = arguments.kinds, range(arguments.seeds)

    def report(results: Results) -> dict[str, Any]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        arms = arms_of(results, kinds, scale)
        fresh = {kind: build_model(kind, 0, tokenizer, scale)[0].substrate.weight for kind in arms}
        return summarise(
            results,
            kinds,
            scale,
            chance_levels(folder, scale),
            {kind: effective_dimensions(vectors) for kind, vectors in fresh.items()},
            read_json(folder / "study.json")["texts"],
            [row for rival in RARE_RIVALS for row in curve_of(arms, "grid-whitened", rival)],
        )

    carry_out(
        arguments,
        prepare=lambda: prepare(scale, data, folder),
        phases=arm_phases(kinds, scale, seeds),
        run=lambda kind, rate, seed: run(kind, int(seed), float(rate), scale, folder),
        summarise=report,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
