"""Does answering from a text appear with depth? Both SQuAD protocols on every stage of the growth study's models.

    python -m eval.studies.squad --grown runs/growth-study --data DIR --out eval/results/squad-by-depth

DIR holds squad/dev-v1.1.json and squad/dev-v2.0.json; ``--grown`` the folder of a finished growth study. The same
command resumes what was stopped. Tasks: the published short-answer protocol (greedy, 256 questions) and SQuAD v1.1 as
completion (500 questions drawn at random). Slopes are of score over number of blocks, all stages, by least
squares, and are drawn by question.
"""

from pathlib import Path

from eval.studies.common.jobs import carry_out, job_name, study_arguments
from eval.studies.growth.report import BASELINE
from eval.studies.squad.report import as_markdown, summarise
from eval.studies.squad.runs import QUESTIONS, score_stages
from frozen_glyph.evaluation.tasks.mirror import write_mirror


def main() -> None:
    parser = study_arguments("squad-by-depth", __doc__, "squad/dev-v1.1.json and squad/dev-v2.0.json")
    parser.add_argument("--grown", type=Path, default=Path("runs/growth-study"), help="work folder of the growth study")
    arguments = parser.parse_args()
    mirror = (arguments.work / "mirror").resolve()
    questions = dict.fromkeys(QUESTIONS, 4) if arguments.smoke else QUESTIONS
    carry_out(
        arguments,
        prepare=lambda: write_mirror(arguments.data, mirror),
        phases=[[("squad", seed) for seed in range(arguments.seeds)]],
        run=lambda _, seed: score_stages(arguments.grown / job_name((BASELINE, seed)), questions, mirror),
        summarise=summarise,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
