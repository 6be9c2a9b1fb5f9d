"""Sparse experts: while a merged model writes, only the experts run that the text is of; the others catch up later.

A step of one token runs the experts that hold all but ``active_threshold`` of the weight under the rule, if those are
``active_experts`` at most; else all. Who does not run falls behind, and reads at once what was missed (many tokens at
once take an expert a fraction of the time of as many steps) in a step in which all run, and the rule weighs them as if
all had read every token in its turn. That step comes after ``CATCH_UP_TOKENS``, with any call of several tokens, and as
soon as the text surprises the leading expert, as where another language begins: when the sum of what tokens cost above
the entropy passes a limit (CUSUM, Page 1954, doi 10.1093/biomet/41.1-2.100). In the steps between, the weights
are those after the last step of all, and who does not run counts as one that knows nothing: a token costs at most the
logarithm of the vocabulary's size over the weight left out, whoever writes it.

What this needs is noted in one more layer of the cache, a column for each token, so that beams and cropping treat it
like any other: keys as ``NOTES`` says and then the log weights of the experts, values with the leading expert's state.

Shapes: B batch, T tokens, A experts that run, N experts, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from .configuration_frozen_glyph import FrozenGlyphMoEConfig
from .documents_frozen_glyph import is_prepared
from .head_frozen_glyph import on_device
from .rules_frozen_glyph import SMALLEST, weighted_sum

CATCH_UP_TOKENS = 128
DRIFT, LIMIT = 1.0, 4.0  # nats: what a token may cost above the entropy, and how much more all together
NOTES = ("token", "position", "told", "surprise", "entropy", "normaliser", "leading")
TOKEN, POSITION, TOLD, SURPRISE, ENTROPY, NORMALISER, LEADING = range(len(NOTES))


@dataclass(frozen=True)
class Plan:
    """Who runs, None for all, and the ids [B, T] and positions that they read: before those given what some missed.

    ``surprise`` [B]: see the function of that name; None where all run.
    """

    input_ids: torch.Tensor | None
    position_ids: torch.Tensor | None
    experts: list[int] | None = None
    surprise: torch.Tensor | None = None


class LaggingLayer(DynamicLayer):
    """A layer of a cache that counts its last ``missing`` tokens although it does not hold them."""

    missing = 0

    def get_seq_length(self) -> int:
        return super().get_seq_length() + self.missing

    def crop(self, tokens_to_remove: int) -> None:
        """Remove so many tokens as a negative number says; before transformers 5.24 a positive one says what stays."""
        length = self.get_seq_length()
        removed = min(length, -tokens_to_remove if tokens_to_remove <= 0 else max(0, length - tokens_to_remove))
        held, self.missing = removed - min(removed, self.missing), self.missing - min(removed, self.missing)
        if held:
            super().crop(-held)


def rest(config: FrozenGlyphMoEConfig, cache: Cache, experts: Sequence[int]) -> None:
    """Count one more token in the layers of all but ``experts``, and in that of the rule: nobody has read it there."""
    layers, first = [config.evidence_layer], config.first_own_layer
    for expert, shape in enumerate(config.experts):
        if expert not in experts:
            layers += range(first, first + shape["num_hidden_layers"])
        first += shape["num_hidden_layers"]
    fall_behind(cache, layers)


def fall_behind(cache: Cache, layers: Sequence[int]) -> None:
    """Count one more token in ``layers`` that nobody has read."""
    for index in layers:
        layer: Any = cache.layers[index]
        if not isinstance(layer, LaggingLayer):
            lagging = LaggingLayer()
            lagging.__dict__.update(layer.__dict__)
            cache.layers[index] = layer = lagging
        layer.missing += 1


def plan(
    config: FrozenGlyphMoEConfig,
    head: Any,
    cache: Cache | None,
    input_ids: torch.Tensor | None,
    attention_mask: Any,
    position_ids: torch.Tensor | None,
) -> Plan:
    """Who runs, and what they read; what some have missed is taken out of ``cache``, to be read again by all.

    Raises:
        ValueError: the cache has a fixed size, or a prepared mask or vectors in place of ids follow missed tokens.
    """
    if cache is not None and not isinstance(cache, DynamicCache):
        raise ValueError(
            f"active_experts={config.active_experts} needs a cache that grows, not {type(cache).__name__}: leave "
            "cache_implementation out, or set active_experts to None"
        )
    notes = None if cache is None else notes_in(config, cache)
    if cache is None or notes is None:
        return Plan(input_ids, position_ids)
    layers: Any = cache.layers
    missed: int = getattr(layers[config.evidence_layer], "missing", 0)
    if input_ids is None or is_prepared(attention_mask):
        if missed:
            raise ValueError(
                f"active_experts={config.active_experts}: some experts have {missed} tokens to catch up with, which "
                "needs input_ids and a mask [B, T] or none; give those, or set active_experts to None from the start"
            )
        return Plan(input_ids, position_ids)
    if input_ids.shape[1] == 1 and missed < CATCH_UP_TOKENS:
        excess = surprise(config, head, cache, input_ids)
        experts = who_runs(config, notes[:, -1], excess, position_ids)
        if experts is not None:
            return Plan(input_ids, position_ids, experts, excess)
    if missed:
        told = notes[:, -missed:].to(input_ids.device).long()
        cache.crop(-missed)
        input_ids = torch.cat([told[..., TOKEN], input_ids], dim=1)
        if position_ids is not None:
            position_ids = torch.cat([told[..., POSITION], position_ids.expand(len(told), -1)], dim=1)
    return Plan(input_ids, position_ids)


def kept_of(
    logits_to_keep: int | torch.Tensor, asked: torch.Tensor | None, read: torch.Tensor | None
) -> int | torch.Tensor:
    """``logits_to_keep`` of the ids ``asked`` [B, T], among those ``read`` [B, T'], which may begin before them."""
    if asked is None or read is None or asked.shape[1] == read.shape[1]:
        return logits_to_keep
    if isinstance(logits_to_keep, int):
        return min(logits_to_keep or asked.shape[1], asked.shape[1])
    return logits_to_keep % asked.shape[1] + read.shape[1] - asked.shape[1]


def notes_in(config: FrozenGlyphMoEConfig, cache: Cache) -> torch.Tensor | None:
    """What is noted of the last tokens, [B, K, E]; None if nothing is."""
    layers: Any = cache.layers
    if len(layers) <= config.evidence_layer + 1 or layers[config.evidence_layer + 1].get_seq_length() == 0:
        return None
    return layers[config.evidence_layer + 1].keys[:, 0]


def who_runs(
    config: FrozenGlyphMoEConfig, last_BE: torch.Tensor, excess_B: torch.Tensor, position_ids: torch.Tensor | None
) -> list[int] | None:
    """The experts that hold all but the threshold of each row's weight, by what is noted of the last token.

    None, which is all, if some row needs more than allowed, surprises, begins a document, or nothing is known of it.
    """
    weights, order = last_BE[:, len(NOTES) :].exp().sort(-1, descending=True)
    before = weights.cumsum(-1) - weights
    needed = before < 1 - config.active_threshold
    needed[:, 0] = True
    stays_B = (last_BE[:, TOLD] > 0) & (excess_B <= LIMIT) & (needed.sum(-1) <= (config.active_experts or 0))
    if position_ids is not None:
        stays_B = stays_B & (position_ids.to(stays_B.device) != 0).all(-1)
    runs_N = torch.zeros_like(needed).scatter(1, order, needed).any(0)
    stays, *runs = torch.cat([stays_B.all(0, keepdim=True), runs_N]).tolist()  # once, as asking waits for the device
    experts = [expert for expert, needs in enumerate(runs) if needs]
    return experts if stays and len(experts) < len(runs) else None


def of_experts(numbers: torch.Tensor, experts: Sequence[int], dim: int = -1) -> torch.Tensor:
    """``numbers[experts]`` in dimension ``dim``, without a list that is copied to the device."""
    return torch.stack([numbers.select(dim, expert) for expert in experts], dim)


def surprise(config: FrozenGlyphMoEConfig, head: Any, cache: Cache, input_ids: torch.Tensor) -> torch.Tensor:
    """How much more than it may the text has cost the leading expert, up to and with ``input_ids`` [B, 1]: [B]."""
    layer: Any = cache.layers[config.evidence_layer + 1]
    last, state = layer.keys[:, 0, -1], layer.values[:, 0, -1]
    leading, rows = last[:, LEADING].long(), torch.arange(len(state), device=state.device)
    states = state.new_zeros(len(state), len(config.experts), state.shape[-1])
    states[rows, leading] = state
    logits = head(states.flatten(1).unsqueeze(1), tokens=input_ids.to(state.device))[:, 0]
    cost = last[:, NORMALISER] - logits[rows, leading] - last[:, ENTROPY]
    return (last[:, SURPRISE] + cost - DRIFT).clamp_min(0)


def sparse_logits(
    config: FrozenGlyphMoEConfig, head: Any, states: torch.Tensor, planned: Plan, cache: Cache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, 1, V] of the experts that ran, whose states [B, 1, A * D] these are, and what each of N counts."""
    notes, experts = notes_in(config, cache), planned.experts
    assert notes is not None and experts is not None, "the plan was made by them"
    log_weights = notes[:, -1, len(NOTES) :]
    weights = log_weights.exp()
    logits = [own.float() for own in head(states, apart=True, experts=experts)]
    probabilities = [own.softmax(-1) for own in logits]
    left_out = (1 - of_experts(weights, experts).sum(-1)).clamp_min(SMALLEST).view(-1, 1, 1)
    combined = (
        weighted_sum(probabilities, of_experts(log_weights, experts).unsqueeze(1)) + left_out / logits[0].shape[-1]
    )
    note(config, cache, planned, states, logits, log_weights, experts)
    rest(config, cache, experts)
    return combined.clamp_min(SMALLEST).log(), weights.unsqueeze(1)


def note_all(
    config: FrozenGlyphMoEConfig,
    head: Any,
    states: torch.Tensor,
    planned: Plan,
    cache: Cache,
    weights: torch.Tensor | None,
) -> None:
    """Note what all experts have read, whose states [B, T, N * D] these are; they count ``weights`` [B, N] after it.

    Without weights the next step is one of all experts, too.
    """
    experts: list[int] = [] if weights is None else sorted(set(weights.argmax(-1).tolist()))
    own, logits = states[:, -1:], []
    if experts:
        own = of_experts(own.unflatten(-1, (len(config.experts), -1)), experts, dim=2).flatten(2)
        logits = [each.float() for each in head(own, apart=True, experts=experts)]
    log_weights = states.new_zeros(len(states), len(config.experts)) if weights is None else weights.log()
    note(config, cache, planned, own, logits, log_weights, experts)


def note(
    config: FrozenGlyphMoEConfig,
    cache: Cache,
    planned: Plan,
    states: torch.Tensor,
    logits: list[torch.Tensor],
    log_weights: torch.Tensor,
    experts: list[int],
) -> None:
    """A column for each token of the plan; of the last one what those of ``experts`` say that lead.

    ``states`` [B, 1, A * D] and ``logits``, A of [B, 1, V], are theirs.
    """
    assert planned.input_ids is not None, "rules that read tokens need them"
    batch, device = len(log_weights), log_weights.device
    keys = torch.zeros(batch, planned.input_ids.shape[1], len(NOTES) + log_weights.shape[-1], device=device)
    values = states.new_zeros(batch, planned.input_ids.shape[1], config.expert_size)
    keys[..., TOKEN] = planned.input_ids.to(device).float()
    if planned.position_ids is not None:
        keys[..., POSITION] = planned.position_ids.to(device).float()
    if experts:
        rows, leading = torch.arange(batch, device=device), of_experts(log_weights, experts).argmax(-1)
        own = logits[0][:, -1] if len(experts) == 1 else torch.stack([each[:, -1] for each in logits])[leading, rows]
        log_probs = own.log_softmax(-1)
        last = keys[:, -1]
        last[:, TOLD] = 1
        last[:, NORMALISER] = own[:, 0] - log_probs[:, 0]
        last[:, ENTROPY] = -torch.linalg.vecdot(log_probs.exp(), log_probs)
        last[:, LEADING] = on_device(experts, device)[leading]
        last[:, len(NOTES) :] = log_weights
        if planned.experts is not None and planned.surprise is not None:
            last[:, SURPRISE] = planned.surprise
        values[:, -1] = states[:, -1].unflatten(-1, (len(experts), -1))[rows, leading]
    layers: Any = cache.layers
    while len(layers) <= config.evidence_layer + 1:
        layers.append(DynamicLayer())
    layers[config.evidence_layer + 1].update(keys.unsqueeze(1), values.unsqueeze(1))


__all__ = ["Plan", "kept_of", "note_all", "plan", "rest", "sparse_logits"]
