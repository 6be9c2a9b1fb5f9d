"""Merging experts that never saw each other's language, on real text: every rule, two to six experts, and the rivals.

    python -m eval.studies.composition --data DIR --out eval/results/composition-study

DIR holds text/{en,ru,zh}.txt and .valid.txt. The same command resumes a study that was stopped. For each seed:

    expert_LANGUAGE  a model that reads one language
    union            a model of the same size that reads all three: as many tokens, and as much compute, as the experts
    average          the weights of the seed's experts averaged (they start from the same weights)

Each training runs at three learning rates at seed 0, at one more where the best is at an end, at its best elsewhere.
Sets of experts that are merged: ``two`` (en, ru), ``three`` (en, ru, zh), ``six`` (those and a second family,
which no other seed has), and ``twins`` (both families' en, who know the same). Texts: each language, and ``mixed``:
paragraphs of all three in random order, a language rarely lasting for more than a few hundred characters. Beside the
loss stands what a token costs, read one by one by a merged checkpoint, and how often a rule passes from expert to
expert; OUT.png draws loss against cost.
"""

import json

from eval.studies.common.arms import arm_phases, rates_in
from eval.studies.common.ground import prepare_ground
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.composition.measure import measure
from eval.studies.composition.picture import draw
from eval.studies.composition.report import as_markdown, summarise
from eval.studies.composition.runs import EXPERTS, LANGUAGES, SMOKE, UNION, Scale, train


def main() -> None:
    arguments = study_arguments("composition-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt").parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work
    picture = arguments.out.with_suffix(".png")
    kinds, seeds = (*EXPERTS, UNION), range(arguments.seeds)

    def run(kind: str, *parts: str) -> dict[str, object]:
        if kind == "measure":
            rates = rates_in(work, kinds, scale)
            return dict(measure(int(parts[0]), arguments.seeds, rates, scale, data, work))
        rate, seed = parts
        return train(kind, float(rate), int(seed), scale, data, work)

    carry_out(
        arguments,
        prepare=lambda: prepare_ground(data, LANGUAGES, scale, work, scale.vocabulary_characters),
        phases=[
            *arm_phases([UNION], scale, seeds),
            *arm_phases(EXPERTS, scale, range(2 * arguments.seeds)),  # the second family too
            [("measure", seed) for seed in seeds],
        ],
        run=run,
        summarise=lambda results: summarise(results, scale, seeds) | {"picture": picture.name},
        as_markdown=as_markdown,
    )
    if not arguments.run:
        draw(json.loads(arguments.out.with_suffix(".json").read_text("utf-8")), picture)


if __name__ == "__main__":
    main()
