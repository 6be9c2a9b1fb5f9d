"""Rotary positions (arXiv 2104.09864), whose frequencies are float32 in a model of any dtype.

Shapes: B batch, H heads, T tokens, K head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from .configuration_frozen_glyph import FrozenGlyphConfig


class FrozenGlyphRotaryEmbedding(nn.Module):
    """Position ids [B, T] -> cosines and sines [B, T, K]."""

    inv_freq: torch.Tensor

    def __init__(self, config: FrozenGlyphConfig) -> None:
        super().__init__()
        self.config = config
        # transformers refills these buffers after loading, and finds them by these names.
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        rope: Any = config.rope_parameters
        self.rope_type = rope["rope_type"]
        inv_freq, self.attention_scaling = self.compute(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    def compute(self, config: FrozenGlyphConfig) -> tuple[torch.Tensor, float]:
        """Inverse frequencies [K / 2] and the scaling of the result, of the kind that ``config`` names."""
        return ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)(config)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "FrozenGlyphRotaryEmbedding":
        """Move the frequencies, and keep their float32: rounded, they turn far positions by other angles."""
        before: dict[str, Any] = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, kept in before.items():
            moved: Any = self._buffers[name]
            if kept.is_meta and not moved.is_meta:  # ``to_empty``
                kept = self.compute(self.config)[0]
            self._buffers[name] = kept.to(moved.device)
        return self

    @staticmethod
    def compute_default_rope_parameters(config: FrozenGlyphConfig, **kwargs: Any) -> tuple[torch.Tensor, float]:
        """Inverse frequencies [K / 2] and the scaling of the result, which is 1."""
        head_dim = config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        rope: Any = config.rope_parameters
        return rope["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float32)
        angles = torch.cat((angles, angles), dim=-1)
        scale = self.attention_scaling
        return (angles.cos() * scale).to(x.dtype), (angles.sin() * scale).to(x.dtype)


def rotate(x_BHTK: torch.Tensor, cos_BTK: torch.Tensor, sin_BTK: torch.Tensor) -> torch.Tensor:
    """Rotate each pair (k, k + K / 2) of every head by its position's angle."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos_BTK.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin_BTK.unsqueeze(1)


__all__ = ["FrozenGlyphRotaryEmbedding", "rotate"]
