"""What a frozen substrate holds in a model that is made, not loaded: that of the checkpoint whose configuration it has.

Where a configuration names no substrate it is a code, as good as any for trying things out.

Drawing glyphs takes a font, which does not travel with a model; so a configuration that names a substrate which is
nowhere at hand leaves it without bits, and every use of it is refused.

Shapes: V vocabulary, S substrate bits, D hidden size.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import initialization as init
from transformers.utils import logging

from .embedding_frozen_glyph import CENTER_SCALE, FrozenGlyphEmbedding, substrate_fingerprint
from .pretrained_frozen_glyph import check_names, examine_shards, find_file
from .weights_frozen_glyph import choose_weights

REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
PREFIXES = ("model.embed_tokens.", "embed_tokens.")  # in checkpoints of whole models, and of base models alone

logger = logging.get_logger(__name__)


@torch.no_grad()
def initialise_substrate(substrate: nn.Module, config: Any) -> None:
    """Fill the frozen token embedding of a new model, in place.

    A frozen table whose vectors are nowhere at hand becomes NaN where the configuration names its substrate.
    """
    wanted = substrate.state_dict()
    if any(tensor.is_meta for tensor in wanted.values()):
        return
    tensors = stored_substrate(config, wanted)
    if tensors is not None and not is_named(tensors, config):
        tensors = None
    if tensors is None and config.substrate_fingerprint is None:
        logger.warning_once(
            "The configuration names no substrate and no folder that has one: token vectors are random, not of glyphs."
        )
        tensors = code_substrate(wanted) if isinstance(substrate, FrozenGlyphEmbedding) else {}
    elif tensors is None:
        dense = not isinstance(substrate, FrozenGlyphEmbedding)
        tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in wanted.items() if dense}
    for name, tensor in tensors.items():
        init.copy_(getattr(substrate, name), tensor)


def stored_substrate(config: Any, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The tensors ``wanted`` as they lie in the folder or repository that ``config`` was read from; None without one.

    None too where they are damaged or of other shapes.

    Raises:
        ValueError: a name or link of that folder leads out of it.
    """
    source, commit = config.name_or_path, getattr(config, "_commit_hash", None)
    if source and Path(source).is_file():  # the configuration itself
        source = str(Path(source).parent)
    if not source or not (Path(source).is_dir() or REPOSITORY.fullmatch(source)):
        return None
    arguments = {} if commit is None else {"revision": commit}
    first = getattr(config, "transformers_weights", None) or choose_weights(
        lambda name: find_file(source, name, arguments, fetch=True) is not None
    )
    check_names(source, first, arguments)
    find_file(source, first, arguments, fetch=True)
    owners, _ = examine_shards(source, first, arguments)
    tensors = {}
    for name, like in wanted.items():
        stored = next((prefix + name for prefix in PREFIXES if prefix + name in owners), None)
        path = stored and find_file(source, owners[stored], arguments, fetch=True)
        if stored is None or path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if file.get_slice(stored).get_shape() != list(like.shape):
                    return None
                tensors[name] = file.get_tensor(stored)
        except SafetensorError:
            return None
    return tensors


def is_named(tensors: dict[str, torch.Tensor], config: Any) -> bool:
    """Whether ``tensors`` are the substrate that ``config`` names; of a table, or where it names none, nobody knows."""
    if "packed_bits" not in tensors or config.substrate_fingerprint is None:
        return True
    names = ("packed_bits", "center", "projection", "gain")
    bits, center, projection, gain = (tensors.get(name) for name in names)
    assert bits is not None and center is not None
    scale = config.substrate_scale
    found = substrate_fingerprint(bits, center, projection, config.tokenizer_sha256, gain, scale)
    return found == config.substrate_fingerprint


def code_substrate(wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Bits that make a substrate without glyphs: each token's id in binary, then random ones, the same everywhere.

    No two tokens have the same bits unless these are too few to count the tokens. ``wanted``: tensors of the shapes.
    """
    (tokens, width), label = wanted["packed_bits"].shape, b"frozen_glyph substrate of no glyphs "
    counted = min(width, -(-max(1, (tokens - 1).bit_length()) // 8))
    ids = torch.arange(tokens)
    columns = [(ids >> 8 * place & 255).to(torch.uint8) for place in reversed(range(counted))]
    random = random_bytes(label + b"bits", tokens * (width - counted)).reshape(tokens, width - counted)
    center = torch.full_like(wanted["center"], CENTER_SCALE // 2)
    found = {"packed_bits": torch.cat([torch.stack(columns, dim=1), random], dim=1), "center": center}
    if "projection" in wanted:
        shape = wanted["projection"].shape
        signs = random_bytes(label + b"projection", shape.numel()) & 1
        found["projection"] = (2 * signs.to(torch.int8) - 1).reshape(shape)
    if "gain" in wanted:
        found["gain"] = torch.ones_like(wanted["gain"])
    return found


def random_bytes(label: bytes, count: int) -> torch.Tensor:
    """uint8 [count] that follow from ``label`` alone, on every machine."""
    stream = bytearray(hashlib.shake_256(label).digest(count))
    return torch.frombuffer(stream, dtype=torch.uint8) if count else torch.empty(0, dtype=torch.uint8)


__all__ = ["initialise_substrate"]
