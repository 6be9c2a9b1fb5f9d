"""Rivals of whitening by the vocabulary, which no recipe offers: the study alone builds them.

``whiten_by_text`` takes centre and components over running text, where a token counts as often as it is read, instead
of over the vocabulary, where each counts once. ``by_script`` takes them of each script apart, ``outlines`` of pictures
with more bits: both as plain float32 tables, with none of the guarantees of a substrate.

No more bits of layout ``grid`` are tried: its cells are the font's own 16x16, so a larger canvas shows the same of a
token of four characters or fewer, and equal components.
"""

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import torch

from frozen_glyph import GlyphSubstrate
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE
from frozen_glyph.substrate.font import load_outline_font
from frozen_glyph.substrate.projection import (
    CHUNK,
    LARGEST_GAIN,
    check_exact,
    check_squares,
    first_repeat,
    principal_directions,
    smallest_distance,
    unpack,
    whitened,
)
from frozen_glyph.substrate.published import draw_tokens_published
from frozen_glyph.substrate.scripts import script_of
from frozen_glyph.substrate.tokens import Token, list_tokens


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


def whitened_rows(bits_VS: np.ndarray, width: int) -> torch.Tensor:
    """The first ``width`` principal components of the bits divided by their deviation, which counts as no less than a
    ``LARGEST_GAIN``-th of the first one's: what ``whitened`` rounds, in float64 [V, D]."""
    centred_VS = torch.from_numpy(bits_VS.astype(np.float64))
    centred_VS -= centred_VS.mean(dim=0)
    directions, variances = principal_directions(centred_VS.T @ centred_VS / len(centred_VS))
    deviations = variances[:width].sqrt()
    return centred_VS @ directions[:, :width] / deviations.clamp_min(deviations[0] / LARGEST_GAIN)


def as_table(rows_VD: torch.Tensor) -> torch.Tensor:
    """Rows as long as the vectors of a whitened substrate, float32."""
    return (torch.nn.functional.normalize(rows_VD) * math.sqrt(rows_VD.shape[1]) / 4).float()


def main_script(token: Token, scripts: dict[str, str]) -> str:
    """The script of most characters of ``token`` that have one."""
    found = Counter(scripts[character] for character in token.text if token.kind == "text")
    found.pop("Common", None)
    return found.most_common(1)[0][0] if found else "Common"


def by_script(tokenizer: Any, width: int) -> torch.Tensor:
    """Pictures of layout ``grid``, each script with more than ``width`` tokens whitened by itself, the rest by all."""
    bits_VS = unpack(GlyphSubstrate.build(tokenizer, width, "grid").packed_bits)
    tokens = list_tokens(tokenizer)
    scripts = script_of("".join(token.text for token in tokens))
    script_V = np.array([main_script(token, scripts) for token in tokens])
    rows_VD = whitened_rows(bits_VS, width)
    for script, count in Counter(script_V.tolist()).items():
        if count > width and script != "Common":
            rows_VD[script_V == script] = whitened_rows(bits_VS[script_V == script], width)
    return as_table(rows_VD)


def outlines(tokenizer: Any, width: int, side: int) -> torch.Tensor:
    """Pictures as published, of ``side`` x ``side`` pixels, whitened; some tokens look alike, as there."""
    bitmaps = draw_tokens_published(list_tokens(tokenizer), load_outline_font(), side)
    return as_table(whitened_rows(bitmaps.reshape(len(bitmaps), -1), width))
