"""Does answering from a text appear with depth? Both SQuAD protocols on every stage of the growth study's models.

    python -m eval.studies.squad --grown runs/growth-study --data DIR --out eval/results/squad-by-depth

DIR holds squad/dev-v1.1.json and squad/dev-v2.0.json; ``--grown`` the folder of a finished growth study. The same
command resumes what was stopped. Tasks: the published short-answer protocol (greedy, 256 questions) and SQuAD v1.1 as
completion (500 questions drawn at random). Slopes are of score over number of blocks, all stages, by least
squares, and are drawn by article.
"""

from pathlib import Path

from eval.studies.common.arms import chosen_rates, rate_jobs
from eval.studies.common.jobs import carry_out, job_name, read_results, study_arguments
from eval.studies.growth import runs as growth
from eval.studies.squad.report import as_markdown, summarise
from eval.studies.squad.runs import QUESTIONS, score_stages
from frozen_glyph.evaluation.tasks.mirror import write_mirror


def main() -> None:
    parser = study_arguments("squad-by-depth", __doc__, "squad/dev-v1.1.json and squad/dev-v2.0.json")
    parser.add_argument("--grown", type=Path, default=Path("runs/growth-study"), help="work folder of the growth study")
    arguments = parser.parse_args()
    mirror = (arguments.work / "mirror").resolve()
    scale, arm = growth.SMOKE if arguments.smoke else growth.Scale(), growth.BASELINE
    questions = dict.fromkeys(QUESTIONS, 4) if arguments.smoke else QUESTIONS

    def folder_of(seed: int) -> Path:
        """Of the growth study's model of that seed, at its best rate."""
        rate = chosen_rates(read_results(arguments.grown, rate_jobs([arm], scale)), [arm], scale)[arm]
        return arguments.grown / job_name((arm, rate, seed))

    carry_out(
        arguments,
        prepare=lambda: write_mirror(arguments.data, mirror),
        phases=[[("squad", seed) for seed in range(arguments.seeds)]],
        run=lambda _, seed: score_stages(folder_of(int(seed)), questions, mirror),
        summarise=summarise,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
