"""Does answering from a text appear with depth? Both SQuAD protocols on every stage of the growth study's models.

    python -m eval.studies.squad --grown runs/growth-study --data DIR --out eval/results/squad-by-depth

DIR holds squad/dev-v1.1.json and squad/dev-v2.0.json; ``--grown`` the folder of a growth study whose ``--size`` it was
and whose arms ``--arm`` and control have finished. The same command resumes what was stopped. Tasks: the published
short-answer protocol (greedy, 256 questions) and SQuAD v1.1 as completion (500 questions drawn at random). Slopes are
of score over number of blocks, all stages, by least squares; what one block trained on with the same tokens scores
stands beside them. Questions of one article are one unit.
"""

from pathlib import Path

from eval.studies.common.arms import rates_in
from eval.studies.common.jobs import carry_out, job_name, study_arguments
from eval.studies.growth import runs as growth
from eval.studies.squad.report import as_markdown, summarise
from eval.studies.squad.runs import QUESTIONS, score_stages
from frozen_glyph.evaluation.tasks.mirror import write_mirror


def main() -> None:
    parser = study_arguments("squad-by-depth", __doc__, "squad/dev-v1.1.json and squad/dev-v2.0.json")
    parser.add_argument("--grown", type=Path, default=Path("runs/growth-study"), help="work folder of the growth study")
    parser.add_argument("--size", choices=list(growth.SIZES), default="small", help="of the growth study")
    parser.add_argument("--arm", choices=growth.GROWN, default="newest-carried", help="default: %(default)s")
    arguments = parser.parse_args()
    mirror, scale = (arguments.work / "mirror").resolve(), growth.SIZES["tiny" if arguments.smoke else arguments.size]
    questions = dict.fromkeys(QUESTIONS, 4) if arguments.smoke else QUESTIONS
    arms = [arguments.arm, growth.CONTROL]

    def folder_of(arm: str, seed: int) -> Path:
        """Of the growth study's model of that seed, at its best rate."""
        rate = rates_in(arguments.grown, [arm], scale)[arm]
        return arguments.grown / job_name((arm, rate, seed))

    carry_out(
        arguments,
        prepare=lambda: write_mirror(arguments.data, mirror),
        phases=[[(arm, seed) for seed in range(arguments.seeds) for arm in arms]],
        run=lambda arm, seed: score_stages(folder_of(arm, int(seed)), questions, mirror),
        summarise=lambda results: summarise(results, arguments.arm, growth.CONTROL),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
