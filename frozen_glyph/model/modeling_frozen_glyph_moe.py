"""Experts side by side on one substrate, merged without training (PAPER of arXiv 2507.07129, section on composition).

The base model returns the experts' hidden states side by side [B, T, N * D]; one head of N * D inputs makes the logits.
Under ``mean`` and ``weighted`` the states are scaled by the expert weights first, so that the head's output is the
weighted sum of expert logits. Under the other rules (see ``rules_frozen_glyph.py``) the head makes each expert's own
logits, for a few positions at a time, and the rule combines them.

Shapes: B batch, T tokens, C tokens of a piece, N experts, D hidden size, V vocabulary.
"""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_frozen_glyph import STATIC_LOGIT_RULES, FrozenGlyphConfig, FrozenGlyphMoEConfig
from .head_frozen_glyph import OutputHead, head_linear
from .loss_frozen_glyph import chunked_causal_loss
from .modeling_frozen_glyph import (
    CACHE,
    FrozenGlyphAttention,
    FrozenGlyphBlock,
    FrozenGlyphPreTrainedModel,
    FrozenGlyphRotaryEmbedding,
    keep_positions,
    make_substrate,
    prepare_blocks,
    run_blocks,
)
from .rules_frozen_glyph import READING_RULES, evidence_of, log_pool, mixture, normalisers

PIECE_TOKENS = 256  # tokens whose logits under every expert exist at one time


class LowRank(nn.Module):
    """x [..., I] -> x @ A^T @ B^T * alpha / rank [..., O] (LoRA, arXiv 2106.09685)."""

    def __init__(self, linear: nn.Linear, lora: dict[str, Any]) -> None:
        super().__init__()
        self.scaling = lora["alpha"] / lora["rank"]
        self.lora_A = nn.Parameter(torch.zeros(lora["rank"], linear.in_features))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, lora["rank"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.lora_A), self.lora_B) * self.scaling


class ExpertAdapters(nn.ModuleDict):
    """What one expert adds to the Linears of one shared block, and the layer of the cache where that leads."""

    def __init__(self, block: FrozenGlyphBlock, lora: dict[str, Any], cache_layer: int) -> None:
        super().__init__(
            {target.replace(".", "_"): LowRank(block.get_submodule(target), lora) for target in lora["targets"]}
        )
        self.cache_layer = cache_layer
        self.keys_by_name = {target.split(".")[1]: target.replace(".", "_") for target in lora["targets"]}

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``y``, which the block's Linear ``name`` made of ``x``, with this expert's term."""
        return y + self[self.keys_by_name[name]](x).to(y.device) if name in self.keys_by_name else y


class FrozenGlyphExpert(nn.Module):
    """One expert's own blocks and final norm: what enters them [B, T, D] -> hidden states [B, T, D]."""

    def __init__(self, config: FrozenGlyphConfig, first_layer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FrozenGlyphBlock(config, first_layer + index) for index in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rotary_emb = FrozenGlyphRotaryEmbedding(config)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.norm(run_blocks(self.layers, self.rotary_emb, hidden_states, **kwargs))


class ExpertHead(nn.Linear):
    """One output head for all experts: ``weight`` [V, N * D] holds their heads side by side, ``bias`` [N, V]."""

    def __init__(self, num_experts: int, hidden_size: int, vocab_size: int) -> None:
        super().__init__(num_experts * hidden_size, vocab_size, bias=False)
        self.num_experts = num_experts
        self.bias = nn.Parameter(torch.zeros(num_experts, vocab_size))

    def joint_bias(self, expert_weights: torch.Tensor) -> torch.Tensor:
        """The bias [V] of all experts together."""
        return expert_weights.to(self.bias.dtype) @ self.bias

    def forward(
        self,
        hidden_states: torch.Tensor,
        expert_weights: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> Any:
        """From states [..., N * D] make, all in this one method, which is where offloaded weights are at hand:

        with ``expert_weights`` [N], by which the states were already scaled: logits [..., V];
        with ``tokens`` [...]: the logits of these tokens alone, float32, under each expert [..., N];
        with neither: the logits of each expert, N of [..., V].
        """
        if expert_weights is not None:
            return head_linear(hidden_states, self.weight, self.joint_bias(expert_weights))
        if tokens is not None:
            products = hidden_states.float() * self.weight[tokens].float()
            return products.unflatten(-1, (self.num_experts, -1)).sum(-1) + self.bias.T[tokens].float()
        parts = hidden_states.chunk(self.num_experts, -1), self.weight.chunk(self.num_experts, 1), self.bias
        return [nn.functional.linear(states, weight, bias) for states, weight, bias in zip(*parts, strict=True)]


class NamedModules(nn.ModuleDict):
    """A ``ModuleList`` whose entries have names of their own."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.values())


class FrozenGlyphMoEPreTrainedModel(FrozenGlyphPreTrainedModel):
    """The strict loading of a single model; everything but the joint head is frozen."""

    config_class = FrozenGlyphMoEConfig

    def _get_static_cache_init_shape(self) -> None:
        """Experts and the evidence layer differ in shape, so a static cache takes its shapes from the first update."""
        return None


class FrozenGlyphMoEModel(FrozenGlyphMoEPreTrainedModel):
    """Token ids [B, T] -> the experts' hidden states side by side [B, T, N * D], scaled where the rule sums logits."""

    def __init__(self, config: FrozenGlyphMoEConfig) -> None:
        super().__init__(config)
        self.embed_tokens = make_substrate(config)
        self.trunk = nn.ModuleList()
        if trunk := config.trunk_config():
            self.trunk.extend(FrozenGlyphBlock(trunk, index) for index in range(config.num_shared_layers))
            self.rotary_emb = FrozenGlyphRotaryEmbedding(trunk)
        self.experts = nn.ModuleList()
        first_layer = config.first_own_layer
        for expert_config in config.expert_configs():
            self.experts.append(FrozenGlyphExpert(expert_config, first_layer))
            first_layer += expert_config.num_hidden_layers
        for turn, index in enumerate(config.trunk_passes):
            if index is not None:
                self.experts[index].adapters = nn.ModuleList(
                    ExpertAdapters(block, config.experts[index]["lora"], turn * config.num_shared_layers + layer)
                    for layer, block in enumerate(self.trunk)
                )
        for module in self.modules():
            if isinstance(module, FrozenGlyphAttention):
                module.config = config  # it reads its implementation from the one config users can change
        self.gradient_checkpointing = False
        self.post_init()
        self.apply_freezing()
        if config.embedding_size is not None:
            self.name_blocks()

    def frozen_modules(self) -> list[nn.Module]:
        return [self.embed_tokens, self.trunk, self.experts]

    def name_blocks(self) -> None:
        """Leave one number in the name of every block, that of its layer in the cache, and say how to divide them.

        vLLM tells layers apart by that number.
        """
        for expert in self.experts:
            blocks: Any = expert.layers
            expert.layers = NamedModules({str(block.self_attn.layer_idx): block for block in blocks})
        self.experts = NamedModules({f"expert_{index}": expert for index, expert in enumerate(self.experts)})
        plan = FrozenGlyphConfig.base_model_tp_plan.items()
        self._tp_plan = {f"experts.*.{name}": style for name, style in plan}
        self._tp_plan |= {name.replace("layers", "trunk"): style for name, style in plan}

    def run_trunk(self, hidden_states: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
        """What enters each expert's own blocks, N of [B, T, D]: the shared blocks run once for all without adapters."""
        if not self.trunk:
            return [hidden_states] * len(self.experts)
        entering = {}
        for index in self.config.trunk_passes:
            adapters = None if index is None else self.experts[index].adapters
            entering[index] = run_blocks(self.trunk, self.rotary_emb, hidden_states, adapters=adapters, **kwargs)
        return [entering[index] if index in entering else entering[None] for index in range(len(self.experts))]

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
        states_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """``states_to_keep``: see ``FrozenGlyphModel``."""
        hidden_states, shared = prepare_blocks(
            self,
            input_ids,
            attention_mask,
            position_ids,
            past_key_values if cache is None else cache,
            inputs_embeds,
            use_cache,
        )
        entering = self.run_trunk(hidden_states, **shared, **kwargs)
        states = [
            expert(states, states_to_keep=states_to_keep, **shared, **kwargs)
            for expert, states in zip(self.experts, entering, strict=True)
        ]
        if self.config.rule in STATIC_LOGIT_RULES and self.config.embedding_size is None:
            states = [state * weight for state, weight in zip(states, self.config.logit_weights, strict=True)]
        states = torch.cat([state.to(hidden_states.device) for state in states], dim=-1)  # experts may live apart
        return BaseModelOutputWithPast(last_hidden_state=states, **{CACHE: shared["cache"]})


class FrozenGlyphMoEForCausalLM(FrozenGlyphMoEPreTrainedModel, GenerationMixin):
    """Token ids [B, T] -> logits [B, T, V] under ``config.rule``."""

    def __init__(self, config: FrozenGlyphMoEConfig) -> None:
        super().__init__(config)
        self.model = FrozenGlyphMoEModel(config)
        if config.embedding_size is None:
            self.lm_head: nn.Module = ExpertHead(len(config.experts or []), config.hidden_size, config.vocab_size)
        else:
            self.lm_head = OutputHead(config.hidden_size, config.vocab_size)
        self.post_init()

    def frozen_modules(self) -> list[nn.Module]:
        return self.model.frozen_modules()

    @torch.no_grad()
    def to_one_head(self) -> "FrozenGlyphMoEForCausalLM":
        """Replace the joint head, in place, by an ordinary ``nn.Linear`` that holds the weights; return the model.

        For servers that run the base model and put a head of their own, of ``config.hidden_size`` inputs and one bias,
        on what it returns (vLLM); the names of the blocks change too, to ones that such servers can count. The logits
        stay the same up to rounding. A model with one head stays as it is.

        Raises:
            ValueError: the rule is no sum over the experts' logits, so that no head can compute it; an expert has
                adapters on the trunk, so that a block attends twice; or experts differ in the number of heads.
        """
        config = self.config
        if config.embedding_size is not None:
            return self
        if config.rule not in STATIC_LOGIT_RULES:
            raise ValueError(
                f"rule={config.rule!r} is no sum of logits, all that one head can do; use mean or weighted"
            )
        if config.trunk_passes != [None]:
            raise ValueError("experts with adapters run shared blocks several times, which servers do not; merge them")
        heads = {expert["num_attention_heads"] for expert in config.experts}
        if len(heads) > 1:
            raise ValueError(
                f"experts differ in num_attention_heads ({sorted(heads)}); servers take one for all blocks"
            )
        weights = torch.tensor(config.logit_weights, device=self.lm_head.weight.device)
        columns = weights.repeat_interleave(config.hidden_size)
        head = OutputHead(*self.lm_head.weight.shape[::-1], device="meta")
        head.weight = nn.Parameter((self.lm_head.weight.float() * columns).to(self.dtype))
        head.bias = nn.Parameter((weights @ self.lm_head.bias.float()).to(self.dtype))
        self.lm_head = head
        self.model.name_blocks()
        config.embedding_size, config.hidden_size = config.hidden_size, columns.numel()
        config.num_attention_heads = heads.pop()
        config.head_dim = config.embedding_size // config.num_attention_heads
        config.num_hidden_layers = config.evidence_layer
        return self

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
        skip_logits: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """``labels`` [B, T] are the input ids themselves (shifted inside; -100 is ignored).

        ``skip_logits``, which needs ``labels`` and the rule ``mean`` or ``weighted``: the same loss without logits,
        which are never whole in memory. ``past_key_values`` is the name of ``cache`` before transformers 5.24.
        """
        rule = self.config.rule
        if skip_logits and labels is None:
            raise ValueError("skip_logits=True needs labels: there is nothing else to compute")
        if skip_logits and rule not in STATIC_LOGIT_RULES:
            raise ValueError(
                f"skip_logits=True needs one of the rules {', '.join(STATIC_LOGIT_RULES)}, where one head makes the "
                f"logits; rule={rule!r} combines each expert's own"
            )
        whole = skip_logits or rule in READING_RULES or self.records_states(kwargs)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            states_to_keep=0 if whole else logits_to_keep,
            **kwargs,
        )
        if not whole:
            logits_to_keep = 0  # the states are those already
        states, cache = outputs.last_hidden_state, outputs.get(CACHE)
        one_head = self.config.embedding_size is not None
        if cache is not None and rule not in READING_RULES and not one_head:
            # transformers 5.17 crops every layer of a cache, and fails on one without content
            length = next(each.shape[1] for each in (input_ids, inputs_embeds) if each is not None)
            nothing = states.new_zeros(states.shape[0], 1, length, 0)
            cache.update(nothing, nothing, self.config.evidence_layer)
        weights = torch.tensor(self.config.logit_weights, device=states.device)
        logits, loss = None, None
        if skip_logits:
            if one_head:
                head, bias = self.lm_head, None
            elif isinstance(self.lm_head, ExpertHead):
                head, bias = self.lm_head, self.lm_head.joint_bias(weights)
            else:
                head, bias = functools.partial(self.lm_head, expert_weights=weights), None
            loss = chunked_causal_loss(states, head, labels, bias=bias, **kwargs)
        elif rule in STATIC_LOGIT_RULES:
            states = keep_positions(states, logits_to_keep)
            logits = self.lm_head(states) if one_head else self.lm_head(states, weights)
        else:
            logits = self.combined_logits(states, input_ids, attention_mask, cache, logits_to_keep)
        if logits is not None and labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: cache},
        )

    def combined_logits(
        self,
        states: torch.Tensor,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        logits_to_keep: int | torch.Tensor,
    ) -> torch.Tensor:
        """Logits [B, T', V], float32, of each expert's own logits (T' as ``logits_to_keep`` says).

        Expert logits exist for one piece of the text at a time, and are combined where they are kept; a piece that is
        not kept is only read: its tokens say how much each expert counts in the later ones.
        """
        rule, reads = self.config.rule, self.config.rule in READING_RULES
        if not isinstance(self.lm_head, ExpertHead):
            raise ValueError(
                f"rule={rule!r} needs each expert's own logits, which an adapter on lm_head mixes; merge the adapter "
                "(merge_and_unload() in peft), or use rule='mean' or 'weighted'"
            )
        if reads and input_ids is None:
            raise ValueError(f"rule={rule!r} weighs experts by the tokens read: give input_ids, not inputs_embeds")
        if reads and cache is None:
            cache = DynamicCache()
        if not reads:
            states, logits_to_keep = keep_positions(states, logits_to_keep), 0
        positions, first_kept = None, 0
        if isinstance(logits_to_keep, torch.Tensor):
            positions = torch.arange(states.shape[1], device=logits_to_keep.device)[logits_to_keep]
            first_kept = min(positions.tolist(), default=0)
        elif logits_to_keep:
            first_kept = max(0, states.shape[1] - logits_to_keep)
        kept = []
        for piece in pieces(states.shape[1], first_kept, max(1, PIECE_TOKENS // states.shape[0])):
            logits = [expert_logits.float() for expert_logits in self.lm_head(states[:, piece])]
            log_weights = torch.tensor(self.config.expert_weights, device=logits[0].device).log()
            log_weights = log_weights.expand(*logits[0].shape[:2], -1)
            if reads:
                real = real_tokens(input_ids, attention_mask, self.config.pad_token_id)[:, piece]
                evidence = self.read(cache, input_ids[:, piece], real, states[:, piece], normalisers(logits))
                log_weights = (log_weights + evidence).log_softmax(-1)
            if piece.start >= first_kept:
                combine = log_pool if rule == "evidence" else mixture
                kept.append(combine(logits, log_weights))
        combined = torch.cat(kept, dim=1) if len(kept) > 1 else kept[0]
        return combined if positions is None else combined[:, positions - first_kept]

    def read(
        self,
        cache: Cache,
        tokens: torch.Tensor,
        real: torch.Tensor,
        states: torch.Tensor,
        normalisers_BCN: torch.Tensor,
    ) -> torch.Tensor:
        """Each expert's evidence [B, C, N] after each of ``tokens``, which follow those already in the ``cache``.

        One more layer of the cache, so that beam search, cropping and static caches treat it like any other: its keys
        hold each token's log-probability under each expert, whether it counts, the normalisers and whether it is real;
        its values hold the states, from which, with the normalisers, the next token's log-probability follows.
        A token counts when it and the token before it are real, that is no padding.
        """
        layer, count, device = self.config.evidence_layer, self.lm_head.num_experts, normalisers_BCN.device
        past, states = cache.get_seq_length(layer) if layer < len(cache.layers) else 0, states.to(device)
        here = torch.cat([normalisers_BCN, real.to(device).unsqueeze(-1)], dim=-1)
        before, before_states = torch.zeros_like(here[:, :1]), torch.zeros_like(states[:, :1])
        if not isinstance(past, int) or past > 0:
            content = cache.layers[layer]
            last = torch.as_tensor(past, device=content.keys.device).reshape(1) - 1
            before = content.keys[:, 0].index_select(1, last.clamp_min(0))[..., count + 1 :].to(device)
            before = before * (last >= 0).to(device)  # a static cache may have been reset
            before_states = content.values[:, 0].index_select(1, last.clamp_min(0)).to(device)
        before = torch.cat([before, here[:, :-1]], dim=1)
        before_states = torch.cat([before_states, states[:, :-1]], dim=1)
        counted_BC1 = before[..., -1:] * here[..., -1:]
        log_probs_BCN = self.lm_head(before_states, tokens=tokens.to(device)) - before[..., :-1]
        log_probs_BCN = log_probs_BCN.masked_fill(counted_BC1 == 0, 0)

        positions = torch.arange(tokens.shape[1], device=device) + past
        keys = torch.cat([log_probs_BCN, counted_BC1, here], dim=-1)
        keys, _ = cache.update(keys.unsqueeze(1), states.unsqueeze(1), layer)
        window = self.config.evidence_window if self.config.rule == "evidence" else None
        known = evidence_of(keys[:, 0, :, :count].to(device), keys[:, 0, :, count].to(device), window)
        return known.index_select(1, positions)


def pieces(length: int, first_kept: int, size: int) -> Iterator[slice]:
    """Cut positions into slices of at most ``size``; one begins at ``first_kept``."""
    for begin, end in ((0, first_kept), (first_kept, length)):
        for start in range(begin, end, size):
            yield slice(start, min(start + size, end))


def real_tokens(input_ids: torch.Tensor, attention_mask: Any, pad_token_id: int | None) -> torch.Tensor:
    """Which of ``input_ids`` [B, T] are text, not padding. A prepared 4-d mask tells nothing, the pad id does."""
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        return attention_mask[:, -input_ids.shape[1] :].bool()
    if attention_mask is None or pad_token_id is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad_token_id


__all__ = ["FrozenGlyphMoEForCausalLM", "FrozenGlyphMoEModel"]
