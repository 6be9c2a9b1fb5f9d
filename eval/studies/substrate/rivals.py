"""Rivals of whitening by the vocabulary, which no recipe offers: the study alone builds them.

``whiten_by_text`` takes centre and components over running text, where a token counts as often as it is read, instead
of over the vocabulary, where each counts once.
"""

import dataclasses

import numpy as np
import torch

from frozen_glyph import GlyphSubstrate
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE
from frozen_glyph.substrate.projection import (
    CHUNK,
    check_exact,
    check_squares,
    first_repeat,
    principal_directions,
    smallest_distance,
    unpack,
    whitened,
)


def weighted_moments(packed_bits: torch.Tensor, weights_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [S] and covariance [S, S] of the bits where each token has a weight, float64; weights sum to one."""
    bits = packed_bits.shape[1] * 8
    mean_S, together_SS = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, len(packed_bits), CHUNK):
        ones = unpack(packed_bits[start : start + CHUNK]).astype(np.float64)
        weights = weights_V[start : start + CHUNK]
        mean_S += weights @ ones
        together_SS += (ones * weights[:, None]).T @ ones
    return mean_S, together_SS - np.outer(mean_S, mean_S)


def whiten_by_text(glyphs: GlyphSubstrate, counts_V: np.ndarray) -> GlyphSubstrate:
    """``glyphs``, fully whitened, with the statistics of a text in which tokens were read ``counts_V`` times.

    One is added to each count, so that all tokens count for something.

    Raises:
        FrozenGlyphError: sums are not exact any more. ValueError: two tokens get the same vector.
    """
    weights = (counts_V + 1) / (counts_V + 1).sum()
    mean_S, covariance_SS = weighted_moments(glyphs.packed_bits, weights)
    center = torch.from_numpy(np.round(CENTER_SCALE * mean_S).astype(np.uint8))
    directions, variances = principal_directions(torch.from_numpy(covariance_SS))
    projection, gain = whitened(directions[:, : glyphs.width], variances, power=1.0)
    check_exact(center, projection)
    found = dataclasses.replace(glyphs, center=center, projection=projection, gain=gain)
    embedding = found.as_embedding()
    check_squares(embedding)
    if repeat := first_repeat(embedding):
        raise ValueError(f"tokens {repeat} get the same vector by the statistics of this text")
    distance = smallest_distance(torch.nn.functional.normalize(embedding.weight))
    return dataclasses.replace(found, provenance=glyphs.provenance | {"smallest_distance": round(distance, 5)})
