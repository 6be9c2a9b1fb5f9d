"""Does answering from a text appear with depth? The rank of the right answer among ten spans, on real questions.

    python -m eval.studies.emergence --data DIR --out eval/results/emergence-study

DIR holds text/en.txt, text/en.valid.txt, squad/train-v1.1.subset.json and squad/dev-v1.1.json. Copying by content
takes two attention layers, so one block cannot learn it however long it trains: what a grown ladder must show is that
its deeper stages rank answers better than one block trained on, and how near it comes to blocks that train together.

The arms are the growth study's, at equal tokens, half of text and half of SQuAD's training questions as completion;
each runs at three learning rates at seed 0 and at its best one at the other seeds. Asked are questions of the official
development set whose context holds nine other spans of the answer's kind; articles are the units of intervals. The same
command resumes a study that was stopped.
"""

from typing import Any

from eval.studies.common.arms import arm_phases
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.emergence.report import as_markdown, summarise
from eval.studies.emergence.runs import ARMS, SMOKE, Scale, asked_of, prepare, run_arm


def main() -> None:
    parser = study_arguments("emergence-study", __doc__, "text/en.txt, text/en.valid.txt and squad/")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="default: all of them")
    arguments = parser.parse_args()
    data, work, arms, seeds = arguments.data, arguments.work, arguments.arms, range(arguments.seeds)
    scale = SMOKE if arguments.smoke else Scale()

    def run(arm: str, rate: str, seed: str) -> dict[str, Any]:
        return run_arm(arm, float(rate), int(seed), scale, data, work)

    carry_out(
        arguments,
        prepare=lambda: prepare(data, scale, work),
        phases=arm_phases(arms, scale, seeds),
        run=run,
        summarise=lambda results: summarise(results, scale, arms, seeds, asked_of(data, scale)),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
