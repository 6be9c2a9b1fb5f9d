"""The report of the composition study: losses of models and merged sets by text, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.arms import rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.composition.measure import RIVALS, SETS
from eval.studies.composition.rules import MODEL_RULES, WINDOWS
from eval.studies.composition.runs import EXPERTS, UNION

TITLES = {
    "two": "Two experts (en, ru)",
    "three": "Three experts (en, ru, zh)",
    "six": "Six experts (two of each language)",
    "twins": "Two experts of the same language (en, en')",
}


def summarise(results: Results, scale: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """``losses``: for each text and each model (``single/NAME`` or ``SET/RULE``) the loss, and for a set the paired
    differences from its best member and from its rivals. Which member is best, and which window serves `evidence`, is
    read from the development text."""
    measured = [results["measure", seed] for seed in seeds if ("measure", seed) in results]
    if len(measured) < len(seeds):
        raise SystemExit(f"{len(measured)} of {len(seeds)} seeds have been measured; run the study first")
    development, reported = ([run[part] for run in measured] for part in ("development", "reported"))
    window = best_window(development)
    losses: dict[str, dict[str, Any]] = {}
    for text, entry in reported[0].items():
        nats = {key: np.array([run[text]["nats"][key] for run in reported]) for key in entry["nats"]}
        losses[text] = {}
        for key, values in nats.items():
            group, _, rule = key.partition("/")
            if rule in WINDOWS.values() and rule != WINDOWS[window]:
                continue
            losses[text][key if rule != WINDOWS[window] else f"{group}/evidence"] = row = loss_of(values, entry)
            if group in SETS:
                names = [best_member(group, run[text]) for run in development]
                best = np.array([nats[f"single/{name}"][place] for place, name in enumerate(names)])
                row["best_member"] = names
                row["minus_best"] = difference_of(best, values, entry)
                row["minus_rival"] = {name: difference_of(nats[f"single/{name}"], values, entry) for name in RIVALS}
    kinds = (*EXPERTS, UNION)
    trained = {kind: [result for (name, *_), result in results.items() if name == kind] for kind in kinds}
    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "documents": {text: len(set(entry["documents"])) for text, entry in reported[0].items()},
        "characters": {text: sum(entry["characters"]) for text, entry in reported[0].items()},
        "rates": rates_line(results, kinds, scale, seeds),
        "window": window,
        "costs": {
            kind: {name: float(np.mean([run[name] for run in runs])) for name in ("flops", "seconds", "tokens")}
            for kind, runs in trained.items()
            if runs
        },
        "losses": losses,
    }


def per_character(text: Mapping[str, Any], key: str) -> float:
    return float(sum(text["nats"][key]) / sum(text["characters"]))


def best_member(group: str, text: Mapping[str, Any]) -> str:
    """The member of a set with the lowest loss on a text."""
    return min(SETS[group], key=lambda name: per_character(text, f"single/{name}"))


def best_window(development: Sequence[Mapping[str, Any]]) -> int:
    """The window with which `evidence` over three experts loses least, over all seeds and texts alike."""

    def loss(window: int) -> float:
        key = f"three/{WINDOWS[window]}"
        return float(np.mean([per_character(text, key) for run in development for text in run.values()]))

    return min(WINDOWS, key=loss)


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    scale, losses, texts = report["scale"], report["losses"], list(report["losses"])

    def keys_of(group: str) -> list[str]:
        keys = [key for key in losses[texts[0]] if key.startswith(f"{group}/")]
        return sorted(keys, key=lambda key: key.partition("/")[2] not in MODEL_RULES)

    def cell(text: str, key: str) -> str:
        entry = losses[text][key]
        return signed(entry["minus_best"]) if "minus_best" in entry else loss_cell(entry)

    def section(title: str, keys: list[str]) -> list[str]:
        rows = [[key.partition("/")[2], *(cell(text, key) for text in texts)] for key in keys]
        return [f"## {title}", "", *table(["", *texts], rows)]

    rival_rows = [
        [rule, text, *map(signed, losses[text][f"three/{rule}"]["minus_rival"].values())]
        for rule in MODEL_RULES
        for text in texts
    ]
    held_out = [
        f"{text} {report['documents'][text]} documents, {report['characters'][text]:,} characters" for text in texts
    ]
    lines = [
        "# Merging experts that each know one language",
        "",
        f"{scale['hidden_size']} wide, {scale['layers']} blocks trained together, {scale['vocab_size']} tokens of one "
        f"glyph substrate, context {scale['context_length']}; an expert reads {scale['tokens']:,} tokens of one "
        f"language, `union` {3 * scale['tokens']:,} of all three; `average` is the model of averaged weights. "
        f"{len(report['seeds'])} seeds; en', ru' and zh' are a second family of experts at each seed, which no other "
        f"seed has. {report['rates']} Reported: {'; '.join(held_out)}. {intervals_line(report)}",
        "",
        *section("Single models: nats per character", keys_of("single")),
        "In the tables of sets stands the difference from the set's best member on that text: the one with the lowest "
        "loss on the development text of that name. Below zero: the merged model is better than each of its experts. "
        f"`evidence` reads {report['window']} tokens back, the best of {', '.join(map(str, WINDOWS))} on the "
        f"development text. Rules below the first {len(MODEL_RULES)} are no rules of a checkpoint; they were tried to "
        "find one. Losses, and seeds one by one: the JSON file.",
        "",
        *(
            line
            for group, title in TITLES.items()
            for line in section(f"{title}: minus the best member", keys_of(group))
        ),
        "## Three experts against one model of the union and against averaged weights",
        "",
        *table(["rule", "text", "minus union", "minus average"], rival_rows),
        "Cost of a run (mean): "
        + "; ".join(
            f"{kind} {entry['flops'] / 1e12:.1f} TFLOP, {entry['seconds']:.0f} s"
            for kind, entry in report["costs"].items()
        )
        + f". {circumstances_line(report)}",
        "",
    ]
    return "\n".join(lines)
