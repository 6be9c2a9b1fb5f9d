"""How a merged model combines its experts' own logits, and weighs the experts by the tokens it has read.

What it knows of them is a layer of the cache (see ``evidence_frozen_glyph.py``).

Shapes: B batch, T tokens, C tokens of a piece, N experts, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from .configuration_frozen_glyph import FrozenGlyphMoEConfig
from .documents_frozen_glyph import first_columns, real_tokens
from .evidence_frozen_glyph import (
    log_prior,
    log_probs_of,
    read_so_far,
    switched_weights,
    weights_in,
    width_of_keys,
)
from .head_frozen_glyph import ExpertHead, on_device
from .modeling_frozen_glyph import keep_positions
from .rules_frozen_glyph import RULES, rules_with
from .skimming_frozen_glyph import catch_up, known_from, normalisers_needed

PIECE_TOKENS = 256  # tokens whose logits under every expert exist at one time
READ_TOKENS = 2048  # tokens read at one time, of which only the logits of the next tokens exist


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

    Expert logits exist for one piece of the text at a time, and only of what is kept; the rest is read: its tokens say
    how much each expert counts.

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
        kinds = real.float()
        if firsts is not None:
            kinds += real & (firsts == torch.arange(firsts.shape[1], device=firsts.device) + past)
        reader = TokenReader(config, head, cache, input_ids, kinds, firsts)
    positions, first_kept = None, 0
    if isinstance(logits_to_keep, torch.Tensor):
        positions = torch.arange(states.shape[1], device=logits_to_keep.device)[logits_to_keep]
        first_kept = min(positions.tolist(), default=0)
    elif logits_to_keep:
        first_kept = max(0, states.shape[1] - logits_to_keep)
    if reader is not None:
        reader.read_unkept(first_kept, states)
    kept, weights = [], []
    for piece in pieces(first_kept, states.shape[1], max(1, PIECE_TOKENS // states.shape[0])):
        logits = [expert_logits.float() for expert_logits in head(states[:, piece], apart=True)]
        if reader is None:
            log_weights = log_prior(config, logits[0].device).expand(*logits[0].shape[:2], -1)
        else:
            log_weights = reader.read(piece, states[:, piece], normalisers(logits))
        kept.append(rule.combine(logits, log_weights))
        weights.append(log_weights.exp())
    combined, counted = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in (kept, weights))
    if positions is None:
        return combined, counted
    return combined[:, positions - first_kept], counted[:, positions - first_kept]


@dataclass
class TokenReader:
    """Reads ``tokens`` [B, T], and keeps what it knows in ``cache``.

    ``kinds`` [B, T] are what they are (see ``evidence_frozen_glyph.py``), ``firsts`` [B, T] the columns in which their
    documents begin, None for one document. ``stand_for`` [T]: for how many tokens each stands, where some are skipped.
    """

    config: FrozenGlyphMoEConfig
    head: ExpertHead
    cache: Cache
    tokens: torch.Tensor
    kinds: torch.Tensor
    firsts: torch.Tensor | None
    stand_for: torch.Tensor | None = None

    def read_unkept(self, end: int, states: torch.Tensor) -> None:
        """Read the tokens before ``end``, of which nobody wants logits: as many as the rule needs."""
        past: Any = read_so_far(self.config, self.cache)
        # A graph cannot ask its numbers what to do, and static caches are for graphs.
        skips = isinstance(self.cache, DynamicCache) and not torch.compiler.is_compiling()
        if skips:
            catch_up(self.config, self.head, self.cache, past)
        if end == 0:
            return
        needed = normalisers_needed(self, states, end) if skips else self.head(states[:, :end], normalisers=True)
        for piece in pieces(0, end, max(1, READ_TOKENS // states.shape[0])):
            self.read(piece, states[:, piece], needed[:, piece])
        if skips:
            known_from(self.config, self.cache, past + end)

    def read(self, piece: slice, states: torch.Tensor, normalisers_BCN: torch.Tensor) -> torch.Tensor:
        """What each expert counts after each token of ``piece``, which follows what is in the cache.

        Logarithms of shares, [B, C, N].
        """
        config, device, count = self.config, normalisers_BCN.device, self.head.num_experts
        tokens, kinds, states = self.tokens[:, piece].to(device), self.kinds[:, piece].to(device), states.to(device)
        past = read_so_far(config, self.cache)
        columns = torch.arange(tokens.shape[1], device=device) + past
        firsts = None if self.firsts is None else self.firsts[:, piece].to(device)
        here = torch.cat([normalisers_BCN, kinds.unsqueeze(-1)], dim=-1)
        before = here.new_zeros(len(here), 1, width_of_keys(config) - count - 1)
        before_states = torch.zeros_like(states[:, :1])
        if not isinstance(past, int) or past > 0:
            content: Any = self.cache.layers[config.evidence_layer]
            place = content.keys.device
            # Filled there, a number is no copy from the host, which would wait for the device.
            read = torch.full((1,), past, device=place) if isinstance(past, int) else past.to(place).reshape(1)
            last = read - 1
            before = content.keys[:, 0].index_select(1, last.clamp_min(0))[..., count + 1 :].to(device)
            before = before * (last >= 0).to(device)  # a static cache may have been reset
            before_states = content.values[:, 0].index_select(1, last.clamp_min(0)).to(device)
        before, weights = before.split([count + 1, before.shape[-1] - count - 1], dim=-1)
        before = torch.cat([before, here[:, :-1]], dim=1)
        before_states = torch.cat([before_states, states[:, :-1]], dim=1)
        log_probs_BCN, counted_BC = log_probs_of(self.head(before_states, tokens=tokens), before, kinds)
        if self.stand_for is not None:
            log_probs_BCN = log_probs_BCN * self.stand_for[piece].unsqueeze(-1)
        if "switching_rates" in RULES[config.rule].options:
            weights = switched_weights(config, log_probs_BCN, counted_BC, kinds == 2, weights)
        parts = log_probs_BCN, counted_BC.unsqueeze(-1), here, weights.expand(*here.shape[:2], -1)
        keys = torch.cat(parts, dim=-1).unsqueeze(1)
        keys, _ = self.cache.update(keys, states.unsqueeze(1), config.evidence_layer)
        return weights_in(config, keys.to(device), columns, firsts)


def weights_after(config: FrozenGlyphMoEConfig, head: Any, cache: Cache) -> torch.Tensor:
    """What each expert counts after each of the K tokens that ``cache`` has read: [B, K, N], of one document.

    So it counts in the prediction of the next one.
    """
    if RULES[config.rule].reads_tokens:
        catch_up(config, head, cache)
    layers: list[Any] = cache.layers
    keys = layers[config.evidence_layer].keys
    columns = torch.arange(int(cache.get_seq_length()), device=keys.device)
    if not RULES[config.rule].reads_tokens:
        return on_device(config.logit_weights, keys.device).expand(len(keys), len(columns), -1)
    return weights_in(config, keys, columns).exp()


def normalisers(logits_NBTV: Sequence[torch.Tensor]) -> torch.Tensor:
    """What is subtracted from an expert's logits to make log-probabilities of them: [B, T, N]."""
    # From any one token; log_softmax is one fused pass, logsumexp several.
    return torch.stack([logits[..., 0] - logits.log_softmax(-1)[..., 0] for logits in logits_NBTV], dim=-1)


def pieces(begin: int, end: int, size: int) -> Iterator[slice]:
    """Cut positions into slices of at most ``size``."""
    for start in range(begin, end, size):
        yield slice(start, min(start + size, end))


__all__ = ["combined_logits", "weights_after"]
