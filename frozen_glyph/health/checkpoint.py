"""The health of a stored checkpoint on a text.

Command: ``frozen-glyph inspect --health MODEL --text FILE``
"""

from pathlib import Path
from typing import Any

import torch

from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.loading import FETCHED, load_causal_lm, load_tokenizer
from frozen_glyph.checkpoint.reader import open_checkpoint
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.health.measure import LEAST_EXAMPLES, HealthReport, model_health
from frozen_glyph.text.documents import read_text

EXAMPLES, LENGTH = 32, 64


def measure_health(source: str | Path | Source, text: str | Path) -> HealthReport:
    """``model_health`` of a folder or Hub id, ``NAME@STAGE`` for a growth stage, on windows of the file ``text``.

    Raises:
        FrozenGlyphError: the text is missing, or too short for 3 windows.
        CheckpointError: the model has other bytes than were written.
        ValueError, OSError: there is no such checkpoint or stage.
    """
    content = read_text(text)
    source = Source.parse(source)
    folder = source.fetch("model", FETCHED)
    check_links(folder)
    open_checkpoint("model", source.at(folder)).verify({})
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder, **source.arguments)
    length = min(LENGTH, model.config.max_position_embeddings)
    return model_health(model, [text_batch(content, tokenizer, length)])


def text_batch(text: str, tokenizer: Any, length: int = LENGTH, count: int = EXAMPLES) -> torch.Tensor:
    """At most ``count`` windows of ``length`` tokens, evenly spread over ``text``: token ids [B, T].

    Raises:
        FrozenGlyphError: the text is too short for 3 windows.
    """
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long)
    windows = ids[: len(ids) // length * length].view(-1, length)
    if len(windows) < LEAST_EXAMPLES:
        raise FrozenGlyphError(
            f"the text has {len(ids)} tokens; health needs {LEAST_EXAMPLES} windows of {length}: give a longer text"
        )
    chosen = torch.linspace(0, len(windows) - 1, min(count, len(windows))).round().long()
    return windows[chosen]
