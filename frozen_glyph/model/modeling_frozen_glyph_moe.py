"""Experts side by side on one substrate, merged without training (PAPER of arXiv 2507.07129, section on composition).

The base model returns the experts' hidden states side by side [B, T, N * D]; one head of N * D inputs makes the logits.
Under a rule that sums logits (see ``rules_frozen_glyph.py``) the states are scaled by the expert weights first, so that
the head's output is the weighted sum of expert logits. Under the other rules the head makes each expert's own logits,
for a few positions at a time, and the rule combines them (see ``reading_frozen_glyph.py``).

Shapes: B batch, T tokens, N experts, D hidden size, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from .evidence_frozen_glyph import read_nothing
from .generation_frozen_glyph import CACHE, FrozenGlyphGenerationMixin, warn_of_old_name
from .head_frozen_glyph import ExpertHead, OutputHead, head_of_experts, on_device
from .leading_frozen_glyph import ExpertDraft
from .loss_frozen_glyph import chunked_causal_loss
from .modeling_frozen_glyph import (
    FrozenGlyphAttention,
    FrozenGlyphBlock,
    FrozenGlyphPreTrainedModel,
    FrozenGlyphRotaryEmbedding,
    keep_positions,
    make_substrate,
    prepare_blocks,
    run_blocks,
)
from .prefix_frozen_glyph import fit_evidence, fit_heads
from .reading_frozen_glyph import combined_logits, weights_after
from .rules_frozen_glyph import RULES, rules_with
from .scheduling_frozen_glyph import kept_of, note_all, plan, sparse_logits

# In files the biases of all experts are called what a Linear calls its bias.
HEAD_IN_FILES = {r"^lm_head\.bias(?!es)": "lm_head.biases"}

BLOCK_STATES = OutputRecorder(FrozenGlyphBlock)
BLOCK_STATES.num_hidden_layers_key = (
    "evidence_layer"  # how many blocks run; set, as transformers 5.17 takes no such key
)


@dataclass
class MergedOutput(CausalLMOutputWithPast):
    """``expert_weights`` [B, T', N], where asked for: what each expert counts in each of the logits [B, T', V]."""

    expert_weights: torch.Tensor | None = None


class LoraTerm(nn.Module):
    """x [..., I] -> x @ A^T @ B^T * alpha / rank [..., O] (LoRA, arXiv 2106.09685)."""

    def __init__(self, linear: Any, lora: dict[str, Any]) -> None:
        super().__init__()
        self.scaling = lora["alpha"] / lora["rank"]
        self.lora_A = nn.Parameter(torch.zeros(lora["rank"], linear.in_features))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, lora["rank"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.lora_A), self.lora_B) * self.scaling


class ExpertAdapters(nn.ModuleDict):
    """What one expert adds to the Linears of one shared block, and the layer of the cache where that leads."""

    def __init__(self, block: Any, lora: dict[str, Any], cache_layer: int) -> None:
        super().__init__(
            {target.replace(".", "_"): LoraTerm(block.get_submodule(target), lora) for target in lora["targets"]}
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


def divided(blocks: str) -> dict[str, str]:
    """How tensor-parallel processes divide the Linears of ``blocks``: as those of a single model."""
    return {name.replace("layers.*", blocks): style for name, style in FrozenGlyphConfig.base_model_tp_plan.items()}


class NamedModules(nn.ModuleDict):
    """A ``ModuleList`` whose entries have names of their own."""

    def __iter__(self) -> Iterator[nn.Module]:  # type: ignore[override]  # as a ModuleList does, not a ModuleDict
        return iter(self.values())


class FrozenGlyphMoEPreTrainedModel(FrozenGlyphPreTrainedModel):
    """The strict loading of a single model; everything but the joint head is frozen."""

    config_class = FrozenGlyphMoEConfig
    config: FrozenGlyphMoEConfig
    _can_record_outputs = {"hidden_states": BLOCK_STATES, "attentions": FrozenGlyphAttention}

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
        self.experts: Any = nn.ModuleList()
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
        self._tp_plan = divided("experts.*.layers.*")
        if self.trunk and config.trunk_passes == [None]:  # what adapters add is whole in every process
            self._tp_plan |= divided("trunk.*")
        if config.embedding_size is not None:
            self.name_blocks()

    def frozen_modules(self) -> list[nn.Module]:
        return [self.embed_tokens, self.trunk, self.experts]

    def name_blocks(self) -> None:
        """Leave one number in the name of every block, its layer in the cache, by which vLLM tells layers apart."""
        for expert in self.experts:
            blocks: Any = expert.layers
            expert.layers = NamedModules({str(block.self_attn.layer_idx): block for block in blocks})
        self.experts = NamedModules({f"expert_{index}": expert for index, expert in enumerate(self.experts)})

    def run_trunk(self, hidden_states: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
        """What enters each expert's own blocks, N of [B, T, D]: the shared blocks run once for all without adapters."""
        if not self.trunk:
            return [hidden_states] * len(self.experts)
        entering = {}
        for index in self.config.trunk_passes:
            adapters = None if index is None else self.experts[index].adapters
            entering[index] = run_blocks(self.trunk, self.rotary_emb, hidden_states, adapters=adapters, **kwargs)
        return [entering[index] if index in entering else entering[None] for index in range(len(self.experts))]

    @warn_of_old_name
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        states_to_keep: int | torch.Tensor = 0,
        running_experts: list[int] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """``states_to_keep``: see ``FrozenGlyphModel``. ``running_experts``: whose states are made; None: all.

        ``hidden_states``, where asked for: what enters each block, one expert's after another's, then the result.
        """
        fit_heads(self.config, past_key_values if cache is None else cache)
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
            for index, (expert, states) in enumerate(zip(self.experts, entering, strict=True))
            if running_experts is None or index in running_experts
        ]
        if RULES[self.config.rule].one_head and self.config.embedding_size is None:
            states = [state * weight for state, weight in zip(states, self.config.logit_weights, strict=True)]
        side_by_side = torch.cat([state.to(hidden_states.device) for state in states], dim=-1)  # experts may live apart
        return BaseModelOutputWithPast(last_hidden_state=side_by_side, **{CACHE: shared["cache"]})


class FrozenGlyphMoEForCausalLM(FrozenGlyphMoEPreTrainedModel, FrozenGlyphGenerationMixin):
    """Token ids [B, T] -> logits [B, T, V] under ``config.rule``."""

    pipeline_tag = "text-generation"

    def __init__(self, config: FrozenGlyphMoEConfig) -> None:
        super().__init__(config)
        self.model = FrozenGlyphMoEModel(config)
        if config.embedding_size is None:
            self.lm_head: Any = head_of_experts(self.config)
            self._weight_conversions = [WeightRenaming(*each) for each in HEAD_IN_FILES.items()]
        else:
            self.lm_head = OutputHead(config.hidden_size, config.vocab_size)
        self.post_init()

    @property
    def can_skip_logits(self) -> bool:
        """Whether the loss can be had without logits: where one head makes them."""
        return RULES[self.config.rule].one_head

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """See ``StrictPreTrainedModel``."""
        source = pretrained_model_name_or_path
        if cls.given_config(source, kwargs).embedding_size is None:
            kwargs["key_mapping"] = HEAD_IN_FILES | (kwargs.get("key_mapping") or {})
        return super().from_pretrained(source, *model_args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ExpertHead):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.biases)
        else:
            super()._init_weights(module)

    def frozen_modules(self) -> list[nn.Module]:
        return self.model.frozen_modules()

    def expert_draft(self, *inputs: Any) -> ExpertDraft:
        """What ``generate(draft_expert=True)`` drafts with."""
        return ExpertDraft(self, *inputs)

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
        if not RULES[config.rule].one_head:
            raise ValueError(
                f"rule={config.rule!r} is no sum of logits, all that one head can do; "
                f"use {' or '.join(rules_with(one_head=True))}"
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
        head = OutputHead(columns.numel(), config.vocab_size, device="meta")
        head.weight = nn.Parameter((self.lm_head.weight.float() * columns).to(self.dtype))
        head.bias = nn.Parameter((weights @ self.lm_head.biases.float()).to(self.dtype))
        self.lm_head, self._weight_conversions = head, []
        self.model.name_blocks()
        config.embedding_size, config.hidden_size = config.hidden_size, columns.numel()
        config.num_attention_heads = heads.pop()
        config.head_dim = config.embedding_size // config.num_attention_heads
        config.num_hidden_layers = config.evidence_layer
        return self

    @warn_of_old_name
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        past_key_values: Cache | None = None,
        skip_logits: bool = False,
        return_expert_weights: bool = False,
        **kwargs: Any,
    ) -> MergedOutput:
        """``labels`` [B, T] are the input ids themselves (shifted inside; -100 is ignored).

        ``skip_logits``, which needs ``labels`` and a rule that one head computes: the same loss without logits, which
        are never whole in memory. ``return_expert_weights``: see ``MergedOutput``. ``past_key_values`` is the name of
        ``cache`` before transformers 5.24.
        """
        rule = RULES[self.config.rule]
        whole = skip_logits or rule.reads_tokens or self.records_states(kwargs)
        cache = past_key_values if cache is None else cache
        if self.config.embedding_size is None:
            fit_evidence(self.config, cache)
        planned = None
        if self.config.active_experts is not None and "active_experts" in rule.options:
            planned = plan(self.config, self.lm_head, cache, input_ids, attention_mask, position_ids)
            logits_to_keep = kept_of(logits_to_keep, input_ids, planned.input_ids)
            input_ids, position_ids = planned.input_ids, planned.position_ids
        running = None if planned is None else planned.experts
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            states_to_keep=0 if whole else logits_to_keep,
            running_experts=running,
            **kwargs,
        )
        if not whole:
            logits_to_keep = 0  # the states are those already
        states, cache = outputs.last_hidden_state, outputs.get(CACHE)
        one_head = self.config.embedding_size is not None
        if cache is not None and not rule.reads_tokens and not one_head:
            length = next(each.shape[1] for each in (input_ids, inputs_embeds) if each is not None)
            read_nothing(self.config, cache, states, length)
        logits, loss, weights = None, None, None
        if skip_logits:
            loss = self.loss_without_logits(states, labels, **kwargs)
        elif rule.one_head:
            states = keep_positions(states, logits_to_keep)
            logits = self.lm_head(states)
            if return_expert_weights:
                weights = on_device(self.config.logit_weights, logits.device).expand(*logits.shape[:2], -1)
        elif planned is not None and running is not None:
            logits, weights = sparse_logits(self.config, self.lm_head, states, planned, cache)
        else:
            logits, weights = combined_logits(
                self.config, self.lm_head, states, input_ids, attention_mask, position_ids, cache, logits_to_keep
            )
            if planned is not None and cache is not None:
                last = None if isinstance(logits_to_keep, torch.Tensor) else weights[:, -1]
                note_all(self.config, self.lm_head, states, planned, cache, last)
        if logits is not None and labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MergedOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            expert_weights=weights if return_expert_weights else None,
            **{CACHE: cache},
        )

    def expert_weights(self, cache: Cache) -> torch.Tensor:
        """What each expert counts after each of the K tokens that ``cache`` has read, one document: [B, K, N].

        So it counts in the prediction of the next token. While ``generate`` runs, a streamer can ask this of the cache
        that it was given.

        Example: ``model.expert_weights(model(ids, use_cache=True).cache)[:, -1]``
        """
        return weights_after(self.config, self.lm_head, cache)

    @torch.no_grad()
    def generate(self, *args: Any, return_expert_weights: bool = False, **kwargs: Any) -> Any:
        """``generate`` of transformers; ``return_expert_weights`` adds ``expert_weights`` [B, L - 1, N].

        ``[:, t]`` is what each expert counted in the prediction of token ``t + 1`` of the ``sequences`` [B, L]; what
        follows a row's end means nothing.

        Raises:
            ValueError: they are asked for without ``return_dict_in_generate=True`` and a cache, or of beams, of which
                the cache holds others than are returned.
        """
        output = super().generate(*args, **kwargs)
        if not return_expert_weights:
            return output
        cache = None if isinstance(output, torch.Tensor) else output.get(CACHE)
        if cache is None or hasattr(output, "beam_indices"):
            raise ValueError(
                "return_expert_weights=True of generate needs return_dict_in_generate=True, use_cache=True and "
                "num_beams=1; of any sequences model(sequences, return_expert_weights=True) tells them"
            )
        output["expert_weights"] = self.expert_weights(cache)[:, 1 - output.sequences.shape[1] :]
        return output

    def loss_without_logits(self, states: torch.Tensor, labels: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
        """See ``skip_logits`` of ``forward``."""
        if labels is None:
            raise ValueError("skip_logits=True needs labels: there is nothing else to compute")
        rule = RULES[self.config.rule]
        if not rule.one_head:
            raise ValueError(
                f"skip_logits=True needs one of the rules {', '.join(rules_with(one_head=True))}, where one head makes "
                f"the logits; rule={rule.name!r} combines each expert's own"
            )
        return chunked_causal_loss(states, self.lm_head, labels, **kwargs)


__all__ = ["FrozenGlyphMoEForCausalLM", "FrozenGlyphMoEModel", "FrozenGlyphMoEPreTrainedModel"]
