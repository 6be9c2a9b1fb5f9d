"""What is shown of a tuned head: the table of losses, and the model card."""

from collections.abc import Mapping
from typing import Any

from frozen_glyph.checkpoint.card import held_out_results, markdown_table, model_card
from frozen_glyph.checkpoint.records import TuningLosses
from frozen_glyph.merge.card import expert_rows
from frozen_glyph.model.rules_frozen_glyph import RULES

TRAINED = {
    "head": "their joint head",
    "low-rank": "a low-rank change of their joint head",
    "scales": "one scale for each",
}


def loss_rows(losses: Mapping[str, TuningLosses]) -> list[dict[str, str]]:
    """The records of ``score_tuning`` as rows of a table."""

    def signed(difference: dict[str, float | None]) -> str:
        ends = difference["low"], difference["high"]
        bounds = "too few documents" if None in ends else ", ".join(f"{end:+.4f}" for end in ends)
        return f"{difference['difference']:+.4f} [{bounds}]"

    rows = []
    for text, record in losses.items():
        row = {"nats per character": text} | {name: f"{loss:.4f}" for name, loss in record["experts"].items()}
        row |= {key: f"{record[key]:.4f}" for key in ("merged", "tuned")}
        row["tuned - merged [95%]"] = signed(record["change"])
        if record["experts"]:
            row["tuned - best expert [95%]"] = signed(record["against_best_expert"])
        rows.append(row)
    return rows


def tuned_card(name: str, config: dict[str, Any], provenance: dict[str, Any]) -> str:
    """The card of a merged model whose head was tuned: what trained, on what, and what that did to every text."""
    what, rows = provenance["recipe"]["what"], expert_rows(config)
    sources = ", ".join(f"`{source['name']}`" for source in provenance["data"])
    losses, rule = loss_rows(provenance["nats_per_character"]), RULES[config["rule"]]
    return model_card(
        name,
        f"{len(rows)} independently grown experts on one frozen glyph substrate; {TRAINED[what]} was trained on "
        f"{provenance['tokens']:,} tokens of {sources}, everything else frozen.",
        {
            "Experts": markdown_table(rows),
            "Loss": markdown_table(losses) if losses else "Not measured: no held-out text was given.",
            "Rule": f"`{rule.name}`: {rule.costs} The head was tuned for it; other rules mean nothing.",
            "Limitations": "A small research model. Its text is not reliable; measure it before you use it.",
        },
        ["merged", "tuned"],
        held_out_results({text: record["tuned"] for text, record in provenance["nats_per_character"].items()}),
        base_model=[parent["name"] for parent in provenance.get("parents", [])],
        base_model_relation="finetune",
    )
