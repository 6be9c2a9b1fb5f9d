"""The report of the composition study: losses of models and merged sets by text, and paired differences."""

from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances, circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.composition.rules import MODEL_RULES

SETS = {"two": ("en", "ru"), "three": ("en", "ru", "zh"), "six": ("en", "ru", "zh"), "twins": ("en",)}
RIVALS = ("union", "average")


def summarise(results: dict[Any, dict[str, Any]], scale: Any, seeds: int) -> dict[str, Any]:
    """``losses``: for each text and each model (``single/NAME`` or ``SET/RULE``) the loss, its interval, the values by
    seed, and for a set the paired differences from each of its experts and from its rivals."""
    measured = {seed: results["measure", seed] for seed in range(seeds) if ("measure", seed) in results}
    if not measured:
        raise SystemExit("no seed has been measured yet; run the study first")
    first = next(iter(measured.values()))
    losses: dict[str, dict[str, Any]] = {}
    for text, entry in first.items():
        nats = {key: np.array([run[text]["nats"][key] for run in measured.values()]) for key in entry["nats"]}

        def minus(key: str, rivals: tuple[str, ...], nats: Any = nats, entry: Any = entry) -> dict[str, dict[str, Any]]:
            """``key`` minus each of the single models ``rivals``; below zero: ``key`` is better."""
            return {name: difference_of(nats[f"single/{name}"], nats[key], entry) for name in rivals}

        losses[text] = {}
        for key, values in nats.items():
            losses[text][key] = loss_of(values, entry)
            if (group := key.partition("/")[0]) in SETS:
                losses[text][key] |= {"minus_expert": minus(key, SETS[group]), "minus_rival": minus(key, RIVALS)}
    costs = {
        kind: {name: float(np.mean([results[kind, seed][name] for seed in measured])) for name in cost}
        for (kind, _), cost in results.items()
        if kind != "measure"
    }
    return {
        "scale": asdict(scale),
        "seeds": sorted(measured),
        "documents": {text: len(set(entry["documents"])) for text, entry in first.items()},
        "characters": {text: sum(entry["characters"]) for text, entry in first.items()},
        "costs": costs,
        "losses": losses,
        **circumstances(),
    }


def best_expert(losses: dict[str, Any], group: str) -> str:
    """The expert of a set with the lowest loss on a text."""
    return min(SETS[group], key=lambda name: losses[f"single/{name}"]["loss"])


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    scale, losses, texts = report["scale"], report["losses"], list(report["losses"])

    def cell(text: str, key: str) -> str:
        """Loss, and the difference from the best expert of the set with its interval."""
        entry = losses[text][key]
        if "minus_expert" not in entry:
            return loss_cell(entry)
        found = entry["minus_expert"][best_expert(losses[text], key.partition("/")[0])]
        return f"{entry['loss']:.3f}; {signed(found)}"

    def section(title: str, keys: list[str]) -> list[str]:
        rows = [[key.partition("/")[2], *(cell(text, key) for text in texts)] for key in keys]
        return [f"## {title}", "", *table(["", *texts], rows)]

    def keys_of(group: str) -> list[str]:
        return [key for key in losses[texts[0]] if key.startswith(f"{group}/")]

    titles = {
        "two": "Two experts (en, ru)",
        "three": "Three experts (en, ru, zh)",
        "six": "Six experts (two of each language)",
        "twins": "Two experts of the same language (en, en)",
    }
    rival_rows = [
        [rule, text, *map(signed, losses[text][f"three/{rule}"]["minus_rival"].values())]
        for rule in MODEL_RULES
        for text in texts
    ]
    cost = report["costs"]
    lines = [
        "# Merging experts that each know one language",
        "",
        f"{scale['hidden_size']} wide, {scale['layers']} blocks trained together, {scale['vocab_size']} tokens of one "
        f"glyph substrate, context {scale['context_length']}; an expert reads {scale['tokens']:,} tokens of one "
        f"language, `union` {3 * scale['tokens']:,} of all three. Held out: "
        + ", ".join(f"{text} {count:,} characters" for text, count in report["characters"].items())
        + f". Nats per character, mean of {len(report['seeds'])} seeds; behind it the difference from the set's best "
        f"expert on that text (below zero: the merged model is better than each of its experts). "
        f"{intervals_line(report)} `average` is the model of averaged weights. Rules below the line of the first "
        f"{len(MODEL_RULES)} are no rules of a checkpoint; they were tried to find one. Seeds one by one, and the "
        "differences from every expert: the JSON file.",
        "",
        *section("Single models", keys_of("single")),
        *(line for group, title in titles.items() for line in section(title, keys_of(group))),
        "## Three experts against one model of the union and against averaged weights",
        "",
        *table(["rule", "text", "minus union", "minus average"], rival_rows),
        "Cost of a run (mean): "
        + "; ".join(
            f"{kind} {entry['flops'] / 1e12:.1f} TFLOP, {entry['seconds']:.0f} s" for kind, entry in cost.items()
        )
        + f". {circumstances_line(report)}",
        "",
    ]
    return "\n".join(lines)
