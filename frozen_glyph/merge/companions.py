"""Whose chat template and generation settings a merged model gets, and where those of the experts differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.companions import LENGTH, companions
from frozen_glyph.checkpoint.contract import SUBSTRATE_FILE, TOKENIZER_FILE
from frozen_glyph.checkpoint.files import inside, read_json
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.merge.experts import Expert

SAME = {TOKENIZER_FILE, SUBSTRATE_FILE}  # experts dock only where these mean the same


def choose_companions(experts: Sequence[Expert], name: str | None) -> Expert:
    """The expert whose companions go along: that of ``name``, or the first.

    Raises:
        FrozenGlyphError: there is no such expert.
    """
    names = {expert.name: expert for expert in experts}
    if name is not None and name not in names:
        raise FrozenGlyphError(f"companions={name!r} is no expert.{nearest(name, names)} Allowed: {', '.join(names)}")
    return experts[0] if name is None else names[name]


def differing(experts: Sequence[Expert], chosen: Expert) -> dict[str, list[str]]:
    """Of each file that goes along, or that only others have: the experts that have another than ``chosen``."""
    own, found = contents(chosen.checkpoint.folder), dict[str, list[str]]()
    others = {expert.name: contents(expert.checkpoint.folder) for expert in experts}
    for file in sorted({file for files in others.values() for file in files}):
        if unlike := [name for name, files in others.items() if files.get(file) != own.get(file)]:
            found[file] = unlike
    return found


def contents(folder: Path) -> dict[str, Any]:
    """What the companions in ``folder`` say, but which transformers wrote them, and what follows from the model."""
    found: dict[str, Any] = {}
    for name in companions(folder, "merge"):
        if name not in SAME:
            path = inside(folder, name)
            said = read_json(path) if path.suffix == ".json" else path.read_bytes()
            found[name] = {**said, "transformers_version": None, LENGTH: None} if isinstance(said, dict) else said
    return found
