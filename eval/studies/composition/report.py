"""The report of the composition study: losses of models and merged sets by text, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.arms import rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, finite, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.composition.measure import MODELS, RIVALS, SETS
from eval.studies.composition.rules import PLAIN, SPARSE, SPARSE_RULE, VARIANTS
from eval.studies.composition.runs import EXPERTS, UNION

ROWS = (*PLAIN, *VARIANTS, *SPARSE)  # of every table
COSTS_AS = {"prompt": "mean"}  # its weights stay when the prompt is read
TITLES = {
    "two": "Two experts (en, ru)",
    "three": "Three experts (en, ru, zh)",
    "six": "Six experts (two of each language)",
    "twins": "Two experts of the same language (en, en')",
}


def summarise(results: Results, scale: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """``losses``: for each text and each model (``single/NAME`` or ``SET/RULE``) the loss, and for a set the paired
    differences from its best member and from its rivals. Which member is best, and which variant serves a rule, is
    read from the development text. ``points``: what each costs and loses, as the picture shows it."""
    measured = [results["measure", seed] for seed in seeds if ("measure", seed) in results]
    if len(measured) < len(seeds):
        raise SystemExit(f"{len(measured)} of {len(seeds)} seeds have been measured; run the study first")
    development, reported = ([run[part] for run in measured] for part in ("development", "reported"))
    chosen = {rule: best_variant(rule, development) for rule in VARIANTS}
    named = {variant: rule for rule, variant in chosen.items()}
    left = {variant for names in VARIANTS.values() for variant in names if variant not in named}
    losses: dict[str, dict[str, Any]] = {}
    for text, entry in reported[0].items():
        nats = {key: np.array([run[text]["nats"][key] for run in reported]) for key in entry["nats"]}
        losses[text] = {}
        for key, values in nats.items():
            group, _, rule = key.partition("/")
            if group != "single" and rule in left:
                continue
            losses[text][f"{group}/{named.get(rule, rule)}"] = row = loss_of(values, entry)
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
        "chosen": {rule: VARIANTS[rule][variant] for rule, variant in chosen.items()},
        "costs": {
            kind: {name: float(np.mean([run[name] for run in runs])) for name in ("flops", "seconds", "tokens")}
            for kind, runs in trained.items()
            if runs
        },
        "points": points_of(measured, losses, named),
        "losses": losses,
    }


def points_of(
    measured: Sequence[Mapping[str, Any]], losses: Mapping[str, Any], named: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Of each rival and of each rule over each set: ``cost`` of a token over one expert's, processor's time; ``pure``
    and ``mixed`` loss, in nats per character, ``pure`` the mean over languages; ``switches`` a thousand tokens of the
    mixed text, None where a rule follows another's weights."""
    points = []
    for key in losses["mixed"]:
        group, _, rule = key.partition("/")
        if group == "twins" or (group == "single" and rule not in RIVALS):
            continue
        variant = next((name for name, own in named.items() if own == rule), rule)
        costs = [1.0] if group == "single" else [run["costs"][group][COSTS_AS.get(rule, rule)] for run in measured]
        texts = [run["reported"]["mixed"] for run in measured]
        switches = [1000 * text["switches"].get(f"{group}/{variant}", np.nan) / text["tokens"] for text in texts]
        point = {
            "set": group,
            "rule": rule,
            "cost": float(np.mean(costs)),
            "pure": float(np.mean([losses[text][key]["loss"] for text in losses if text != "mixed"])),
            "mixed": losses["mixed"][key]["loss"],
            "switches": float(np.mean(switches)),
        }
        points.append(finite(point))
    return points


def per_character(text: Mapping[str, Any], key: str) -> float:
    return float(sum(text["nats"][key]) / sum(text["characters"]))


def best_member(group: str, text: Mapping[str, Any]) -> str:
    """The member of a set with the lowest loss on a text."""
    return min(SETS[group], key=lambda name: per_character(text, f"single/{name}"))


def best_variant(rule: str, development: Sequence[Mapping[str, Any]]) -> str:
    """The one with which ``rule`` over three experts loses least, over all seeds and texts alike."""

    def loss(variant: str) -> float:
        return float(np.mean([per_character(text, f"three/{variant}") for run in development for text in run.values()]))

    return min(VARIANTS[rule], key=loss)


def choices(rule: str) -> str:
    return ", ".join(map(str, VARIANTS[rule].values()))


def on_front(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]], loss: str) -> bool:
    """Whether no other costs and loses less."""
    return not any(other["cost"] <= point["cost"] and other[loss] < point[loss] for other in points)


def point_row(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> list[str]:
    switches = "" if point["switches"] is None else f"{point['switches']:.1f}"
    front = ", ".join(loss for loss in ("pure", "mixed") if on_front(point, points, loss))
    numbers = [f"{point['cost']:.2f}", f"{point['pure']:.3f}", f"{point['mixed']:.3f}"]
    return [point["set"], point["rule"], *numbers, switches, front]


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    scale, losses, texts = report["scale"], report["losses"], list(report["losses"])

    def keys_of(group: str) -> list[str]:
        return [f"{group}/{rule}" for rule in ROWS if f"{group}/{rule}" in losses[texts[0]]]

    def cell(text: str, key: str) -> str:
        entry = losses[text][key]
        return signed(entry["minus_best"]) if "minus_best" in entry else loss_cell(entry)

    def section(title: str, keys: list[str]) -> list[str]:
        rows = [[key.partition("/")[2], *(cell(text, key) for text in texts)] for key in keys]
        return [f"## {title}", "", *table(["", *texts], rows)]

    rival_rows = [
        [rule, text, *map(signed, losses[text][f"three/{rule}"]["minus_rival"].values())]
        for rule in ROWS
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
        *section("Single models: nats per character", [f"single/{name}" for name in MODELS]),
        "In the tables of sets stands the difference from the set's best member on that text: the one with the lowest "
        "loss on the development text of that name. Below zero: the merged model is better than each of its experts. "
        "Chosen on the development text: "
        + "; ".join(f"{rule} {value} of {choices(rule)}" for rule, value in report["chosen"].items())
        + ". `prompt` weighs logits by the perplexity of the first tokens of a window, as PackLLM does, over this "
        f"temperature. `run`: at most so many experts run, of {SPARSE_RULE}. Losses, and seeds one by one: the JSON "
        "file.",
        "",
        *(
            line
            for group, title in TITLES.items()
            for line in section(f"{title}: minus the best member", keys_of(group))
        ),
        "## Three experts against one model of the union and against averaged weights",
        "",
        *table(["rule", "text", "minus union", "minus average"], rival_rows),
        "## What a token costs, and loses",
        "",
        f"![Loss against cost]({report['picture']})",
        "",
        "Processor's time of a token over one expert's, read one by one; nats per character on each language's text "
        "(mean) and on the mixed one; how often another expert leads, a thousand tokens of the mixed text, none where "
        "the rule is another's. A point is on the front if none is both cheaper and better.",
        "",
        *table(
            ["set", "rule", "cost", "pure", "mixed", "switches", "front (pure, mixed)"],
            [point_row(point, report["points"]) for point in report["points"]],
        ),
        "Cost of a run (mean): "
        + "; ".join(
            f"{kind} {entry['flops'] / 1e12:.1f} TFLOP, {entry['seconds']:.0f} s"
            for kind, entry in report["costs"].items()
        )
        + f". {circumstances_line(report)}",
        "",
    ]
    return "\n".join(lines)
