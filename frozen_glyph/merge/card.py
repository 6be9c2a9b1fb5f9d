"""The model card of a merged checkpoint, from its configuration."""

from typing import Any

from frozen_glyph.checkpoint.card import markdown_table, model_card
from frozen_glyph.checkpoint.contract import RULES


def merge_card(name: str, config: dict[str, Any]) -> str:
    """The card of a merged model: experts, rule and what it costs."""
    shared = config.get("num_shared_layers", 0)
    rows = [
        {
            "expert": expert_name,
            "blocks": shared + expert["num_hidden_layers"],
            "shared": shared,
            "weight": f"{weight:.3f}",
        }
        for expert_name, expert, weight in zip(
            config["expert_names"], config["experts"], config["expert_weights"], strict=True
        )
    ]
    rule = config["rule"]
    return model_card(
        name,
        f"{len(rows)} independently grown experts on one frozen glyph substrate, merged without training.",
        {
            "Experts": markdown_table(rows),
            "Rule": f'`{rule}`: {RULES[rule]}\n\nOther rules: `from_pretrained(..., rule="posterior")`; for good, '
            "`frozen-glyph reweigh`.",
            "Limitations": "A small research model. Its text is not reliable; measure it before you use it.",
        },
        ["merged"],
    )
