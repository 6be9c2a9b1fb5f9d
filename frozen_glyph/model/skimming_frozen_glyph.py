"""Which tokens of a prompt a rule must read, where only what comes after the prompt is wanted; the rest is skipped.

Reading a token costs its state's products with every expert's whole head. ``evidence`` needs no more than its window.
``fixed_share`` forgets: read from the end, weights agree from some token on whoever had spoken before it, and then
what lies before tells nothing. That is tested, not assumed: from each expert alone the same tokens must lead to the
same weights. ``posterior`` needs all. With ``prompt_sample`` a rule reads so many tokens of a longer prompt: half of
them its last, half spread over the rest, each of which stands for its neighbours too; what forgets reads the last ones.

A cache that is cropped into what was skipped is read where it is needed, from the states that it holds.

Shapes: B batch, T tokens, N experts, W numbers of a key.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from .evidence_frozen_glyph import log_prior, log_probs_of, switched_weights, switching_rates, widened
from .rules_frozen_glyph import RULES
from .switching_frozen_glyph import LEAST, fixed_share

LEAST_READ = 32  # tokens read before it is asked whether the weights have forgotten the others; then 4 times as many
FORGOTTEN = 1e-5  # by how much the logarithms of the weights may still differ
NEGLIGIBLE = -50.0  # logarithm of a weight that no longer counts


def normalisers_needed(reader: Any, states: torch.Tensor, end: int) -> torch.Tensor:
    """The normalisers [B, end, N] of the positions before ``end``, infinite where the rule does not need them."""
    config, options = reader.config, RULES[reader.config.rule].options
    sample = config.prompt_sample if config.prompt_sample and config.prompt_sample < end else None
    if "evidence_window" in options:
        begin = begin_of_window(reader.kinds > 0, end, config.evidence_window)
        return of_positions(reader, states, end, max(begin, end - (sample or end)))
    if "switching_rates" in options and sample is None and len(config.switching_rates) == 1:
        return until_forgotten(reader, states, end)
    if "switching_rates" in options or sample is None:
        return of_positions(reader, states, end, end - (sample or end))
    return of_sample(reader, states, end, sample)


def of_positions(reader: Any, states: torch.Tensor, end: int, begin: int) -> torch.Tensor:
    """Those from ``begin`` to ``end``."""
    found = reader.head(states[:, begin:end], normalisers=True)
    return torch.nn.functional.pad(found, (0, 0, begin, 0), value=torch.inf)


def begin_of_window(real_BT: torch.Tensor, end: int, window: int) -> int:
    """The position behind which ``window`` tokens up to ``end`` count in every row; 0 where there are fewer."""
    counts = (real_BT[:, 1 : end + 1] & real_BT[:, :end]).flip(1).cumsum(1)
    return max(0, end - 1 - int((counts < window).sum(1).max()))


def until_forgotten(reader: Any, states: torch.Tensor, end: int) -> torch.Tensor:
    """Those of as many of the last positions as say all that the ones before do."""
    found: list[torch.Tensor] = []
    begin, width = end, LEAST_READ
    while begin:
        first = max(0, end - width)
        found.insert(0, reader.head(states[:, first:begin], normalisers=True))
        begin, width = first, 4 * width
        if begin and forgets(reader, states[:, begin : end - 1], torch.cat(found, dim=1)[:, :-1], slice(begin, end)):
            break
    return torch.nn.functional.pad(torch.cat(found, dim=1), (0, 0, begin, 0), value=torch.inf)


def forgets(reader: Any, states: torch.Tensor, normalisers_BCN: torch.Tensor, part: slice) -> bool:
    """Whether the tokens of ``part`` lead to the same weights from whichever expert is right before them."""
    config, device, count = reader.config, normalisers_BCN.device, normalisers_BCN.shape[-1]
    tokens, kinds = reader.tokens[:, part].to(device), reader.kinds[:, part].to(device)
    before = torch.cat([normalisers_BCN, kinds[:, :-1].unsqueeze(-1)], dim=-1)
    logits = reader.head(states, tokens=tokens[:, 1:])
    log_probs, counted = log_probs_of(logits, before, kinds[:, 1:])
    told = [part.repeat_interleave(count, 0) for part in (widened(log_probs), counted, kinds[:, 1:] == 2)]
    starts = torch.full((count, count), LEAST, device=device, dtype=told[0].dtype).fill_diagonal_(0)
    starts = starts.repeat(len(tokens), 1).unsqueeze(1)
    ends = fixed_share(told[0], told[1], told[2], starts, log_prior(config, device), switching_rates(config, device))
    ends = ends[:, -1].clamp_min(NEGLIGIBLE).view(len(tokens), count, count)
    return bool((ends.amax(1) - ends.amin(1)).max() < FORGOTTEN)


def of_sample(reader: Any, states: torch.Tensor, end: int, sample: int) -> torch.Tensor:
    """Those of half of ``sample`` last positions and of as many before; ``reader.stand_for`` says for how many."""
    rest = end - (sample + 1) // 2
    spread = torch.linspace(0, rest - 1, sample // 2 + 2, device=states.device)[1:-1].round().long()
    chosen = torch.cat([spread, torch.arange(rest, end, device=states.device)])
    found = reader.head(states[:, chosen], normalisers=True)
    reader.stand_for = torch.ones(reader.tokens.shape[1], device=found.device)
    reader.stand_for[spread + 1] = rest / max(1, len(spread))
    whole = found.new_full((len(found), end, found.shape[-1]), torch.inf)
    whole[:, chosen] = found
    return whole


def known_from(config: Any, cache: Cache, length: int) -> None:
    """Note that all is read that weights depend on from ``length`` tokens on."""
    layers: list[Any] = cache.layers
    layers[config.evidence_layer].known_from = length


def catch_up(config: Any, head: Any, cache: Cache, past: int | None = None) -> None:
    """Read, in place, what of a cache of ``past`` tokens was skipped and counts now; without ``past`` all of it."""
    layers: list[Any] = cache.layers
    if past == 0 or config.prompt_sample or not isinstance(cache, DynamicCache):
        return
    layer = layers[config.evidence_layer]
    if past is not None and past >= getattr(layer, "known_from", torch.inf):
        return
    layer.known_from = 0
    count, keys = head.num_experts, layer.keys[:, 0]
    skipped = keys[..., count + 1].isinf().any(0).nonzero().squeeze(1)
    if not len(skipped):
        return
    keys, normalisers = keys.clone(), slice(count + 1, 2 * count + 1)
    keys[:, skipped, normalisers] = head(layer.values[:, 0, skipped], normalisers=True).to(keys.device)
    skipped = skipped[skipped + 1 < keys.shape[1]]
    kinds = keys[:, skipped + 1, 2 * count + 1]
    before = keys[:, skipped, count + 1 : 2 * count + 2]
    log_probs, counted = log_probs_of(keys[:, skipped + 1, :count], before, kinds)
    keys[:, skipped + 1, : count + 1] = torch.cat([log_probs, counted.unsqueeze(-1)], dim=-1)
    if "switching_rates" in RULES[config.rule].options:
        begins, at_first = keys[..., 2 * count + 1] == 2, torch.zeros_like(keys[:, :1, 2 * count + 2 :])
        keys[..., 2 * count + 2 :] = switched_weights(config, keys[..., :count], keys[..., count], begins, at_first)
    layer.keys = keys.unsqueeze(1)


__all__ = ["catch_up", "known_from", "normalisers_needed"]
