"""Does depth help a trained reader? A span head fine-tuned on SQuAD on grown models and on their controls.

    python -m eval.studies.squad_heads --grown runs/emergence-study --data DIR --out eval/results/squad-heads

DIR holds squad/train-v1.1.subset.json and squad/dev-v1.1.json; ``--grown`` is the work folder of the emergence study,
whose arms have finished the same seeds. Every arm is fine-tuned whole, with a new head of
``AutoModelForQuestionAnswering``, at three learning rates at seed 0 and at its best one, by the F1 of articles kept
from training, at the other seeds: grown models after each stage, one block trained on, two and four blocks at once, and
the grown shape with random weights. Only questions whose paragraph fits the models' positions are asked. The same
command resumes a study that was stopped. Baselines without a model: the paragraph's first words, and a random span as
long as a random answer of the training.
"""

from pathlib import Path
from typing import Any

from eval.studies.common.arms import arm_phases
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.emergence import runs as emergence
from eval.studies.squad_heads.report import as_markdown, summarise
from eval.studies.squad_heads.runs import ARMS, GROWN, SMOKE, Scale, baselines, fine_tune, start_of


def main() -> None:
    parser = study_arguments("squad-heads", __doc__, "squad/train-v1.1.subset.json and squad/dev-v1.1.json")
    emergence.add_grown_argument(parser)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="default: all of them")
    arguments = parser.parse_args()
    data, arms, seeds = arguments.data, arguments.arms, range(arguments.seeds)
    scale, grown_at = (SMOKE, emergence.SMOKE) if arguments.smoke else (Scale(), emergence.Scale())

    def folder_of(arm: str, seed: int) -> Path:
        return start_of(arm, seed, arguments.grown, grown_at)

    def run(arm: str, rate: str, seed: str) -> dict[str, Any]:
        return fine_tune(folder_of(arm, int(seed)), data, scale, arm, float(rate), int(seed))

    carry_out(
        arguments,
        prepare=lambda: [folder_of(arm, seed) for arm in arms for seed in seeds],
        phases=arm_phases(arms, scale, seeds),
        run=run,
        summarise=lambda results: summarise(results, scale, arms, seeds, baselines(folder_of(GROWN, 0), data, scale)),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
