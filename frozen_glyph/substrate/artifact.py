"""The substrate as an artifact: built from a tokenizer and a font, saved, fingerprinted, loaded and checked.

Shapes: V vocabulary, S substrate bits, D width.
"""

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.contract import SUBSTRATE_FILE, SUBSTRATE_SHARD, TOKENIZER_FILE
from frozen_glyph.checkpoint.files import (
    copy_file,
    inside,
    read_json,
    read_record,
    read_tensors,
    write_json,
    write_tensors,
)
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE, FrozenGlyphEmbedding
from frozen_glyph.substrate.build import build_tensors, make_embedding
from frozen_glyph.substrate.choices import SubstrateError, choose_width
from frozen_glyph.substrate.font import Font
from frozen_glyph.substrate.vocabulary import list_tokens, tokenizer_sha256


class Collisions(TypedDict, total=False):
    """Look-alikes met when a substrate was built; a group has [id, text] of each token."""

    groups: int
    tokens_resolved: int
    remaining: int
    first_groups: list[list[list[Any]]]


class StoredSubstrate(TypedDict):
    """What is read of a ``substrate.json``."""

    fingerprint: str
    tokenizer_sha256: str
    width: NotRequired[int]
    layout: NotRequired[str]
    whiten: NotRequired[str]
    scale: NotRequired[float]
    font: NotRequired[dict[str, Any] | None]
    collisions: NotRequired[Collisions]


@dataclass(frozen=True, eq=False)
class GlyphSubstrate:
    """A tokenizer and one frozen vector for each of its tokens.

    The vector of a token is ``scale * y / |y|`` with ``y = gain * ((16 * bits - center) @ projection)``, or where there
    is no projection ``y = 16 * bits - center``; a wider vector repeats each element ``width // S`` times in a row.
    """

    tokenizer: PreTrainedTokenizerBase
    packed_bits: torch.Tensor  # uint8 [V, S // 8]: pixels row by row, eight to a byte, the first one in the high bit
    center: torch.Tensor  # uint8 [S]: the mean of each bit over the vocabulary (of a code: one half), in sixteenths
    projection: torch.Tensor | None  # int8 [S, min(S, D)], None when D is a multiple of S and nothing is rotated
    provenance: dict[str, Any] = field(default_factory=dict)
    gain: torch.Tensor | None = None  # int32 [min(S, D)], powers of two, None where nothing is whitened

    @classmethod
    def build(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        width: int | None = None,
        layout: str = "grid",
        font: Font | None = None,
        bits: int | None = None,
        seed: int = 0,
        pca: bool = False,
        whiten: str | None = None,
        scale: float | None = None,
    ) -> "GlyphSubstrate":
        """Make the tokens of ``tokenizer`` into vectors, distinct unless the layout is ``published``.

        Args:
            width: length of a vector, the model's hidden_size; None means the number of bits. Fewer than the bits (a
                multiple of 8) are principal components of them, more (a multiple of the bits) repeat them.
            layout: ``grid`` (see ``glyphs``) or ``published`` (see ``published``) draw the tokens; ``binary`` (the
                token's id), ``random`` and ``float`` (either of them, rotated) are codes (see ``codes``).
            font: see ``load_font``; None means GNU Unifont. ``published`` needs outlines (.otf or .ttf).
            bits: of a token. Drawn: 1024 (32x32) or 4096 (64x64); None means 1024 unless the width needs 4096. Codes:
                None means 1024 random bits, and for ``binary`` as many as the ids need, in whole bytes.
            seed: of layouts ``random`` and ``float``.
            pca: rotate the vectors to their principal components at full width too, as published. The rotation is
                stored in int8, which moves cosines a little (see ``published``); plain bits tell tokens apart as well.
            whiten: ``full`` divides each principal component by its standard deviation, ``partial`` by its root, so
                that all directions of the pictures count alike; None means ``full`` for ``grid`` of 1024 bits,
                else ``none``.
            scale: length of every vector; None means ``sqrt(width) / 4`` where whitened, else 1.

        Raises:
            SubstrateError: bits or width are not allowed, or too small to keep all tokens apart.
        """
        tokens = list_tokens(tokenizer, as_built=True)
        tensors = build_tensors(tokens, width, layout, font, bits, seed, pca, whiten, scale)
        provenance = {
            **tensors.facts,
            "tokenizer_sha256": tokenizer_sha256(tokenizer),
            "package_version": versions().get("frozen-glyph"),
        }
        return cls(tokenizer, tensors.packed_bits, tensors.center, tensors.projection, provenance, tensors.gain)

    @property
    def vocab_size(self) -> int:
        return self.packed_bits.shape[0]

    @property
    def bits(self) -> int:
        return self.center.shape[0]

    @property
    def width(self) -> int:
        if self.projection is not None and self.projection.shape[1] < self.bits:
            return self.projection.shape[1]
        return self.provenance.get("width", self.bits)

    @property
    def scale(self) -> float:
        """Length of every vector."""
        return self.provenance.get("scale", 1.0)

    @property
    def rotated(self) -> bool:
        """Whether a projection keeps the number of bits."""
        return self.projection is not None and self.projection.shape[1] == self.bits

    @property
    def geometry(self) -> dict[str, Any]:
        """The fields of ``FrozenGlyphConfig`` that say how its vectors come from its bits."""
        return {
            "substrate_rotated": self.rotated,
            "substrate_whitened": self.gain is not None,
            "substrate_scale": self.scale,
        }

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors and the tokenizer: experts with the same one can be merged."""
        return self.as_embedding().fingerprint(tokenizer_sha256(self.tokenizer))

    def bitmaps(self, ids: Any) -> np.ndarray:
        """Pictures of tokens, bool [n, height, width]; the bits of a code are laid out as nearly square as they can."""
        rows = self.packed_bits.numpy()[np.asarray(ids, dtype=np.int64)]
        height = max(side for side in range(1, math.isqrt(self.bits) + 1) if self.bits % side == 0)
        return np.unpackbits(rows, axis=1).reshape(-1, height, self.bits // height).astype(bool)

    def reference_vectors(self, ids: Any) -> np.ndarray:
        """Vectors of tokens by the definition, float64 [n, D]: what the model's embedding is tested against."""
        bits = np.unpackbits(self.packed_bits.numpy()[np.asarray(ids, dtype=np.int64)], axis=1)
        y = CENTER_SCALE * bits.astype(np.float64) - self.center.numpy()
        if self.projection is not None:
            y = y @ self.projection.numpy().astype(np.float64)
        if self.gain is not None:
            y = y * self.gain.numpy()
        y = y.repeat(self.width // y.shape[1], axis=1)
        return self.scale * y / np.linalg.norm(y, axis=1, keepdims=True)

    def as_embedding(self) -> FrozenGlyphEmbedding:
        """The torch module that a model uses, holding this substrate."""
        return make_embedding(self.packed_bits, self.center, self.projection, self.width, self.gain, self.scale)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files, ``substrate.safetensors`` and ``substrate.json``, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            self.tokenizer.save_pretrained(temporary)
            for source in sorted(path for path in Path(temporary).rglob("*") if path.is_file()):
                copy_file(source, folder / source.relative_to(temporary))
        tensors = self.as_embedding().state_dict()
        write_tensors(
            folder / SUBSTRATE_SHARD,
            {SUBSTRATE_PREFIX + name: tensor for name, tensor in tensors.items()},
        )
        write_json(folder / SUBSTRATE_FILE, {"fingerprint": self.fingerprint, **self.provenance})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "GlyphSubstrate":
        """Load a folder that ``save_pretrained`` wrote, and check it against its fingerprint.

        Raises:
            FrozenGlyphError: a file is missing, truncated or damaged; the message names it.
        """
        folder = Path(folder)
        provenance = read_record(folder / SUBSTRATE_FILE, StoredSubstrate)
        check_links(folder)
        expected = provenance.pop("fingerprint")
        tensors = read_tensors(inside(folder, SUBSTRATE_SHARD))
        try:
            packed_bits, center = tensors[SUBSTRATE_PREFIX + "packed_bits"], tensors[SUBSTRATE_PREFIX + "center"]
        except KeyError as error:
            raise SubstrateError(
                f"{str(folder / SUBSTRATE_SHARD)!r} has no tensor {error}; write the folder again"
            ) from None
        read_json(folder / TOKENIZER_FILE)  # names the file when it is missing or damaged
        tokenizer = load_tokenizer(folder, local_files_only=True)
        projection, gain = (tensors.get(SUBSTRATE_PREFIX + name) for name in ("projection", "gain"))
        substrate = cls(tokenizer, packed_bits, center, projection, provenance, gain)
        if substrate.fingerprint != expected:
            same_tokenizer = tokenizer_sha256(tokenizer) == provenance["tokenizer_sha256"]
            damaged = folder / (SUBSTRATE_SHARD if same_tokenizer else TOKENIZER_FILE)
            raise SubstrateError(
                f"{str(damaged)!r} is damaged or of another substrate: the folder's fingerprint is "
                f"{substrate.fingerprint}, but {SUBSTRATE_FILE} says {expected}; fetch or write the folder again"
            )
        if substrate.width >= substrate.bits:
            choose_width(substrate.width, substrate.bits)  # the fingerprint does not hold the width
        return substrate
