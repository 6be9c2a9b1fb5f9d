"""The demo over several seeds: does every stage help, more than one block trained on, and is merging worth it?

    python -m eval.studies.demo --out eval/results/demo

Each seed is a demo of its own, with its own world, text and questions (synthetic), and beside each of its experts the
control: its first block trained on for as many tokens, with no new one. The same command resumes a study that was
stopped. What is said of ability is the mean over all cells (an expert and a task), over seeds.
"""

from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.demo.report import as_markdown, summarise
from eval.studies.demo.runs import TINY_STEPS, run_seed
from frozen_glyph.demo.run import STEPS


def main() -> None:
    arguments = study_arguments("demo", __doc__, seeds=5).parse_args()
    steps = TINY_STEPS if arguments.smoke else STEPS
    carry_out(
        arguments,
        prepare=lambda: None,
        phases=[[("demo", seed) for seed in range(arguments.seeds)]],
        run=lambda kind, seed: run_seed(int(seed), steps, arguments.work),
        summarise=lambda results: summarise(results, steps),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
