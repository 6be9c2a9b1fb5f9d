"""How a merged model combines its experts' own logits, and weighs the experts by the tokens it has read.

What it knows of them is one more layer of the cache, so that beam search, cropping and static caches treat it like any
other: the keys hold each token's log-probability under each expert, whether it counts, the normalisers of the experts'
logits, whether the token is real, and the experts' weights after it where the rule makes them of those before; the
values hold the states, from which, with the normalisers, the next token's log-probability follows. A token counts when
it and the token before it are real, that is no padding, and of one document.

Shapes: B batch, T tokens, C tokens of a piece, N experts, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache

from .configuration_frozen_glyph import FrozenGlyphMoEConfig
from .documents_frozen_glyph import first_columns, real_tokens
from .head_frozen_glyph import ExpertHead
from .modeling_frozen_glyph import keep_positions
from .rules_frozen_glyph import RULES, rules_with
from .switching_frozen_glyph import fixed_share, initial_weights

PIECE_TOKENS = 256  # tokens whose logits under every expert exist at one time


def combined_logits(
    config: FrozenGlyphMoEConfig,
    head: Any,
    states: torch.Tensor,
    input_ids: torch.Tensor | None,
    attention_mask: Any,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    logits_to_keep: int | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, T', V], float32, of each expert's own logits, and what each counts in them [B, T', N].

    T' is as ``logits_to_keep`` says.

    Expert logits exist for one piece of the text at a time, and are combined where they are kept; a piece that is not
    kept is only read: its tokens say how much each expert counts in the later ones.

    Raises:
        ValueError: an adapter on ``head`` mixes the experts' logits, or the rule reads tokens and there are none.
    """
    rule = RULES[config.rule]
    assert rule.combine is not None, "one head makes these logits"
    if not hasattr(head, "num_experts"):
        raise ValueError(
            f"rule={rule.name!r} needs each expert's own logits, which an adapter on lm_head mixes; merge the adapter "
            f"(merge_and_unload() in peft), or use rule={' or '.join(map(repr, rules_with(one_head=True)))}"
        )
    if not rule.reads_tokens:
        states, logits_to_keep = keep_positions(states, logits_to_keep), 0
        reader = None
    elif input_ids is None:
        raise ValueError(f"rule={rule.name!r} weighs experts by the tokens read: give input_ids, not inputs_embeds")
    else:
        cache = DynamicCache() if cache is None else cache
        past = read_so_far(config, cache)
        real = real_tokens(attention_mask, past, input_ids)
        firsts = first_columns(attention_mask, position_ids, past, input_ids)
        reader = TokenReader(config, head, cache, input_ids, real, firsts)
    positions, first_kept = None, 0
    if isinstance(logits_to_keep, torch.Tensor):
        positions = torch.arange(states.shape[1], device=logits_to_keep.device)[logits_to_keep]
        first_kept = min(positions.tolist(), default=0)
    elif logits_to_keep:
        first_kept = max(0, states.shape[1] - logits_to_keep)
    kept, weights = [], []
    for piece in pieces(states.shape[1], first_kept, max(1, PIECE_TOKENS // states.shape[0])):
        logits = [expert_logits.float() for expert_logits in head(states[:, piece], apart=True)]
        if reader is None:
            log_weights = log_prior(config, logits[0].device).expand(*logits[0].shape[:2], -1)
        else:
            log_weights = reader.read(piece, states[:, piece], normalisers(logits))
        if piece.start >= first_kept:
            kept.append(rule.combine(logits, log_weights))
            weights.append(log_weights.exp())
    combined, counted = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in (kept, weights))
    if positions is None:
        return combined, counted
    return combined[:, positions - first_kept], counted[:, positions - first_kept]


@dataclass
class TokenReader:
    """Reads ``tokens`` [B, T], of which the ``real`` [B, T] are no padding, and keeps what it knows in ``cache``.

    ``firsts`` [B, T] are the columns in which their documents begin, None for one document.
    """

    config: FrozenGlyphMoEConfig
    head: ExpertHead
    cache: Cache
    tokens: torch.Tensor
    real: torch.Tensor
    firsts: torch.Tensor | None = None

    def read(self, piece: slice, states: torch.Tensor, normalisers_BCN: torch.Tensor) -> torch.Tensor:
        """What each expert counts after each token of ``piece``, which follows what is in the cache: logarithms of
        shares, [B, C, N]."""
        config, layer, device = self.config, self.config.evidence_layer, normalisers_BCN.device
        count = self.head.num_experts
        tokens, real, states = self.tokens[:, piece].to(device), self.real[:, piece].to(device), states.to(device)
        past = read_so_far(config, self.cache)
        here = torch.cat([normalisers_BCN, real.unsqueeze(-1)], dim=-1)
        before = here.new_zeros(len(here), 1, width_of_keys(config) - count - 1)
        before_states = torch.zeros_like(states[:, :1])
        if not isinstance(past, int) or past > 0:
            content: Any = self.cache.layers[layer]
            last = torch.as_tensor(past, device=content.keys.device).reshape(1) - 1
            before = content.keys[:, 0].index_select(1, last.clamp_min(0))[..., count + 1 :].to(device)
            before = before * (last >= 0).to(device)  # a static cache may have been reset
            before_states = content.values[:, 0].index_select(1, last.clamp_min(0)).to(device)
        before, weights_before = before.split([count + 1, before.shape[-1] - count - 1], dim=-1)
        before = torch.cat([before, here[:, :-1]], dim=1)
        before_states = torch.cat([before_states, states[:, :-1]], dim=1)
        counted_BC1 = before[..., -1:] * here[..., -1:]
        log_probs_BCN = self.head(before_states, tokens=tokens) - before[..., :-1]
        log_probs_BCN = log_probs_BCN.masked_fill(counted_BC1 == 0, 0)

        columns = torch.arange(tokens.shape[1], device=device) + past
        firsts = None if self.firsts is None else self.firsts[:, piece].to(device)
        weights = weights_before
        if "switching_rates" in RULES[config.rule].options:
            initial = initial_weights(log_prior(config, device), switching_rates(config, device))
            begins = None if firsts is None else firsts == columns
            before = weights_before.unflatten(-1, initial.shape).squeeze(1) + initial
            rates = switching_rates(config, device)
            told = fixed_share(log_probs_BCN, counted_BC1.squeeze(-1), begins, before, log_prior(config, device), rates)
            weights = (told - initial).flatten(2)  # zeros are those before any token
        keys = torch.cat([log_probs_BCN, counted_BC1, here, weights.expand(*here.shape[:2], -1)], dim=-1)
        keys, _ = self.cache.update(keys.unsqueeze(1), states.unsqueeze(1), layer)
        return weights_in(config, keys.to(device), columns, firsts)


def log_prior(config: FrozenGlyphMoEConfig, device: torch.device) -> torch.Tensor:
    """Logarithms of what each expert counts before any token is read, [N]."""
    return torch.tensor(config.logit_weights, device=device).log()


def switching_rates(config: FrozenGlyphMoEConfig, device: torch.device) -> torch.Tensor:
    """The rates [R] of a rule that takes them."""
    return torch.tensor(config.switching_rates, device=device)


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
    evidence = evidence_of(keys_BKE[..., :count], keys_BKE[..., count], columns_C, window, firsts_BC)
    return (prior + evidence).log_softmax(-1)


def weights_after(config: FrozenGlyphMoEConfig, cache: Cache) -> torch.Tensor:
    """What each expert counts after each of the K tokens that ``cache`` has read: [B, K, N], of one document.

    So it counts in the prediction of the next one.
    """
    layers: list[Any] = cache.layers
    keys = layers[config.evidence_layer].keys
    columns = torch.arange(int(cache.get_seq_length()), device=keys.device)
    if not RULES[config.rule].reads_tokens:
        return torch.tensor(config.logit_weights, device=keys.device).expand(len(keys), len(columns), -1)
    return weights_in(config, keys, columns).exp()


def normalisers(logits_NBTV: Sequence[torch.Tensor]) -> torch.Tensor:
    """What is subtracted from an expert's logits to make log-probabilities of them: [B, T, N]."""
    # From any one token; log_softmax is one fused pass, logsumexp several.
    return torch.stack([logits[..., 0] - logits.log_softmax(-1)[..., 0] for logits in logits_NBTV], dim=-1)


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
    wide = log_probs_BKN if log_probs_BKN.device.type == "mps" else log_probs_BKN.double()  # differences of large sums
    total = wide.cumsum(1)
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


def pieces(length: int, first_kept: int, size: int) -> Iterator[slice]:
    """Cut positions into slices of at most ``size``; one begins at ``first_kept``."""
    for begin, end in ((0, first_kept), (first_kept, length)):
        for start in range(begin, end, size):
            yield slice(start, min(start + size, end))


__all__ = ["combined_logits", "read_nothing", "weights_after", "width_of_keys"]
