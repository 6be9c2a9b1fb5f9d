"""The report of the unseen study: losses of unseen texts by arm and steps, differences, what follows unread tokens."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from eval.studies.common.losses import loss_of
from eval.studies.common.tables import circumstances_line, interval, intervals_line, loss_cell, signed
from eval.studies.substrate.comparison import Arms, check_equal_starts, compare
from eval.studies.substrate.rarity import curve_of
from eval.studies.substrate.report import MEANING, shown
from eval.studies.unseen.probes import Scale
from eval.studies.unseen.runs import place
from frozen_glyph.checkpoint.card import markdown_table
from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.statistics import MIN_RUNS

PICTURES = "grid-whitened"
PAIRS = tuple((PICTURES, rival) for rival in ("random-long", "trainable", "random-trained"))


def summarise(arms: Arms, rates: dict[str, float], scale: Scale, folder: Path, given: bool) -> dict[str, Any]:
    """Everything measured, as plain JSON data; ``given`` says that the rates are those of another study."""
    check_equal_starts({(kind, rates[kind], seed): run for kind, by in arms.items() for seed, run in by.items()})
    runs = [run for by_seed in arms.values() for run in by_seed.values()]
    identity, vocabulary = read_json(folder / "study.json"), read_json(folder / "tokenizer.json")["model"]["vocab"]
    names = list(identity["unseen"])
    unread = [row for kind, base in PAIRS for row in curve_of(arms, kind, base) if row["read_at_most"] == 0]
    return {
        "settings": scale.settings() | {"vocab_size": len(vocabulary), "rates_given": given},
        "texts": identity["texts"],
        "unseen": {
            name: {
                "sha256": identity["unseen"][name],
                **facts_of(runs[0]["texts"][place(name, 0)], len(vocabulary)),
                "never_read": float(np.mean([run["unseen"][name]["never_read"] for run in runs])),
            }
            for name in names
        },
        "kinds": {
            kind: {
                "learning_rate": rates[kind],
                "seeds": list(by_seed),
                "losses": {
                    text: loss_of([run["texts"][text]["nats"] for run in by_seed.values()], first)
                    for text, first in next(iter(by_seed.values()))["texts"].items()
                },
                "adapted_rates": {name: [run["unseen"][name]["rate"] for run in by_seed.values()] for name in names},
            }
            for kind, by_seed in arms.items()
            if by_seed
        },
        "comparisons": compare(arms, PAIRS),
        "behind_unread": [row for row in unread if "@" in row["language"]],
        "cpu_seconds": [round(min(run["cpu_seconds"] for run in runs)), round(max(run["cpu_seconds"] for run in runs))],
    }


def facts_of(text: dict[str, Any], ids: int) -> dict[str, Any]:
    """Of a text as a run scored it, ``uniform`` being its loss where all ids are equally likely."""
    characters = int(sum(text["characters"]))
    return {
        "documents": len(set(text["documents"])),
        "characters": characters,
        "tokens": text["tokens"],
        "uniform": text["tokens"] * math.log(ids) / characters,
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    settings, arms = report["settings"], report["kinds"]
    languages = ", ".join(settings["languages"])
    trained = [
        {"arm": kind, "vectors": MEANING[kind], "rate": f"{entry['learning_rate']:g}"}
        | {name: loss_cell(entry["losses"][name]) for name in settings["languages"]}
        for kind, entry in arms.items()
    ]
    losses = [
        {"text": name, "arm": kind}
        | {f"{steps} steps": loss_cell(entry["losses"][place(name, steps)]) for steps in settings["adapted"]}
        | {"rates, by seed": ", ".join(f"{rate:g}" for rate in entry["adapted_rates"][name])}
        for name in report["unseen"]
        for kind, entry in arms.items()
    ]
    texts = [
        {
            "text": name,
            "documents": text["documents"],
            "characters": text["characters"],
            "tokens": text["tokens"],
            "tokens never read": f"{text['never_read']:.1%}",
            "all ids equally likely": f"{text['uniform']:.3f}",
        }
        for name, text in report["unseen"].items()
    ]
    differences = [
        {
            "first minus second": f"{row['kind']} - {row['baseline']}",
            "text": row["language"],
            "difference, 95% intervals": signed(row, seeds=True),
            "p (Holm)": "too few units" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
            "verdict": row["verdict"],
        }
        for row in report["comparisons"]
    ]
    unread = [
        {
            "first minus second": f"{row['kind']} - {row['baseline']}",
            "text": row["language"],
            "tokens, all seeds": row["tokens"],
            "loss of the first": f"{row['loss']:.3f}",
            "difference, nats a token": f"{row['difference']:+.3f} ({interval(row, sign='+')})",
            "each seed": ", ".join(f"{value:+.3f}" for value in row["by_seed"]),
        }
        for row in report["behind_unread"]
    ]
    sections = [
        "# Characters that were never read: pictures, codes and trained tables",
        f"Models {settings['width']} wide and {settings['layers']} blocks deep after {settings['tokens'] / 1e6:.2f} "
        f"million tokens of text in {languages}, on texts of other scripts. `NAME@K`: the unseen text NAME after K "
        f"steps of {settings['adapted_windows'] * settings['context_length']} tokens on other documents of it.",
        "## What it shows",
        shown(report) or "* Nothing yet: no pair of arms has run.",
        "## What it does not show",
        limits(report),
        "## Unseen texts",
        markdown_table(texts),
        f"Nats per character, mean over seeds. {intervals_line(report)}",
        markdown_table(losses),
        "## Languages trained on",
        markdown_table(trained),
        "## Differences",
        "Nats per character at the seeds that both arms ran; negative means that the arm named first is better.",
        markdown_table(differences) if differences else "",
        *(
            [
                "## Behind tokens never read",
                "Of the unseen texts only tokens that were read in training and stand behind one that was not: the "
                "head knows what is asked, and the vector of what it stands behind is all that is new (at 0 steps). "
                "Intervals are over documents.",
                markdown_table(unread),
            ]
            if unread
            else []
        ),
        "## Protocol",
        protocol(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def limits(report: dict[str, Any]) -> str:
    """As a list."""
    seeds = min(len(entry["seeds"]) for entry in report["kinds"].values())
    few = f"**Few seeds**: {seeds} of the {MIN_RUNS} that a verdict needs."
    said = [
        "**Much of the loss at 0 steps is the head's.** It has a row for each token, and those never read have only "
        "been told to be unlikely; what an embedding does shows behind such tokens, and as steps go on.",
        "**One tiny size**, one short training, one source for each unseen text: none of its domain was trained on.",
        "**Pictures see the whole vocabulary.** Whitening counts each id once, so the shape of unseen characters, "
        "which a font tells, is in its statistics; no text of theirs is.",
    ]
    return "\n".join(f"* {limit}" for limit in said + ([few] if seeds < MIN_RUNS else []))


def protocol(report: dict[str, Any]) -> str:
    """How the numbers came about, in one paragraph."""
    settings = report["settings"]
    rates = "those of a substrate study on its own texts" if settings["rates_given"] else "found as there"
    return (
        f"`python -m eval.studies.unseen --data DIR --languages {' '.join(settings['languages'])} --kinds "
        f"{' '.join(report['kinds'])} --unseen {' '.join(f'{name}=FILE' for name in report['unseen'])}`. "
        f"Training as in `python -m eval.studies.substrate`, {settings['steps']} steps; rates are {rates}. "
        f"{settings['vocab_size']:,} ids: a vocabulary learnt from the texts to train on, and behind it the characters "
        "of the unseen texts that it lacks, so that none is spelt in bytes. On an unseen text a copy of the model "
        "trains with AdamW at a constant rate, as much of it as trained before; of "
        f"{', '.join(f'{rate:g}' for rate in settings['adapted_rates'])} each model takes the rate with the lowest "
        "mean loss of the steps' batches, each measured before it is trained on. Batches and their order are equal for "
        "all arms at one seed. The scored documents are others than those trained on. Holm's correction over all rows "
        f"of differences. {report['cpu_seconds'][0]} to {report['cpu_seconds'][1]} processor seconds a run. "
        + circumstances_line(report)
    )
