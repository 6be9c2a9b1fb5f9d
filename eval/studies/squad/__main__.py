"""Does answering from a text appear with depth? Both SQuAD protocols on the emergence study's models.

    python -m eval.studies.squad --grown runs/emergence-study --data DIR --out eval/results/squad-by-depth

DIR holds squad/dev-v1.1.json and squad/dev-v2.0.json; ``--grown`` is the work folder of the emergence study, half of
whose training text is questions, and whose arms have finished the same seeds. The same command resumes what was
stopped. Tasks: the published short-answer protocol (greedy, 256 questions) and SQuAD v1.1 as completion (500 questions
drawn at random), on every stage of the grown model and on the last one of its controls: one block trained on, two and
four blocks at once, with the same tokens. Slopes are of score over number of blocks, all stages, by least squares.
Questions of one article are one unit.
"""

from pathlib import Path

from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.emergence import runs as emergence
from eval.studies.squad.report import as_markdown, summarise
from eval.studies.squad.runs import QUESTIONS, score_stages
from frozen_glyph.evaluation.tasks.mirror import write_mirror

BESIDE = (emergence.CONTROL, "two-blocks", "joint")


def main() -> None:
    parser = study_arguments("squad-by-depth", __doc__, "squad/dev-v1.1.json and squad/dev-v2.0.json")
    emergence.add_grown_argument(parser)
    arguments = parser.parse_args()
    mirror = (arguments.work / "mirror").resolve()
    questions = dict.fromkeys(QUESTIONS, 4) if arguments.smoke else QUESTIONS

    def start_of(arm: str, seed: int) -> Path:
        return emergence.folder_of(
            arm, seed, arguments.grown, emergence.SMOKE if arguments.smoke else emergence.Scale()
        )

    jobs = [(arm, seed) for seed in range(arguments.seeds) for arm in (emergence.GROWN, *BESIDE)]
    carry_out(
        arguments,
        prepare=lambda: [write_mirror(arguments.data, mirror), *(start_of(*job) for job in jobs)],
        phases=[jobs],
        run=lambda arm, seed: score_stages(start_of(arm, int(seed)), questions, mirror, arm == emergence.GROWN),
        summarise=lambda results: summarise(results, emergence.GROWN, BESIDE),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
