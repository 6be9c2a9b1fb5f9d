"""Change rule and weights of a merged checkpoint: three small files, no shard.

frozen-glyph reweigh runs/merged --rule weighted --weights 0.7,0.3
"""

from collections.abc import Sequence
from pathlib import Path

from frozen_glyph.checkpoint.config import is_merged
from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, PROVENANCE_FILE
from frozen_glyph.checkpoint.files import CheckpointError, write_json, write_text
from frozen_glyph.checkpoint.places import one_writer
from frozen_glyph.checkpoint.provenance import read_provenance, rewriting
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.checkpoint.verify import check_companions
from frozen_glyph.merge.card import merge_card
from frozen_glyph.merge.experts import TUNED
from frozen_glyph.merge.recipe import shares
from frozen_glyph.model.rules_frozen_glyph import DEFAULT_RULE, rules_with


@one_writer("merged")
def reweigh_experts(merged: str | Path, rule: str | None = None, weights: Sequence[float] | None = None) -> Path:
    """Give the folder ``merged`` another ``rule``, other ``weights``, or both; what is None stays.

    Each file is replaced atomically, ``config.json``, which decides, last: stopped between them, the old rule stays in
    force, ``inspect`` says so, and the same call finishes.

    Raises:
        FrozenGlyphError: unknown rule, weights that it cannot use, or nothing to change.
        CheckpointError: ``merged`` is no merged checkpoint, or its head was tuned for its rule and weights.
        FolderInUse: another process writes into ``merged``.
    """
    folder = Path(merged)
    config = read_config(folder)
    if not is_merged(config):
        raise CheckpointError(f"{str(folder)!r} is no merged checkpoint; merge experts first")
    if rule is None and weights is None:
        raise CheckpointError(f"nothing to change in {str(folder)!r}: give a rule, weights or both")
    if config.get("embedding_size"):
        raise CheckpointError(f"the head of {str(folder)!r} holds rule and weights; reweigh what it was made from")
    found = read_provenance(folder) if (folder / PROVENANCE_FILE).exists() else None
    check_companions(folder, found or {})
    if found and found["kind"] == TUNED:
        raise CheckpointError(
            f"the head of {str(folder)!r} was tuned for rule {config.get('rule')!r} and its weights; reweigh what it "
            "was tuned from and tune again"
        )
    rule, count = rule or config.get("rule", DEFAULT_RULE), len(config["experts"])
    if weights is None and rule not in rules_with(weights="none"):
        weights = config.get("expert_weights")
    config |= {"rule": rule, "expert_weights": shares(rule, weights, count)}
    with rewriting(folder, CONFIG_FILE):
        if found:
            recipe = found.get("recipe", {}) | {"rule": rule, "weights": config["expert_weights"]}
            write_json(folder / PROVENANCE_FILE, read_provenance(folder) | {"recipe": recipe})
        parents = found.get("parents", []) if found else []
        write_text(folder / CARD_FILE, merge_card(folder.resolve().name, config, parents, [folder]))
        write_json(folder / CONFIG_FILE, config)
    return folder
