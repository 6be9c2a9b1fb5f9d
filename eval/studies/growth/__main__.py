"""Ways of growing against one block trained on, against training all blocks at once, and against each other.

    python -m eval.studies.growth --data DIR --out eval/results/growth-study

DIR holds text/en.txt and text/en.valid.txt. Every arm (``ARMS`` in runs.py says what each is; a new one is one entry
there) runs at three learning rates at seed 0, at one beyond where the best lies at an end, and at its best one at the
other seeds, each run in a process of its own, and its memory is measured in one more; what has finished is kept in the
work folder, and a run that was stopped goes on, so the same command resumes the study. ``--size small`` is an hour or
two of one core, ``full`` nights; ``saturated`` is narrow, and its first block has nearly stopped learning when the
second comes: what depth gives is measured there (`one-block-double` says what one block had left to learn), in a few
core-minutes a run.
"""

import json
from typing import Any

from eval.studies.common.arms import arm_phases
from eval.studies.common.ground import prepare_ground
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.growth.picture import draw
from eval.studies.growth.report import as_markdown, summarise
from eval.studies.growth.runs import ARMS, CORE, MEMORY, SIZES, measure_memory, run_arm


def main() -> None:
    parser = study_arguments("growth-study", __doc__, "text/en.txt and text/en.valid.txt")
    parser.add_argument(
        "--size", choices=list(SIZES), default="small", help="of models and texts (default: %(default)s)"
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=CORE, help="default: those that decide")
    arguments = parser.parse_args()
    scale = SIZES["tiny" if arguments.smoke else arguments.size]
    picture = arguments.out.with_suffix(".png")
    data, work, arms, seeds = arguments.data, arguments.work, arguments.arms, range(arguments.seeds)

    def run(arm: str, rate: str, seed: str) -> dict[str, Any]:
        if rate == MEMORY:
            return measure_memory(arm, scale, work)
        return run_arm(arm, float(rate), int(seed), scale, data, work)

    carry_out(
        arguments,
        prepare=lambda: prepare_ground(data, ["en"], scale, work),
        phases=[
            *arm_phases(arms, scale, seeds),
            [(arm, MEMORY, 0) for arm in arms],
        ],
        run=run,
        summarise=lambda results: summarise(results, scale, arms, seeds) | {"picture": picture.name},
        as_markdown=as_markdown,
    )
    if not arguments.run:
        draw(json.loads(arguments.out.with_suffix(".json").read_text("utf-8")), picture)


if __name__ == "__main__":
    main()
