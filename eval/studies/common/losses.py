"""A loss and a difference of losses as every report states them: over text and over seeds, each with its interval.

An interval over text draws units of text again and keeps the trained models; one over seeds is Student's of the values
by seed. Neither covers what the other does, so both are shown. None stands where too few units or seeds tell of none.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from frozen_glyph.statistics import MIN_RUNS, bootstrap_interval, paired_bootstrap, t_interval
from frozen_glyph.text.loss import TextLoss


def over_seeds(by_seed: Sequence[float]) -> dict[str, Any]:
    """``by_seed`` with Student's interval of their mean, ``seeds_low`` and ``seeds_high``."""
    low, high = t_interval(by_seed) if len(by_seed) >= MIN_RUNS else (None, None)
    return {"by_seed": list(by_seed), "seeds_low": low, "seeds_high": high}


def finite(entry: dict[str, Any]) -> dict[str, Any]:
    """``entry`` with None for what is no number."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()}


def record_of(loss: TextLoss) -> dict[str, Any]:
    """What a run stores of a text: ``nats``, ``characters`` and ``documents`` of its blocks."""
    return {name: getattr(loss, name).tolist() for name in ("nats", "characters", "documents")}


def loss_of(nats_SB: ArrayLike, text: dict[str, Any]) -> dict[str, Any]:
    """``loss`` in nats per character with ``low`` and ``high``, and ``by_seed``, of nats [seeds, blocks].

    ``text`` holds the ``characters`` and ``documents`` of the blocks.
    """
    nats, characters = np.asarray(nats_SB, float), np.asarray(text["characters"], float)
    low, high = bootstrap_interval(nats.mean(0), characters, units=text["documents"])
    by_seed = (nats.sum(1) / characters.sum()).tolist()
    return finite({"loss": sum(by_seed) / len(by_seed), "low": low, "high": high}) | over_seeds(by_seed)


def difference_of(first_SB: ArrayLike, second_SB: ArrayLike, text: dict[str, Any]) -> dict[str, Any]:
    """``difference``, second minus first, with ``low``, ``high``, ``p_value``, ``units`` and ``by_seed``; below zero:
    the second is better. Both are of the same seeds and of the blocks of ``text``."""
    first, second, characters = (np.asarray(values, float) for values in (first_SB, second_SB, text["characters"]))
    by_seed = ((second - first).sum(1) / characters.sum()).tolist()
    return finite(
        asdict(paired_bootstrap(first.mean(0), second.mean(0), characters, units=text["documents"]))
    ) | over_seeds(by_seed)
