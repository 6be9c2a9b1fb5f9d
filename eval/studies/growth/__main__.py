"""Growing against one block trained on, and against training all layers at once, on real text.

    python -m eval.studies.growth --data DIR --out eval/results/growth-study

DIR holds text/en.txt and text/en.valid.txt. Every arm (``ARMS`` in runs.py says what each is; a new one is one entry
there) runs at three learning rates at seed 0, and at its best one at the other seeds, each run in a process of its own;
what has finished is kept in the work folder, and a run that was stopped goes on, so the same command resumes the study.
"""

from eval.studies.common.arms import rate_jobs, seed_jobs
from eval.studies.common.ground import prepare_ground
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.growth.report import as_markdown, summarise
from eval.studies.growth.runs import ARMS, SMOKE, Scale, run_arm


def main() -> None:
    parser = study_arguments("growth-study", __doc__, "text/en.txt and text/en.valid.txt")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="default: all")
    arguments = parser.parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work
    seeds = range(arguments.seeds)
    carry_out(
        arguments,
        prepare=lambda: prepare_ground(data, ["en"], scale, work),
        phases=[rate_jobs(arguments.arms, scale), seed_jobs(arguments.arms, scale, seeds)],
        run=lambda arm, rate, seed: run_arm(arm, float(rate), int(seed), scale, data, work),
        summarise=lambda results: summarise(results, scale, arguments.arms, seeds),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
