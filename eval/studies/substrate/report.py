"""The report of the substrate study for people: what it shows, what it does not, the tables, the protocol."""

from typing import Any

from eval.studies.common.tables import circumstances_line, interval, intervals_line, loss_cell, signed
from eval.studies.substrate.comparison import ALPHA
from frozen_glyph.checkpoint.card import markdown_table
from frozen_glyph.statistics import MIN_RUNS

MEANING = {
    "grid": "pictures as they are, length 1",
    "grid-partial": "pictures, components divided by the root of their deviation",
    "grid-whitened": "pictures, components divided by their deviation",
    "grid-by-text": "as grid-whitened, by the tokens of the training text",
    "grid-by-script": "as grid-whitened, each script by itself; a float table",
    "published": "pictures as published, length 1",
    "published-whitened": "pictures as published, components divided by their deviation",
    "published-48": "as published-whitened, drawn at 48x48 pixels; a float table",
    "published-64": "as published-whitened, drawn at 64x64 pixels; a float table",
    "random": "random bits, length 1",
    "random-long": "random bits, as long as whitened pictures",
    "trainable": "a trained table, as transformers starts it",
    "random-trained": "a trained table that starts as random",
    "binary": "the bits of the token's id",
}


def as_markdown(report: dict[str, Any]) -> str:
    """The report for people: what it shows, what it does not, the tables, the protocol."""
    settings, languages = report["settings"], list(report["held_out"])
    budget = f"{settings['tokens'] / 1e6:.2f} million tokens"
    means = [
        {
            "arm": name,
            "vectors": MEANING[name],
            "rate": f"{entry['learning_rate']:g}",
            "seeds": ", ".join(map(str, entry["seeds"])),
            **{language: loss_cell(entry["losses"][language]) for language in languages},
            "effective dimensions": f"{entry['effective_dimensions']:.0f}",
            "trained parameters": f"{entry['trainable_parameters']:,}",
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
            "difference, 95% intervals": signed(row, seeds=True),
            "p (Holm)": "too few units" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
            "verdict": row["verdict"],
        }
        for row in report["comparisons"]
    ]
    curves = [
        {"text": language, "arm": name}
        | {f"step {point['step']:.0f}": f"{point[language]:.3f}" for point in entry["curve"]}
        for language in languages
        for name, entry in report["kinds"].items()
    ]
    sections = [
        "# Frozen or trained embedding, drawing or code? A small controlled comparison",
        f"Held-out loss of a model {settings['width']} wide and {settings['layers']} blocks deep after the same "
        f"{budget} of text in {', '.join(languages)}. The token embedding is all that differs.",
        "## What it shows",
        shown(report),
        "## What it does not show",
        not_shown(report, budget),
        "## Loss",
        f"Nats per character, mean over seeds. {intervals_line(report)} Effective dimensions: in how many "
        "directions the fresh token vectors spread, (sum of variances)^2 / sum of squared variances.",
        markdown_table(means),
        "For scale, guessing without a model: all tokens equally likely, or as often as in the training text.",
        markdown_table(chance),
        "## Differences",
        "Nats per character at the seeds that both arms ran; negative means that the arm named first is better.",
        markdown_table(differences) if differences else "",
        *rare_part(report),
        "## On the way",
        "Nats per character of the development texts, mean over seeds.",
        markdown_table(curves),
        *rate_part(report),
        "## Protocol",
        protocol(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


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
        seeds = len(
            next(row["seeds"] for row in report["comparisons"] if (row["kind"], row["baseline"]) == (kind, base))
        )
        few = f" ({seeds} of the {MIN_RUNS} seeds that a verdict needs)" if seeds < MIN_RUNS else ""
        lines.append(f"* `{kind}` against `{base}`{few}: {'; '.join(words)}.")
    if "published" in report["kinds"]:
        collisions = report["kinds"]["published"]["substrate"]["collisions"]
        lines.append(f"* `published` gives {collisions['remaining']} tokens the vector of another one.")
    return "\n".join(lines)


def not_shown(report: dict[str, Any], budget: str) -> str:
    """The limits of the study, as a list."""
    settings, arms = report["settings"], report["kinds"]
    missing = [name for name in MEANING if name not in arms]
    limits = [
        f"**One tiny size, one short budget.** {budget} are no more than one reading of the training text, and the "
        "models are far from converged: much of a difference may be speed of learning, not what is learnt in the end.",
        f"**A vocabulary** of {settings['vocab_size']:,} ids; the published ones have 65,536 and more.",
        f"**Narrow vectors.** Of the bits of drawn and random substrates, 1,024 or more, {settings['width']} principal "
        "components remain here; the published models are as wide as their substrate.",
        "**Unequal capacity.** Trained tables train on top of what the others train.",
        f"**Few seeds.** A verdict needs {MIN_RUNS} of them, a Holm-corrected p over the text below {ALPHA} and an "
        "interval between seeds on the same side.",
        "**Loss is not ability.** Nothing here measures what the models can do.",
    ]
    if missing:
        limits.append(f"**Not run yet:** {', '.join(f'`{name}`' for name in missing)}.")
    return "\n".join(f"* {limit}" for limit in limits)


def rare_part(report: dict[str, Any]) -> list[str]:
    """The loss behind rare tokens, as a curve over how often they were read."""
    if not report["rare"]:
        return []
    rows = [
        {
            "first minus second": f"{row['kind']} - {row['baseline']}",
            "text": row["language"],
            "read at most": str(row["read_at_most"]),
            "tokens": str(row["tokens"]),
            "difference, nats a token": f"{row['difference']:+.3f} ({interval(row, sign='+')})",
            "each seed": ", ".join(f"{value:+.3f}" for value in row["by_seed"]),
        }
        for row in report["rare"]
    ]
    return [
        "## Behind rare tokens",
        "Only tokens whose left neighbour was read in training so often at most; the same tokens for both arms. A "
        "negative difference: the arm named first makes more of the rare neighbour. Intervals are over documents.",
        markdown_table(rows),
    ]


def rate_part(report: dict[str, Any]) -> list[str]:
    """Loss of the development texts at each rate that an arm tried."""
    languages = list(report["held_out"])
    rows = [
        {"arm": row["kind"], "rate": f"{row['learning_rate']:g}{' (chosen)' if row['chosen'] else ''}"}
        | {language: f"{row[language]:.3f}" for language in languages}
        for row in report["rates"]
    ]
    return [
        "## Learning rates",
        "Nats per character of the development texts at seed 0, which are neither trained on nor reported; the rate "
        "with the lowest mean over languages is the arm's.",
        markdown_table(rows),
    ]


def protocol(report: dict[str, Any]) -> str:
    """How the numbers came about, in one paragraph."""
    settings = report["settings"]
    held_out = ", ".join(f"{text['documents']} {language}" for language, text in report["held_out"].items())
    return (
        f"`python -m eval.studies.substrate --data DIR --out OUT --width {settings['width']} "
        f"--depth {settings['layers']} --vocab {settings['vocab_size']} --steps {settings['steps']} "
        f"--languages {' '.join(report['held_out'])}`. "
        f"{settings['megabytes']:g} MB of training text, equal shares of the languages by bytes; one tokenizer, learnt "
        "from all of the training text, so that some of its characters are rare in the sample. "
        f"{settings['steps']} steps of {settings['batch_size']} windows of {settings['context_length']} tokens; AdamW "
        f"(0.9, 0.95), {settings['warmup_steps']} warm-up steps, cosine to "
        f"{settings['final_learning_rate_ratio']:.0%}, weight decay {settings['weight_decay']}, gradients clipped at "
        f"{settings['max_grad_norm']:g}. At one seed all arms start with the same blocks and "
        "head and read the same batches in the same order (checked by hash); `random` draws a new code at every seed. "
        f"Scored as `frozen_glyph.text.loss` does, in {held_out} documents: the held-out texts and the last documents "
        "of the training texts, each cut to its beginning. Holm's correction over all rows of differences. "
        f"{report['cpu_seconds'][0]} to {report['cpu_seconds'][1]} processor seconds a run. "
        + circumstances_line(report)
    )
