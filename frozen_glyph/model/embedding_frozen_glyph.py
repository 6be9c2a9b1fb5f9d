"""The frozen substrate: packed glyph bits that become token vectors at lookup, exactly the same in every batch.

Everything stored is an integer, so no dtype change can touch it. A token's vector is ``scale * y / |y|`` with
``y = gain * ((16 * bits - center) @ projection)``: all sums stay below 2**24, hence exact in float32 in any order of
summation, and a gain is a power of two, which changes no digit.
Source of the substrate: arXiv 2507.04886 (glyph bitmaps, centred, rotated, L2-normalised).

Shapes: B batch, T tokens, V vocabulary, S substrate bits, D hidden size.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

CENTER_SCALE = 16
NO_BITS = 255  # a centre that no bits have: these are still to come


def substrate_fingerprint(
    packed_bits: torch.Tensor,
    center: torch.Tensor,
    projection: torch.Tensor | None,
    tokenizer_sha256: str | None,
    gain: torch.Tensor | None = None,
    scale: float = 1.0,
) -> str:
    """Identity of a substrate and its tokenizer: at one width, equal when every token has the same id and vector.

    Args:
        packed_bits: uint8 [V, S // 8]. center: uint8 [S]. projection: int8 [S, min(S, D)] or None.
        gain: int32 [min(S, D)] or None. scale: length of a vector.
    """

    def digest(tensor: torch.Tensor | None) -> str | None:
        if tensor is None:
            return None
        return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()

    parts = {
        "bits": digest(packed_bits),
        "center": digest(center),
        "projection": digest(projection),
        "normalization": "l2",
        "tokenizer": tokenizer_sha256,
        **({"gain": digest(gain)} if gain is not None else {}),
        **({"scale": float(scale)} if scale != 1 else {}),
    }
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class FrozenGlyphEmbedding(nn.Module):
    """Token ids [B, T] -> vectors of length ``scale`` [B, T, D], float32, from ``substrate_bits`` packed bits a token.

    Never trained.

    ``substrate_bits`` above ``hidden_size`` are projected, below it repeated (each one ``D // S`` times in a row); no
    more than ``hidden_size`` are used as they are, or when ``rotated`` projected too, to as many numbers. ``whitened``:
    each number that a projection gives is multiplied by its ``gain``.

    Bits come from outside, by a load or from ``initialise_substrate``. Until then every use raises ``ValueError``, and
    is NaN in compiled graphs, where nothing can be raised.
    """

    packed_bits: torch.Tensor
    center: torch.Tensor
    projection: torch.Tensor | None
    gain: torch.Tensor | None

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        substrate_bits: int,
        rotated: bool = False,
        whitened: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.substrate_bits = vocab_size, hidden_size, substrate_bits
        self.register_buffer("packed_bits", torch.zeros(vocab_size, substrate_bits // 8, dtype=torch.uint8))
        self.register_buffer("center", torch.full((substrate_bits,), NO_BITS, dtype=torch.uint8))
        projected = rotated or substrate_bits > hidden_size
        shape = substrate_bits, min(substrate_bits, hidden_size)
        self.register_buffer("projection", torch.zeros(shape, dtype=torch.int8) if projected else None)
        self.register_buffer("gain", torch.zeros(shape[1], dtype=torch.int32) if whitened else None)
        self.scale = scale
        self.table: torch.Tensor | None = None  # no buffer: accelerate, offloading buffers, stumbles over empty ones
        self.seen = False  # whether bits were found to be there, which a GPU would have to be asked each time

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        if self.table is not None:
            return nn.functional.embedding(input_ids, self.table)
        if input_ids.shape[-1] == 1 or input_ids.device.type != "cpu" or torch.compiler.is_compiling():
            return self.compute(input_ids)
        # Text repeats its tokens: each is computed once. A GPU would have to wait for the count of them.
        unique_ids, places = input_ids.unique(return_inverse=True)
        return nn.functional.embedding(places, self.compute(unique_ids))

    @torch.no_grad()
    def compute(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Vectors of ``input_ids`` from the bits, whatever autocast says."""
        self.check_bits()
        with torch.autocast(device_type=input_ids.device.type, enabled=False):
            y = self.integers(input_ids)
            # Squares of large integers need float64 to stay exact; Apple's GPU has none and rounds in float32.
            wide = y if y.device.type == "mps" else y.double()
            norm = wide.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
            return y / norm.float() * self.scale

    def integers(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The vectors before their lengths are made equal: whole numbers, in float32."""
        # Masks rather than shifts of bytes, which ONNX does not have.
        masks = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8, device=input_ids.device)
        bits = (self.packed_bits[input_ids].unsqueeze(-1) & masks) / masks
        center = self.center.float().masked_fill(self.center == NO_BITS, torch.nan)
        y = CENTER_SCALE * bits.flatten(-2).float() - center
        if self.projection is not None:
            y = y @ self.projection.float()
        if self.gain is not None:
            y = y * self.gain.float()
        if self.substrate_bits < self.embedding_dim:
            y = y.repeat_interleave(self.embedding_dim // self.substrate_bits, dim=-1)
        return y

    @property
    def has_bits(self) -> bool:
        """Whether there are bits; a substrate on the meta device has none that can be used."""
        return not self.center.is_meta and bool(self.center[0] != NO_BITS)

    def check_bits(self) -> None:
        """Raise ``ValueError`` while there are no bits."""
        if self.seen or torch.compiler.is_compiling() or self.center.is_meta:
            return
        self.seen = self.has_bits
        if not self.seen:
            raise ValueError(
                "this substrate has no bits, because its model was made from a configuration alone; load the model by "
                "from_pretrained, take the configuration from a checkpoint's folder, or give it bits: "
                "model.substrate.load_state_dict(GlyphSubstrate.from_pretrained(FOLDER).as_embedding().state_dict())"
            )

    @torch.no_grad()
    def materialize(self) -> None:
        """Compute all vectors once and look them up from then on: V * D * 4 bytes for speed, the same values."""
        self.table = self.weight

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "FrozenGlyphEmbedding":
        """Move the bits, which nothing changes: ``to_empty`` leaves them, or none where there were none.

        A materialised table is computed anew, because a cast to half precision and back would round it.
        """
        materialized, self.table, self.seen = self.table is not None, None, False
        before: dict[str, Any] = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, kept in before.items():
            moved: Any = self._buffers[name]
            if not kept.is_meta:
                self._buffers[name] = kept.to(moved.device)
            elif not moved.is_meta:
                moved.fill_(NO_BITS if name == "center" else 0)
        if materialized and not self.packed_bits.is_meta:
            self.materialize()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.seen = False
        super()._load_from_state_dict(*args, **kwargs)

    @property
    def weight(self) -> torch.Tensor:
        """All vectors, [V, D] float32."""
        if self.table is not None:
            return self.table
        ids = torch.arange(self.num_embeddings, device=self.packed_bits.device)
        return torch.cat([self.compute(chunk) for chunk in ids.split(8192)])

    def to_dense(self, dtype: torch.dtype = torch.float32) -> nn.Embedding:
        """All vectors as the table of an ordinary ``nn.Embedding`` that does not train."""
        return nn.Embedding.from_pretrained(self.weight.to(dtype), freeze=True)

    def fingerprint(self, tokenizer_sha256: str | None) -> str:
        """See ``substrate_fingerprint``."""
        self.check_bits()
        return substrate_fingerprint(
            self.packed_bits, self.center, self.projection, tokenizer_sha256, self.gain, self.scale
        )

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, substrate_bits={self.substrate_bits}"


def refuse_wrapper(substrate: nn.Module) -> None:
    """Raise ``ValueError`` where peft is around glyph bits to train them: no step could change a bit."""
    wrapped = (getattr(substrate, name, None) for name in ("original_module", "base_layer"))
    if any(isinstance(module, FrozenGlyphEmbedding) for module in wrapped):
        raise ValueError(
            "an adapter (modules_to_save or trainable_token_indices) is around the token embedding, and glyph bits do "
            "not train; leave it out, or call model.to_dense() before the adapter is added"
        )


__all__ = ["CENTER_SCALE", "NO_BITS", "FrozenGlyphEmbedding", "refuse_wrapper", "substrate_fingerprint"]
