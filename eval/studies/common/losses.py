"""A loss and a difference of losses as every report states them: mean over seeds, 95% interval over text, by seed."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from frozen_glyph.statistics import bootstrap_interval, paired_bootstrap


def loss_of(nats_SB: ArrayLike, characters_B: ArrayLike) -> dict[str, Any]:
    """``loss`` in nats per character with ``low`` and ``high``, and ``by_seed``, of nats [seeds, blocks]."""
    nats, characters = np.asarray(nats_SB, float), np.asarray(characters_B, float)
    low, high = bootstrap_interval(nats.mean(0), characters)
    by_seed = (nats.sum(1) / characters.sum()).tolist()
    return {"loss": sum(by_seed) / len(by_seed), "low": low, "high": high, "by_seed": by_seed}


def difference_of(first_SB: ArrayLike, second_SB: ArrayLike, characters_B: ArrayLike) -> dict[str, Any]:
    """``difference``, second minus first, with ``low``, ``high``, ``p_value`` and ``by_seed``; below zero: the second
    is better. Both are of the same seeds and blocks."""
    first, second, characters = (np.asarray(values, float) for values in (first_SB, second_SB, characters_B))
    by_seed = ((second - first).sum(1) / characters.sum()).tolist()
    return asdict(paired_bootstrap(first.mean(0), second.mean(0), characters)) | {"by_seed": by_seed}
