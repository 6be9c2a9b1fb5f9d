"""The report of the substrate study for people: what it shows, what it does not, the tables, the protocol."""

from typing import Any

import numpy as np

from eval.studies.common.tables import intervals_line, signed
from eval.studies.substrate.comparison import ALPHA, BASELINES
from frozen_glyph.checkpoint.card import markdown_table


def as_markdown(report: dict[str, Any]) -> str:
    """The report for people: what it shows, what it does not, the tables, the protocol."""
    settings, languages = report["settings"], list(report["held_out"])
    budget = f"{settings['tokens'] / 1e6:.2f} million tokens"
    means = [
        {
            "embedding": name,
            **{
                language: f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
                for language, values in entry["by_seed"].items()
            },
            "effective dimensions": f"{entry['effective_dimensions']:.0f}",
            "trained parameters": f"{entry['trainable_parameters']:,}",
            "processor seconds a run": f"{np.mean(entry['cpu_seconds']):.0f}",
        }
        for name, entry in report["kinds"].items()
    ]
    chance = [
        {"guess": guess, **{language: f"{report['chance'][language][guess]:.3f}" for language in languages}}
        for guess in report["chance"][languages[0]]
    ]
    differences = [
        {
            "first minus second": f"{row['kind']} - {row['baseline']}",
            "text": row["language"],
            "difference, 95% intervals": signed(row, digits=4, seeds=True),
            "p (Holm)": "too few units" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
            "verdict": row["verdict"],
        }
        for row in report["comparisons"]
    ]
    curves = [
        {"text": language, "embedding": name}
        | {f"step {point['step']:.0f}": f"{point[language]:.3f}" for point in entry["curve"]}
        for language in languages
        for name, entry in report["kinds"].items()
    ]
    sections = [
        "# Frozen or trained embedding, drawing or code? A small controlled comparison",
        f"Held-out loss of a model {settings['width']} wide and {settings['layers']} blocks deep after the same "
        f"{budget} of English, Russian and Chinese text. The token embedding is all that differs.",
        "## What it shows",
        overview(report),
        shown(report),
        "## What it does not show",
        not_shown(report, budget),
        "## Loss",
        "Nats per character; mean over seeds (smallest to largest). Effective dimensions: in how many directions the "
        "fresh token vectors spread, (sum of variances)^2 / sum of squared variances.",
        markdown_table(means),
        "For scale, guessing without a model: all tokens equally likely, or as often as in the training text.",
        markdown_table(chance),
        "## Differences",
        "Nats per character; negative means that the kind named first is better.",
        markdown_table(differences) if differences else "",
        "## On the way",
        f"Nats per character on the first {settings['curve_share']:.1%} of each held-out text, mean over seeds.",
        markdown_table(curves),
        *rate_check(report),
        "## Protocol",
        protocol(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def overview(report: dict[str, Any]) -> str:
    """Where the mean loss is lowest and highest, and whether it follows the spread of the frozen vectors."""
    kinds = report["kinds"]
    frozen = {name: entry for name, entry in kinds.items() if "trained" not in name and name != "trainable"}
    by_spread = sorted(frozen, key=lambda name: -frozen[name]["effective_dimensions"])
    ends: dict[tuple[str, str], list[str]] = {}
    follows = []
    for language in report["held_out"]:
        loss = {name: entry["nats_per_character"][language] for name, entry in kinds.items()}
        order = sorted(loss, key=lambda name: loss[name])
        ends.setdefault((order[0], order[-1]), []).append(language)
        if [name for name in order if name in frozen] == by_spread:
            follows.append(language)
    parts = [
        f"On {', '.join(languages)} the mean loss is lowest with `{lowest}` and highest with `{highest}`."
        for (lowest, highest), languages in ends.items()
    ]
    if len(frozen) > 2 and follows:
        spread = ", ".join(f"`{name}` {frozen[name]['effective_dimensions']:.0f}" for name in by_spread)
        parts.append(
            f"Among the frozen embeddings it rises as their effective dimensions fall ({spread}) on "
            f"{', '.join(follows)}: an order of {len(frozen)} points, which is no proof of a cause."
        )
    return " ".join(parts)


def shown(report: dict[str, Any]) -> str:
    """One line per pair: where the loss is lower, where higher, where the runs do not tell; then the blind spots."""
    pairs: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in report["comparisons"]:
        verdicts = pairs.setdefault((row["kind"], row["baseline"]), {})
        verdicts.setdefault(row["verdict"], []).append(f"{row['language']} ({row['difference']:+.3f})")
    lines = []
    for (kind, base), verdicts in pairs.items():
        words = [
            f"undecided on {', '.join(cells)}"
            if verdict == "undecided"
            else f"**{verdict}** loss on {', '.join(cells)}"
            for verdict, cells in verdicts.items()
        ]
        lines.append(f"* `{kind}` against `{base}`: {'; '.join(words)}.")
    if "published" in report["kinds"]:
        collisions = report["kinds"]["published"]["substrate"]["collisions"]
        blank = next((group for group in collisions["first_groups"] if " " in {text for _, text in group}), [])
        names = ", ".join(f"`{text!r}`" for _, text in blank[:6])
        lines.append(
            f"* `published` gives {collisions['remaining']} tokens the vector of another one, so the model cannot tell "
            f"them apart when it reads them; {names} share one vector."
        )
    return "\n".join(lines)


def not_shown(report: dict[str, Any], budget: str) -> str:
    """The limits of the study, as a list."""
    settings = report["settings"]
    trainable = report["kinds"].get("trainable")
    limits = [
        f"**One tiny size, one short budget.** {budget} are no more than one reading of the training text, and the "
        "models are far from converged: much of a difference may be speed of learning, not what is learnt in the end.",
        f"**A compact vocabulary** of {settings['vocab_size']:,} ids, most of them met often. The published "
        "vocabularies are 16 times larger; rare tokens, where a drawing could help, hardly occur here.",
        f"**Narrow vectors.** Drawn and random substrates have 1,024 bits, of which {settings['width']} principal "
        "components remain here; the published models are as wide as their substrate.",
        f"**Few seeds.** {len(settings['seeds'])} say little about other seeds, so a verdict needs a Holm-corrected p "
        f"over the text below {ALPHA} and an interval between seeds on the same side.",
        "**Loss is not ability.** Nothing here measures what the models can do.",
    ]
    if trainable:
        limits.insert(
            3,
            "**Unequal capacity.** `trainable` trains its embedding on top of what the others train, and its vectors "
            f"start {trainable['embedding_norm'][0]:.2f} long, as transformers initialises them, where frozen ones "
            "have length 1.",
        )
    if "random-trained" not in report["kinds"]:
        limits.insert(
            4,
            "**Freezing alone is not isolated.** No kind trains an embedding that starts with the vectors of `random`, "
            "so length, start and freezing differ together between `random` and `trainable`.",
        )
    checked = {row["kind"] for row in report["rates"]}
    unchecked = ", ".join(f"`{kind}`" for kind in report["kinds"] if kind not in checked)
    if unchecked:
        limits.append(f"**The learning rate.** {unchecked} ran at one rate only; another could change their order.")
    return "\n".join(f"* {limit}" for limit in limits)


def rate_check(report: dict[str, Any]) -> list[str]:
    """Loss of the kinds that also tried other learning rates, and their differences to the first baseline."""
    rows, settings = report["rates"], report["settings"]
    if not rows:
        return []
    languages = list(report["held_out"])
    table = [
        {"embedding": row["kind"], "learning rate": f"{row['learning_rate']:g}"}
        | {language: f"{row[language]:.3f}" for language in languages}
        for row in rows
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    best = {(kind, name): min(row[name] for row in rows if row["kind"] == kind) for kind in kinds for name in languages}
    parts = [
        "## Does it hinge on the learning rate?",
        f"Seed {settings['seeds'][0]} only; the study's rate is {settings['learning_rate']:g}. Differences above that "
        "are no larger than what a kind gains or loses here are not to be relied on.",
        markdown_table(table),
    ]
    base = next((name for name in BASELINES if name in kinds), None)
    if base and len(kinds) > 1:
        cells = [
            f"`{kind}` minus `{base}`: "
            + ", ".join(f"{name} {best[kind, name] - best[base, name]:+.3f}" for name in languages)
            for kind in kinds
            if kind != base
        ]
        parts.append(f"Each at the best of these rates for the text, {'; '.join(cells)}.")
    return parts


def protocol(report: dict[str, Any]) -> str:
    """How the numbers came about, in one paragraph."""
    settings, machine = report["settings"], report["machine"]
    blocks = ", ".join(f"{text['documents']} {language}" for language, text in report["held_out"].items())
    command = f"python -m eval.studies.substrate --data DIR --out OUT --kinds {' '.join(report['kinds'])}"
    if rates := sorted({row["learning_rate"] for row in report["rates"]} - {settings["learning_rate"]}):
        checked = dict.fromkeys(row["kind"] for row in report["rates"])
        command += f" --check-rates {' '.join(f'{rate:g}' for rate in rates)} --check-kinds {' '.join(checked)}"
    seconds = [value for kind in report["kinds"].values() for value in kind["seconds"]]
    return (
        f"`{command}`; seeds {', '.join(map(str, settings['seeds']))}. "
        f"{settings['megabytes']:g} MB of training text, equal shares of the languages by bytes; one tokenizer. "
        f"{settings['steps']} steps of {settings['batch_size']} windows of {settings['context_length']} tokens; AdamW "
        f"(0.9, 0.95), rate {settings['learning_rate']:g}, {settings['warmup_steps']} warm-up steps, cosine to "
        f"{settings['final_learning_rate_ratio']:.0%}, weight decay {settings['weight_decay']}, gradients clipped at "
        f"{settings['max_grad_norm']:g}, {report['precision']}. At one seed all kinds start with the same blocks and "
        "head and read the same batches in the same order (checked by hash); `random` draws a new code at every seed. "
        f"Scored with `frozen_glyph.text.loss` in {blocks} documents. {intervals_line(report)} "
        "p-values are over the text, with Holm's correction over all rows. One thread a "
        f"run, {min(seconds)} to {max(seconds)} seconds each beside other work on {machine['cores']} cores "
        f"({machine['platform']}). "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + "."
    )
