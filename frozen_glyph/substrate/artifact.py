"""The substrate as an artifact: built from a tokenizer and a font, saved, fingerprinted, loaded and checked.

Shapes: V vocabulary, S substrate bits (1024), D width.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from frozen_glyph.checkpoint.files import copy_file, read_json, read_tensors, write_json, write_tensors
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE, FrozenGlyphEmbedding, substrate_fingerprint
from frozen_glyph.substrate.collisions import separate
from frozen_glyph.substrate.font import Font, load_font
from frozen_glyph.substrate.glyphs import CANVAS, draw_layout
from frozen_glyph.substrate.projection import (
    bit_center,
    bit_covariance,
    check_exact,
    first_repeat,
    principal_directions,
    smallest_distance,
    to_int8,
)
from frozen_glyph.substrate.vocabulary import list_tokens, tokenizer_sha256

SUBSTRATE_BITS = CANVAS * CANVAS
TENSORS_FILE, JSON_FILE, TOKENIZER_FILE = "substrate.safetensors", "substrate.json", "tokenizer.json"
TENSOR_PREFIX = "model.embed_tokens."  # the names under which a checkpoint holds the same tensors
PAIRS_LIMIT = 16_384  # largest vocabulary whose pairs are all measured, which takes a few seconds
GROUPS_KEPT = 100  # collision groups listed in the provenance


class SubstrateError(FrozenGlyphError):
    """A substrate cannot be built as asked, or a substrate folder is missing or damaged."""


@dataclass(frozen=True, eq=False)
class GlyphSubstrate:
    """A tokenizer and one frozen vector for each of its tokens.

    The vector of a token is ``y / |y|`` with ``y = (16 * bits - center) @ projection``, or without the projection
    when it is None.
    """

    tokenizer: PreTrainedTokenizerBase
    packed_bits: torch.Tensor  # uint8 [V, S // 8]: pixels row by row, eight to a byte, the first one in the high bit
    center: torch.Tensor  # uint8 [S]: the mean of each bit over the vocabulary, in sixteenths
    projection: torch.Tensor | None  # int8 [S, D], None when D == S
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        width: int | None = None,
        layout: str = "grid",
        font: Font | None = None,
    ) -> "GlyphSubstrate":
        """Draw every token of ``tokenizer`` and make the drawings into distinct vectors.

        Args:
            width: length of a vector, a multiple of 8 from 8 to 1024; None means 1024, the pixels themselves.
            layout: how tokens of several code points are drawn; see ``glyphs.LAYOUTS``.
            font: see ``load_font``; None means GNU Unifont.

        Raises:
            SubstrateError: the width is not allowed, or too small to keep all tokens apart.
        """
        width = SUBSTRATE_BITS if width is None else width
        if not 8 <= width <= SUBSTRATE_BITS or width % 8:
            raise SubstrateError(f"width {width} is not allowed; give a multiple of 8 from 8 to {SUBSTRATE_BITS}")
        font = font or load_font()
        tokens = list_tokens(tokenizer)
        bitmaps, groups = separate(draw_layout(tokens, font, layout), tokens)
        packed_bits = torch.from_numpy(np.packbits(bitmaps.reshape(len(tokens), -1), axis=1))
        center, projection = bit_center(packed_bits), None
        if width < SUBSTRATE_BITS:
            projection = to_int8(principal_directions(bit_covariance(packed_bits))[:, :width])
        check_exact(center, projection)
        substrate = cls(tokenizer, packed_bits, center, projection)
        embedding = substrate.as_embedding()
        if repeat := first_repeat(embedding):
            names = " and ".join(f"{token_id} {tokens[token_id].text!r}" for token_id in repeat)
            raise SubstrateError(
                f"width {width} is too small: tokens {names} get the same vector; give a larger width, at most "
                f"{SUBSTRATE_BITS}"
            )
        measured = len(tokens) <= PAIRS_LIMIT
        substrate.provenance.update(
            layout=layout,
            font=font.provenance(),
            vocab_size=len(tokens),
            width=width,
            collisions={
                "groups": len(groups),
                "tokens_resolved": sum(len(ids) - 1 for ids in groups),
                "remaining": 0,
                "first_groups": [
                    [[token_id, tokens[token_id].text] for token_id in ids] for ids in groups[:GROUPS_KEPT]
                ],
            },
            # Of unit vectors; rounded, so that the last bits of a float sum cannot make two builds differ.
            smallest_distance=round(smallest_distance(embedding.weight), 5) if measured else None,
            tokenizer_sha256=tokenizer_sha256(tokenizer),
            package_version=versions().get("frozen-glyph"),
        )
        return substrate

    @property
    def vocab_size(self) -> int:
        return self.packed_bits.shape[0]

    @property
    def width(self) -> int:
        return self.center.shape[0] if self.projection is None else self.projection.shape[1]

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors and the tokenizer: experts with the same one can be merged."""
        return substrate_fingerprint(self.packed_bits, self.center, self.projection, tokenizer_sha256(self.tokenizer))

    def bitmaps(self, ids: Any) -> np.ndarray:
        """Pictures of tokens, bool [n, 32, 32]."""
        rows = self.packed_bits.numpy()[np.asarray(ids, dtype=np.int64)]
        return np.unpackbits(rows, axis=1).reshape(-1, CANVAS, CANVAS).astype(bool)

    def reference_vectors(self, ids: Any) -> np.ndarray:
        """Vectors of tokens by the definition, float64 [n, D]: what the model's embedding is tested against."""
        bits = np.unpackbits(self.packed_bits.numpy()[np.asarray(ids, dtype=np.int64)], axis=1)
        y = CENTER_SCALE * bits.astype(np.float64) - self.center.numpy()
        if self.projection is not None:
            y = y @ self.projection.numpy().astype(np.float64)
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    def as_embedding(self) -> FrozenGlyphEmbedding:
        """The torch module that a model uses, holding this substrate."""
        embedding = FrozenGlyphEmbedding(self.vocab_size, self.width, SUBSTRATE_BITS)
        for name in ("packed_bits", "center", "projection"):
            embedding.register_buffer(name, getattr(self, name))
        return embedding

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files, ``substrate.safetensors`` and ``substrate.json``, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            self.tokenizer.save_pretrained(temporary)
            for source in sorted(Path(temporary).iterdir()):
                copy_file(source, folder / source.name)
        tensors = {"packed_bits": self.packed_bits, "center": self.center, "projection": self.projection}
        write_tensors(
            folder / TENSORS_FILE,
            {TENSOR_PREFIX + name: tensor for name, tensor in tensors.items() if tensor is not None},
        )
        write_json(folder / JSON_FILE, {"fingerprint": self.fingerprint, **self.provenance})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "GlyphSubstrate":
        """Load a folder that ``save_pretrained`` wrote, and check it against its fingerprint.

        Raises:
            FrozenGlyphError: a file is missing, truncated or damaged; the message names it.
        """
        folder = Path(folder)
        provenance = read_json(folder / JSON_FILE)
        if not isinstance(provenance, dict) or not {"fingerprint", "tokenizer_sha256"} <= provenance.keys():
            raise SubstrateError(
                f"{str(folder / JSON_FILE)!r} is damaged: it has no fingerprint; write the folder again"
            )
        expected = provenance.pop("fingerprint")
        tensors = read_tensors(folder / TENSORS_FILE)
        try:
            packed_bits, center = tensors[TENSOR_PREFIX + "packed_bits"], tensors[TENSOR_PREFIX + "center"]
        except KeyError as error:
            raise SubstrateError(
                f"{str(folder / TENSORS_FILE)!r} has no tensor {error}; write the folder again"
            ) from None
        read_json(folder / TOKENIZER_FILE)  # names the file when it is missing or damaged
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        substrate = cls(tokenizer, packed_bits, center, tensors.get(TENSOR_PREFIX + "projection"), provenance)
        if substrate.fingerprint != expected:
            same_tokenizer = tokenizer_sha256(tokenizer) == provenance["tokenizer_sha256"]
            damaged = folder / (TENSORS_FILE if same_tokenizer else TOKENIZER_FILE)
            raise SubstrateError(
                f"{str(damaged)!r} is damaged or of another substrate: the folder's fingerprint is "
                f"{substrate.fingerprint}, but {JSON_FILE} says {expected}; fetch or write the folder again"
            )
        return substrate
