"""The report of the forgetting study: what each way of learning Russian does to English and gives in Russian."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table

BEFORE, OTHER = "english", "russian"  # what there was to forget; what the same training learns of Russian from nothing
PAIRS = (
    ("tuned", "grown"),
    ("tuned-replay", "grown-replay"),
    ("grown", "grown-replay"),
    ("tuned", "tuned-replay"),
    ("grown", "english+grown/evidence 16"),
)


def summarise(results: Results, scale: Any, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """``losses[text][model]``: loss, interval and values by seed; ``differences``: second minus first, paired by block.

    Below zero: the second is better. Differences are those of every model from ``english`` and from ``russian``, and
    the ``PAIRS``; ``costs`` are means over seeds.
    """
    measured = {seed: results["measure", seed] for seed in seeds if ("measure", seed) in results}
    if len(measured) < len(seeds):
        raise SystemExit(f"{len(measured)} of {len(seeds)} seeds have been measured; run the study first")
    runs = finished(results, arms, scale, seeds)
    texts: dict[str, Any] = {}
    losses: dict[str, Any] = {}
    differences = []
    for text, entry in next(iter(measured.values()))["losses"].items():
        nats = {
            model: np.array([run["losses"][text]["nats"][model] for run in measured.values()])
            for model in entry["nats"]
        }
        texts[text] = {"documents": len(set(entry["documents"])), "characters": sum(entry["characters"])}
        losses[text] = {model: loss_of(nats_SB, entry) for model, nats_SB in nats.items()}  # seeds, blocks
        against = [(base, model) for base in (BEFORE, OTHER) for model in nats if model != base]
        for first, second in [*against, *PAIRS]:
            found = difference_of(nats[first], nats[second], entry)
            differences.append({"text": text, "first": first, "second": second, **found})
    costs = {
        kind: {name: float(np.mean([run[name] for run in found])) for name in found[0]} for kind, found in runs.items()
    }
    return {
        "scale": asdict(scale),
        "seeds": list(measured),
        "rates": rates_line(results, arms, scale, seeds),
        "texts": texts,
        "losses": losses,
        "differences": differences,
        "first_stage_identical": [run["first_stage_identical"] for run in measured.values()],
        "bytes_of_first_stage": next(iter(measured.values()))["bytes_of_first_stage"],
        "costs": costs,
        "core_seconds": sum(result["cpu_seconds"] for result in results.values()),
    }


def difference(report: dict[str, Any], text: str, first: str, second: str) -> dict[str, Any]:
    """The entry of ``differences`` for one text and pair of models."""
    return next(
        entry
        for entry in report["differences"]
        if (entry["text"], entry["first"], entry["second"]) == (text, first, second)
    )


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    scale, losses = report["scale"], report["losses"]

    def cell(text: str, first: str, second: str) -> str:
        return "-" if first == second else signed(difference(report, text, first, second), seeds=True)

    kept = report["bytes_of_first_stage"]
    lines = [
        "# Is what was learnt kept?",
        "",
        f"{scale['hidden_size']} wide, {scale['vocab_size']} tokens of one glyph substrate, context "
        f"{scale['context_length']}; every training reads {scale['tokens']:,} tokens in batches of "
        f"{scale['batch_tokens']:,} with a cosine. `english` and "
        f"`russian` train {scale['layers']} blocks on one language. From `english` go on with Russian: `grown` "
        f"({scale['layers']} new blocks and the head train, the blocks below are frozen) and `tuned` (all blocks and "
        "the head train, none is added); `-replay`: half of the tokens are English. `A+B/RULE`: both merged, nothing "
        "trained; `english+grown` is the grown model and its own first stage. "
        f"{report['rates']} {len(report['seeds'])} seeds (blocks, head and order). Held-out nats per character of "
        + ", ".join(
            f"{text} ({entry['characters']:,} characters, {entry['documents']} documents)"
            for text, entry in report["texts"].items()
        )
        + ". Differences are second minus first, below zero: the second is better. "
        f"{intervals_line(report)}",
        "",
        *table(
            ["model", "English", "minus `english`", "Russian", "minus `russian`"],
            [
                [
                    model,
                    loss_cell(losses["en"][model]),
                    cell("en", BEFORE, model),
                    loss_cell(losses["ru"][model]),
                    cell("ru", OTHER, model),
                ]
                for model in losses["en"]
            ],
        ),
        "## Growing against fine-tuning, replay, the first stage merged in",
        "",
        *table(
            ["second minus first", "English", "Russian"],
            [[f"{second} - {first}", cell("en", first, second), cell("ru", first, second)] for first, second in PAIRS],
        ),
        "`grown` loaded with `growth_stage=1` gives the logits of `english` on all held-out English, bit for bit: "
        + ", ".join("yes" if same else "no" for same in report["first_stage_identical"])
        + " (by seed). So does any earlier checkpoint that is kept; what keeping it costs on disk is "
        f"{kept['grown']:,} bytes for `grown`, which shares the blocks, and {kept['tuned']:,} bytes for `tuned`.",
        "",
        "## Cost of a training (mean over seeds)",
        "",
        *table(
            ["training", "tokens", "TFLOP", "trained at a time", "parameters", "seconds", "core-seconds"],
            [
                [
                    kind,
                    f"{cost['tokens']:,.0f}",
                    f"{cost['flops'] / 1e12:.2f}",
                    f"{cost['trainable_parameters']:,.0f}",
                    f"{cost['parameters']:,.0f}",
                    f"{cost['seconds']:.0f}",
                    f"{cost['cpu_seconds']:.0f}",
                ]
                for kind, cost in report["costs"].items()
            ],
        ),
        f"Core-seconds include start and reading the text; {report['core_seconds']:.0f} for all runs. "
        + circumstances_line(report),
        "",
    ]
    return "\n".join(lines)
