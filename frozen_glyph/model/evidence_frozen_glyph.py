"""What a merged model knows of the tokens it has read: one more layer of the cache, and what experts count by it.

So beam search, cropping and static caches treat it like any other. The keys hold each token's log-probability under
each expert, whether it counts, the normalisers of the experts' logits, what the token is (0 padding, 1 real, 2 the
first of a document), and the experts' weights after it where the rule makes them of those before. The values hold the
states, from which, with the normalisers, the next token's log-probability follows. A token counts when it and the token
before it are real, that is no padding, and of one document. What is skipped (see ``skimming_frozen_glyph.py``) has
infinite normalisers; the tokens after do not count, and have their logits in place of their log-probabilities.

Shapes: B batch, C tokens of a piece, K tokens in the cache, N experts, R rates.
"""

import torch
from torch import nn
from transformers.cache_utils import Cache

from .configuration_frozen_glyph import FrozenGlyphMoEConfig
from .head_frozen_glyph import on_device
from .rules_frozen_glyph import RULES
from .switching_frozen_glyph import fixed_share, initial_weights


def log_probs_of(
    logits_BCN: torch.Tensor, before_BCM: torch.Tensor, kinds_BC: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of tokens of these kinds and ``logits_BCN``: their log-probabilities, and which of them count (1.0, else 0.0).

    ``before_BCM`` [B, C, N + 1] are the normalisers and kinds of the tokens before them.
    """
    normalisers_BCN, both_BC1 = before_BCM[..., :-1], (before_BCM[..., -1:] > 0) & (kinds_BC.unsqueeze(-1) > 0)
    known_BC1 = normalisers_BCN[..., :1].isfinite()
    log_probs = (logits_BCN - normalisers_BCN.where(known_BC1, 0)).masked_fill(~both_BC1, 0)
    return log_probs, (both_BC1 & known_BC1).squeeze(-1).to(log_probs.dtype)


def switched_weights(
    config: FrozenGlyphMoEConfig,
    log_probs_BCN: torch.Tensor,
    counted_BC: torch.Tensor,
    begins_BC: torch.Tensor,
    before_B1W: torch.Tensor,
) -> torch.Tensor:
    """The part [B, C, W] of the keys that a rule with ``switching_rates`` keeps: zeros are the weights at first."""
    prior, rates = log_prior(config, log_probs_BCN.device), switching_rates(config, log_probs_BCN.device)
    initial = initial_weights(prior, rates)
    before = before_B1W.squeeze(1).unflatten(-1, initial.shape) + initial
    return (fixed_share(log_probs_BCN, counted_BC, begins_BC, before, prior, rates) - initial).flatten(2)


def log_prior(config: FrozenGlyphMoEConfig, device: torch.device) -> torch.Tensor:
    """Logarithms of what each expert counts before any token is read, [N]."""
    return on_device(config.logit_weights, device).log()


def switching_rates(config: FrozenGlyphMoEConfig, device: torch.device) -> torch.Tensor:
    """The rates [R] of a rule that takes them."""
    return on_device(config.switching_rates, device)


def width_of_keys(config: FrozenGlyphMoEConfig) -> int:
    """How many numbers the keys of the evidence layer hold for each token."""
    count, rule = len(config.experts), RULES[config.rule]
    weights = count * len(config.switching_rates) if "switching_rates" in rule.options else 0
    return 2 * count + 2 + weights if rule.reads_tokens else 0


def read_so_far(config: FrozenGlyphMoEConfig, cache: Cache) -> int | torch.Tensor:
    """How many tokens the rule has read, padding included; a tensor in a static cache."""
    return cache.get_seq_length(config.evidence_layer) if config.evidence_layer < len(cache.layers) else 0


def read_nothing(config: FrozenGlyphMoEConfig, cache: Cache, states: torch.Tensor, length: int) -> None:
    """Fill the layer of a rule that reads no tokens: transformers 5.17 crops every layer, and fails on an empty one."""
    nothing = states.new_zeros(states.shape[0], 1, length, 0)
    cache.update(nothing, nothing, config.evidence_layer)


def weights_in(
    config: FrozenGlyphMoEConfig,
    keys_B1KE: torch.Tensor,
    columns_C: torch.Tensor,
    firsts_BC: torch.Tensor | None = None,
) -> torch.Tensor:
    """What each expert counts after each of ``columns_C``, by the keys of the rule's layer: log shares [B, C, N]."""
    count, options, keys_BKE = len(config.experts), RULES[config.rule].options, keys_B1KE[:, 0]
    prior = log_prior(config, keys_BKE.device)
    if "switching_rates" in options:
        initial = initial_weights(prior, switching_rates(config, prior.device))
        weights = keys_BKE.index_select(1, columns_C)[..., 2 * count + 2 :].unflatten(-1, initial.shape) + initial
        return weights.logsumexp(-2)
    window = config.evidence_window if "evidence_window" in options else None
    counted_BK = keys_BKE[..., count]
    evidence = evidence_of(keys_BKE[..., :count] * counted_BK.unsqueeze(-1), counted_BK, columns_C, window, firsts_BC)
    return (prior + evidence).log_softmax(-1)


def evidence_of(
    log_probs_BKN: torch.Tensor,
    counted_BK: torch.Tensor,
    columns_C: torch.Tensor,
    window: int | None = None,
    firsts_BC: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each expert's log-probability of the tokens up to and including each of ``columns_C`` [B, C, N].

    Args:
        log_probs_BKN: of each token under each expert; zero where the token is not ``counted_BK`` (1.0, else 0.0).
        window: how many of the last counted tokens there are in the sum; None: all.
        firsts_BC: the column in which the document begins; its first token is not in the sum. None: that of the text.
    """
    total = widened(log_probs_BKN).cumsum(1)
    known = total.index_select(1, columns_C)
    left_out_BC = None if firsts_BC is None else firsts_BC + 1
    if window is not None:
        counts_BK = counted_BK.cumsum(1)
        # How many columns lie before the window: all those where the count was still so low.
        earlier_BC = torch.searchsorted(counts_BK, counts_BK.index_select(1, columns_C) - window, right=True)
        left_out_BC = earlier_BC if left_out_BC is None else left_out_BC.maximum(earlier_BC)
    if left_out_BC is not None:
        total_before = nn.functional.pad(total, (0, 0, 1, 0))
        known = known - total_before.gather(1, left_out_BC.unsqueeze(-1).expand_as(known))
    return known.to(log_probs_BKN.dtype)


def widened(numbers: torch.Tensor) -> torch.Tensor:
    """In float64 where there is such a type: for what differences of large sums are taken of."""
    return numbers if numbers.device.type == "mps" else numbers.double()


__all__ = [
    "log_prior",
    "log_probs_of",
    "read_nothing",
    "read_so_far",
    "switched_weights",
    "switching_rates",
    "weights_in",
    "widened",
    "width_of_keys",
]
