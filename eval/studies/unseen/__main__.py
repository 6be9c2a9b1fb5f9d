"""What does a model make of characters that it never read? Pictures beside codes and trained tables, on new scripts.

    python -m eval.studies.unseen --data DIR --rates RUNS --unseen el=el.txt uk=uk.txt --out eval/results/unseen-study

Models are those of the substrate study, on the same texts (DIR and ``--languages`` as there), but every character of an
unseen text has an id of its own at the end of the vocabulary: no text to train on has led to it, and most were never
read. ``--rates`` is the folder in which a substrate study with these arms left its runs; without it every arm finds its
rate anew. So a language that is added with ``--languages`` is one that no one tuned on.

Each model then reads the unseen text: as it is, and after 1, 3, 10 and 30 steps of training on other documents of that
text, each with the best of three rates, by the loss of every step's batch before it is trained on.

An unseen text is UTF-8 with a blank line between documents, at least 12 of them and about 60,000 characters. The Debian
packages libreoffice-help-el, libreoffice-help-zh-tw (HTML) and manpages-uk (roff) hold such text once its markup is
taken off. Where a training text has some of its characters, these count as read.
"""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from eval.studies.common.arms import arm_phases, chosen_rates, rates_in
from eval.studies.common.jobs import Results, carry_out, study_arguments
from eval.studies.substrate.arms import ARMS
from eval.studies.substrate.comparison import runs_at
from eval.studies.substrate.data import LANGUAGES
from eval.studies.unseen.probes import SMOKE, Scale, prepare, study_folder
from eval.studies.unseen.report import as_markdown, summarise
from eval.studies.unseen.runs import run
from frozen_glyph.errors import FrozenGlyphError

KINDS = ("grid-whitened", "random-long", "trainable", "random-trained")


def named_file(text: str) -> tuple[str, Path]:
    """``NAME=FILE``."""
    name, _, path = text.partition("=")
    if not re.fullmatch(r"\w+", name) or not path:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=FILE, NAME of letters, digits and _")
    return name, Path(path)


def main() -> None:
    parser = study_arguments("unseen-study", __doc__, "text/{en,ru,zh}.txt and .valid.txt", seeds=5)
    parser.add_argument("--unseen", nargs="+", type=named_file, required=True, metavar="NAME=FILE", help="texts")
    parser.add_argument("--rates", type=Path, help="folder of a substrate study's runs, whose rates are taken")
    parser.add_argument("--kinds", nargs="+", choices=ARMS, default=list(KINDS), help="default: %(default)s")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), help="to train on (default: %(default)s)")
    arguments = parser.parse_args()
    scale = SMOKE if arguments.smoke else Scale()
    scale = dataclasses.replace(scale, languages=tuple(dict.fromkeys(arguments.languages)))
    unseen, kinds = dict(arguments.unseen), list(dict.fromkeys(arguments.kinds))
    if len(unseen) < len(arguments.unseen) or unseen.keys() & set(scale.languages):
        parser.error("--unseen: each NAME must stand for one text, and for no language that is trained on")
    rates = rates_in(arguments.rates, kinds, scale) if arguments.rates else {}
    if arguments.rates and (missing := [kind for kind in kinds if kind not in rates]):
        parser.error(f"--rates {str(arguments.rates)!r} has no arm {missing[0]!r} that has tried its rates")
    try:
        arguments.work = folder = study_folder(scale, arguments.data, unseen, arguments.work)
    except FrozenGlyphError as error:
        parser.error(str(error))

    def report(results: Results) -> dict[str, Any]:
        chosen = rates or chosen_rates(results, kinds, scale)
        return summarise(runs_at(chosen, results), chosen, scale, folder, bool(rates))

    seeds = range(arguments.seeds)
    carry_out(
        arguments,
        prepare=lambda: prepare(scale, arguments.data, unseen, folder),
        phases=[[(kind, rates[kind], seed) for seed in seeds for kind in kinds]]
        if rates
        else arm_phases(kinds, scale, seeds),
        run=lambda kind, rate, seed: run(kind, int(seed), float(rate), scale, folder, list(unseen)),
        summarise=report,
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
