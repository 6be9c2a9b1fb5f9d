"""Merging experts that never saw each other's language, on real text: every rule, two to six experts, and the rivals.

    python -m eval.studies.composition --data DIR --out eval/results/composition-study

DIR holds text/{en,ru,zh}.txt and .valid.txt. The same command resumes a study that was stopped. For each seed:

    expert-LANGUAGE  a model that reads one language
    union            a model of the same size that reads all three: as many tokens, and as much compute, as the experts
    average          the weights of the seed's experts averaged (they start from the same weights)

Sets of experts that are merged: ``two`` (en, ru), ``three`` (en, ru, zh), ``six`` (those of this seed and of the next),
and ``twins`` (the two seeds' en, who know the same). Texts: each language, and ``mixed``: paragraphs of all three in
random order, a language rarely lasting for more than a few hundred characters.
"""

import argparse

from eval.studies.common.ground import build_ground, text_file
from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.composition.measure import measure
from eval.studies.composition.report import as_markdown, summarise
from eval.studies.composition.runs import LANGUAGES, SMOKE, Scale, train


def main() -> None:
    arguments = parse_arguments()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work
    kinds = [*(f"expert_{language}" for language in LANGUAGES), "union"]

    def run(kind: str, seed: str) -> dict[str, object]:
        if kind == "measure":
            return measure(int(seed), arguments.seeds, scale, data, work)
        return train(kind, int(seed), scale, data, work)

    carry_out(
        arguments,
        prepare=lambda: build_ground(
            [text_file(data, language) for language in LANGUAGES], scale, work, scale.vocabulary_characters
        ),
        phases=[[(kind, seed) for seed in range(arguments.seeds) for kind in part] for part in (kinds, ["measure"])],
        run=run,
        summarise=lambda results: summarise(results, scale, arguments.seeds),
        as_markdown=as_markdown,
    )


def parse_arguments() -> argparse.Namespace:
    parser = study_arguments("composition-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: the sets `six` and `twins` take experts of two seeds")
    return arguments


if __name__ == "__main__":
    main()
