"""Experts side by side on one substrate, merged without training (PAPER of arXiv 2507.07129, section on composition).

The base model returns the experts' hidden states side by side [B, T, N * D]; one head of N * D inputs makes the logits.
``mean``: the states are scaled by the expert weights first, so the head's output is the weighted mean of expert logits.
``posterior``: each expert's own logits become probabilities, mixed with weights proportional to prior times the
probability the expert gave to the tokens read so far (Bayesian mixture). The total loss of a sequence exceeds the best
expert's by at most ``-log prior`` nats, which is log N for an equal prior.

Shapes: B batch, T tokens, N experts, D hidden size, V vocabulary.
"""

import functools
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from .modeling_frozen_glyph import (
    CACHE,
    FrozenGlyphBlock,
    FrozenGlyphPreTrainedModel,
    FrozenGlyphRotaryEmbedding,
    make_substrate,
    prepare_blocks,
    slice_logits_to_keep,
)


class FrozenGlyphExpert(nn.Module):
    """One expert's blocks and final norm: vectors [B, T, D] -> hidden states [B, T, D]."""

    def __init__(self, config: FrozenGlyphConfig, first_layer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FrozenGlyphBlock(config, first_layer + index) for index in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rotary_emb = FrozenGlyphRotaryEmbedding(config)

    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states, position_embeddings=position_embeddings, position_ids=position_ids, **kwargs
            )
        return self.norm(hidden_states)


class ExpertHead(nn.Module):
    """One output head for all experts: ``weight`` [V, N * D] holds their heads side by side, ``bias`` [N, V]."""

    def __init__(self, num_experts: int, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.num_experts, self.hidden_size = num_experts, hidden_size
        self.weight = nn.Parameter(torch.empty(vocab_size, num_experts * hidden_size))
        self.bias = nn.Parameter(torch.zeros(num_experts, vocab_size))

    def forward(self, hidden_states: torch.Tensor, expert_weights: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of states [..., N * D] that were already scaled by ``expert_weights`` [N]."""
        return nn.functional.linear(hidden_states, self.weight, expert_weights.to(self.bias.dtype) @ self.bias)

    def expert_logits(self, hidden_states: torch.Tensor, expert: int) -> torch.Tensor:
        """Logits [..., V] of one expert from its own states [..., D]."""
        columns = slice(expert * self.hidden_size, (expert + 1) * self.hidden_size)
        return nn.functional.linear(hidden_states, self.weight[:, columns], self.bias[expert])


class FrozenGlyphMoEPreTrainedModel(FrozenGlyphPreTrainedModel):
    """The strict loading of a single model; everything but the joint head is frozen."""

    config_class = FrozenGlyphMoEConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ExpertHead):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.bias)

    def _get_static_cache_init_shape(self) -> None:
        """Experts and the evidence layer differ in shape, so a static cache takes its shapes from the first update."""
        return None


class FrozenGlyphMoEModel(FrozenGlyphMoEPreTrainedModel):
    """Token ids [B, T] -> the experts' hidden states side by side [B, T, N * D], scaled under the rule ``mean``."""

    def __init__(self, config: FrozenGlyphMoEConfig) -> None:
        super().__init__(config)
        self.embed_tokens = make_substrate(config)
        self.experts = nn.ModuleList()
        first_layer = 0
        for expert_config in config.expert_configs():
            self.experts.append(FrozenGlyphExpert(expert_config, first_layer))
            first_layer += expert_config.num_hidden_layers
        for module in self.modules():
            if hasattr(module, "layer_idx"):
                module.config = config  # attention reads its implementation from the one config users can change
        self.gradient_checkpointing = False
        self.post_init()
        self.apply_freezing()

    def frozen_modules(self) -> list[nn.Module]:
        return [self.embed_tokens, self.experts]

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        hidden_states, shared = prepare_blocks(
            self,
            input_ids,
            attention_mask,
            position_ids,
            past_key_values if cache is None else cache,
            inputs_embeds,
            use_cache,
        )
        states = [expert(hidden_states, **shared, **kwargs) for expert in self.experts]
        if self.config.rule == "mean":
            states = [state * weight for state, weight in zip(states, self.config.expert_weights, strict=True)]
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(states, dim=-1), **{CACHE: shared["cache"]})


class FrozenGlyphMoEForCausalLM(FrozenGlyphMoEPreTrainedModel, GenerationMixin):
    """Token ids [B, T] -> logits [B, T, V] under ``config.rule``."""

    def __init__(self, config: FrozenGlyphMoEConfig) -> None:
        super().__init__(config)
        self.model = FrozenGlyphMoEModel(config)
        self.lm_head = ExpertHead(len(config.experts or []), config.hidden_size, config.vocab_size)
        self.post_init()

    def frozen_modules(self) -> list[nn.Module]:
        return self.model.frozen_modules()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """``labels`` [B, T] are the input ids themselves (shifted inside; -100 is ignored).

        ``past_key_values`` is the name of ``cache`` before transformers 5.24.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states, cache = outputs.last_hidden_state, outputs.get(CACHE)
        if self.config.rule == "mean":
            if cache is not None:  # transformers 5.17 crops every layer of a cache, and fails on one without content
                nothing = states.new_zeros(*states.shape[:1], 1, states.shape[1], 0)
                cache.update(nothing, nothing, self.config.evidence_layer)
            weights = torch.tensor(self.config.expert_weights, device=states.device)
            logits = self.lm_head(slice_logits_to_keep(states, logits_to_keep), weights)
        else:
            logits = self.posterior_logits(states, input_ids, attention_mask, cache, logits_to_keep)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: cache},
        )

    def posterior_logits(
        self,
        states: torch.Tensor,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        logits_to_keep: int | torch.Tensor,
    ) -> torch.Tensor:
        """Log of the mixed probabilities [B, T', V] (T' as ``logits_to_keep`` says).

        The evidence of the tokens already read lives in the cache as one more layer, so that beam search, cropping and
        static caches treat it like any other: keys hold each token's log-probability under each expert [B, 1, T, N];
        values hold each position's states and normalisers, from which the next token's log-probability follows.
        """
        if input_ids is None:
            raise ValueError("rule='posterior' weighs experts by the tokens read: give input_ids, not inputs_embeds")
        num_experts = self.lm_head.num_experts
        logits = [
            self.lm_head.expert_logits(expert_states, expert).float()
            for expert, expert_states in enumerate(states.chunk(num_experts, dim=-1))
        ]
        normaliser_BTN = torch.stack([expert.logsumexp(-1) for expert in logits], dim=-1)
        real_BT1 = real_tokens(input_ids, attention_mask, self.config.pad_token_id).float().unsqueeze(-1)
        here = torch.cat([states.float(), normaliser_BTN, real_BT1], dim=-1)
        before_first, evidence_BN = self.cached_evidence(cache, here)

        before = torch.cat([before_first.unsqueeze(1), here[:, :-1]], dim=1)
        before_states, before_normaliser, before_real = before.split([states.shape[-1], num_experts, 1], dim=-1)
        token_weight = self.lm_head.weight[input_ids].float()
        token_logits = (before_states * token_weight).unflatten(-1, (num_experts, -1)).sum(-1)
        token_logits = token_logits + self.lm_head.bias.T[input_ids].float()
        log_probs_BTN = (token_logits - before_normaliser) * (before_real * real_BT1)
        if cache is not None:
            cache.update(log_probs_BTN.unsqueeze(1), here.unsqueeze(1), self.config.evidence_layer)

        prior_N = torch.tensor(self.config.expert_weights, device=states.device).log()
        log_weights = (prior_N + evidence_BN.unsqueeze(1) + log_probs_BTN.cumsum(1)).log_softmax(-1) - normaliser_BTN
        log_weights = slice_logits_to_keep(log_weights, logits_to_keep)
        weighted = (
            slice_logits_to_keep(expert_logits, logits_to_keep) + log_weights[..., expert, None]
            for expert, expert_logits in enumerate(logits)
        )
        return functools.reduce(torch.logaddexp, weighted)

    def cached_evidence(self, cache: Cache | None, here: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the cache knows of the tokens before ``here`` [B, T, C].

        Returns the last position's entry [B, C] (zeros where there is none, which also marks it as not real) and each
        expert's log-probability of everything read so far [B, N].
        """
        layer = self.config.evidence_layer
        if cache is None or layer >= len(cache.layers) or not cache.layers[layer].is_initialized:
            return torch.zeros_like(here[:, 0]), here.new_zeros(here.shape[0], self.lm_head.num_experts)
        keys, values = cache.layers[layer].keys.to(here.device), cache.layers[layer].values.to(here.device)
        last = torch.as_tensor(cache.get_seq_length(layer), device=here.device).reshape(1) - 1
        return values[:, 0].index_select(1, last).squeeze(1), keys[:, 0].sum(1)


def real_tokens(input_ids: torch.Tensor, attention_mask: Any, pad_token_id: int | None) -> torch.Tensor:
    """Which of ``input_ids`` [B, T] are text, not padding. A prepared 4-d mask tells nothing, the pad id does."""
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        return attention_mask[:, -input_ids.shape[1] :].bool()
    if attention_mask is None or pad_token_id is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad_token_id


__all__ = ["FrozenGlyphMoEForCausalLM", "FrozenGlyphMoEModel"]
