"""Growing against training all layers at once, on real text: depth, compute, initialisation, LoRA phases, cost.

    python -m eval.studies.growth --data DIR --out eval/results/growth-study

DIR holds text/en.txt and text/en.valid.txt. One run for each variant and seed, in a process of its own; what has
finished is kept in the work folder, and a run that was stopped goes on, so the same command resumes the study.

Variants, all of the same width on one substrate:
    grown              one block a stage, each new block starting as the identity
    grown-random       the same with freshly initialised blocks (the published way), grown-copy with copies of the top
    grown-lora         the same tokens, a quarter of them in LoRA phases at the end of the stages from the third on
    monolithic-tokens  all blocks at once, as many tokens as all stages together
    monolithic-compute all blocks at once, as many FLOPs as all stages together
"""

from eval.studies.common.ground import build_ground, text_file
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.growth.report import VARIANTS, as_markdown, summarise
from eval.studies.growth.runs import SMOKE, Scale, run_variant


def main() -> None:
    arguments = study_arguments("growth-study", __doc__, "text/en.txt and text/en.valid.txt").parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work
    carry_out(
        arguments,
        prepare=lambda: build_ground([text_file(data, "en")], scale, work),
        phases=[
            [(variant, seed) for seed in range(arguments.seeds) for variant in part]
            for part in (VARIANTS[:3], VARIANTS[3:])
        ],
        run=lambda variant, seed: run_variant(variant, int(seed), scale, data, work),
        summarise=lambda results: summarise(results, scale),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
