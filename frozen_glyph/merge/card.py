"""The model card of a merged checkpoint, from its configuration."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.card import inherited, markdown_table, model_card
from frozen_glyph.checkpoint.config import expert_blocks, expert_names, expert_weights, shared_blocks, vectors_of
from frozen_glyph.model.rules_frozen_glyph import RULES


def expert_rows(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each expert of a merged model."""
    shared = shared_blocks(config)
    return [
        {"expert": name, "blocks": blocks, "shared": shared, "weight": f"{weight:.3f}"}
        for name, blocks, weight in zip(
            expert_names(config), expert_blocks(config), expert_weights(config), strict=True
        )
    ]


def merge_card(
    name: str, config: dict[str, Any], parents: Iterable[dict[str, Any]] = (), folders: Iterable[Path] = ()
) -> str:
    """The card of a merged model: experts, rule and what it costs.

    ``parents`` are those of the provenance; what the cards in ``folders`` say of license, languages and data sets is
    taken over.
    """
    rows, rule = expert_rows(config), RULES[config["rule"]]
    return model_card(
        name,
        f"{len(rows)} independently grown experts on one frozen glyph substrate, merged without training. Its token "
        f"vectors are {vectors_of(config)}.",
        {
            "Experts": markdown_table(rows),
            "Rule": f'`{rule.name}`: {rule.costs}\n\nOther rules: `from_pretrained(..., rule="posterior")`; for good, '
            "`frozen-glyph reweigh`.",
            "Limitations": "A small research model. Its text is not reliable; measure it before you use it.",
        },
        ["merged"],
        base_model=[parent["name"] for parent in parents],
        base_model_relation="merge",
        **inherited(folders),
    )
