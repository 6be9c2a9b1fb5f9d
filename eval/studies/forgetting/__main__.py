"""Is what was learnt kept when a model goes on to learn something else? Growing, fine-tuning, replay and merging.

    python -m eval.studies.forgetting --data DIR --out eval/results/forgetting-study

DIR holds text/{en,ru}.txt and .valid.txt. The same command resumes a study that was stopped. For each seed:

    english         blocks trained on English: what there is to forget
    russian         the same on Russian alone
    grown           on `english`, frozen, as many new blocks and the head read Russian: as much trains at a time
    tuned           `english` goes on with Russian, all its blocks and the head training
    grown-replay    as `grown` and `tuned`, half of the tokens English
    tuned-replay
    english+russian both merged, under each rule: nothing is trained
    english+grown   the grown model merged with its own first stage: their common blocks are stored once

Every training reads the same number of tokens in the same number of steps.
"""

from eval.studies.common.ground import prepare_ground
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.forgetting.report import as_markdown, summarise
from eval.studies.forgetting.runs import FIRST, LANGUAGES, NEXT, SMOKE, Scale, measure, train


def main() -> None:
    arguments = study_arguments("forgetting-study", __doc__, "text/{en,ru}.txt and .valid.txt").parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work

    def run(kind: str, seed: str) -> dict[str, object]:
        common = int(seed), scale, work
        return measure(*common) if kind == "measure" else train(kind, *common)

    carry_out(
        arguments,
        prepare=lambda: prepare_ground(data, LANGUAGES, scale, work, scale.vocabulary_characters),
        phases=[
            [(kind, seed) for seed in range(arguments.seeds) for kind in kinds] for kinds in (FIRST, NEXT, ("measure",))
        ],
        run=run,
        summarise=lambda results: summarise(results, scale),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
