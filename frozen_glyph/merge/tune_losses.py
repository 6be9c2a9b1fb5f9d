"""What tuning a head gains and costs: held-out loss under each expert alone, merged and tuned, in paired intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.config import expert_names
from frozen_glyph.checkpoint.contract import CONFIG_FILE
from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.records import TuningLosses
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.statistics import paired_bootstrap
from frozen_glyph.text.loss import TextLoss, text_loss


def score_tuning(
    merged: Path, tuned: Path, texts: Mapping[str, Sequence[str]], alone: bool = True
) -> dict[str, TuningLosses]:
    """Losses in nats per character by held-out text, from the folders as they lie there.

    ``texts`` are documents by name. For each text: ``experts`` (each alone, when ``alone``), ``merged``, ``tuned``, and
    with 95% intervals ``change`` (tuned minus merged) and ``against_best_expert`` (tuned minus the best expert alone).
    """
    if not texts:
        return {}
    tokenizer = load_tokenizer(merged, local_files_only=True)

    def score(folder: Path, **changes: Any) -> dict[str, TextLoss]:
        model = FrozenGlyphMoEForCausalLM.from_pretrained(folder, **changes)
        return {name: text_loss(model, tokenizer, text) for name, text in texts.items()}

    before, after = score(merged), score(tuned)
    names = expert_names(read_json(merged / CONFIG_FILE)) if alone else []
    experts = {
        name: score(merged, rule="weighted", expert_weights=[float(name == other) for other in names]) for name in names
    }
    return {
        text: compared(before[text], after[text], {n: losses[text] for n, losses in experts.items()}) for text in texts
    }


def compared(before: TextLoss, after: TextLoss, experts: dict[str, TextLoss]) -> TuningLosses:
    """The record of one text; see ``score_tuning``."""

    documents = after.documents.tolist()

    def difference(first: TextLoss) -> dict[str, float | None]:
        found = dataclasses.asdict(paired_bootstrap(first.nats, after.nats, after.characters, units=documents))
        return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}

    record: TuningLosses = {
        "experts": {name: loss.nats_per_character for name, loss in experts.items()},
        "merged": before.nats_per_character,
        "tuned": after.nats_per_character,
        "change": difference(before),
    }
    if experts:
        best = min(experts, key=lambda name: experts[name].nats_per_character)
        record |= {"best_expert": best, "against_best_expert": difference(experts[best])}
    return record
