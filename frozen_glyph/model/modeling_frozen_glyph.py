"""Arrow A: token ids -> frozen glyph vectors -> pre-norm decoder blocks -> logits.

Layout (arXiv 2507.07129; it reproduces every published parameter count): rotary attention without biases, GELU MLP of
4x with biases, LayerNorm, untied head with bias.

Shapes: B batch, T tokens, D hidden size, H heads, K head size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_frozen_glyph import FrozenGlyphConfig
from .documents_frozen_glyph import continues_rows, first_columns, is_prepared
from .embedding_frozen_glyph import FrozenGlyphEmbedding, refuse_wrapper
from .generation_frozen_glyph import CACHE, FrozenGlyphGenerationMixin, warn_of_old_name
from .head_frozen_glyph import OutputHead
from .linear_frozen_glyph import apply_linear_kinds, initialise_linear
from .loss_frozen_glyph import chunked_causal_loss
from .origin_frozen_glyph import initialise_substrate
from .pretrained_frozen_glyph import StrictPreTrainedModel
from .rotary_frozen_glyph import FrozenGlyphRotaryEmbedding, rotate

logger = logging.get_logger(__name__)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain formula, in the interface of ``ALL_ATTENTION_FUNCTIONS``; also returns the attention weights."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def project(module: nn.Module, name: str, x: torch.Tensor, adapters: Any) -> torch.Tensor:
    """The Linear ``name`` of ``module`` applied to x, plus what ``adapters`` add there (see ``ExpertAdapters``)."""
    y = getattr(module, name)(x)
    return y if adapters is None else adapters.add(name, x, y)


class FrozenGlyphAttention(nn.Module):
    """Causal multi-head attention, no biases."""

    is_causal = True

    def __init__(self, config: FrozenGlyphConfig, layer_idx: int) -> None:
        super().__init__()
        self.config: PreTrainedConfig = config  # of the whole model, once it stands
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False) for _ in range(4)
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        cache: Cache | None = None,
        adapters: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape_BT = hidden_states.shape[:-1]
        query, key, value = (
            project(self, name, hidden_states, adapters).view(*shape_BT, -1, self.head_dim).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        if cache is not None:
            layer_idx = self.layer_idx if adapters is None else adapters.cache_layer
            key, value = cache.update(key, value, layer_idx)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return project(self, "o_proj", output.reshape(*shape_BT, -1), adapters), weights


class FrozenGlyphMLP(nn.Module):
    """Two Linears with biases around the activation."""

    def __init__(self, config: FrozenGlyphConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None, "the configuration filled it"
        self.fc_in = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc_out = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, adapters: Any = None) -> torch.Tensor:
        inner = project(self, "fc_in", hidden_states, adapters)
        inner = torch.ops.aten.gelu_(inner) if self.may_overwrite(inner) else self.activation(inner)
        return project(self, "fc_out", inner, adapters)

    def may_overwrite(self, inner: torch.Tensor) -> bool:
        """Whether GELU can be computed in place: on a CPU, fresh memory for its result costs more than GELU itself.

        Not while autograd or a hook may hold what ``fc_in`` returned.
        """
        if inner.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        parts = (*self.fc_in.modules(), self.activation)  # adapters wrap the Linear
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
        return not hooked and getattr(self.activation, "act", None) is nn.functional.gelu  # else other bits


class FrozenGlyphBlock(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    tracks_input = False  # see ``track``

    def __init__(self, config: FrozenGlyphConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = FrozenGlyphAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FrozenGlyphMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        adapters: Any = None,
        states_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> torch.Tensor:
        """[B, T, D] -> [B, T', D]: ``states_to_keep`` of the last block leaves out what no logits are made of."""
        attended = self.self_attn(self.input_layernorm(hidden_states), adapters=adapters, **kwargs)[0]
        hidden_states = keep_positions(hidden_states, states_to_keep) + keep_positions(attended, states_to_keep)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states), adapters=adapters)


class FrozenGlyphPreTrainedModel(StrictPreTrainedModel):
    """What single and merged models share: how they start, and what a frozen substrate allows."""

    config_class: type[PreTrainedConfig] = FrozenGlyphConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["FrozenGlyphBlock"]
    _skip_keys_device_placement = ["cache", "past_key_values", "adapters"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": FrozenGlyphBlock, "attentions": FrozenGlyphAttention}

    def __init__(self, config: Any) -> None:
        config.validate_architecture()  # again: from_pretrained(..., field=value) sets fields of a finished config
        super().__init__(config)
        self.model_tags = ["frozen-glyph"]  # in the card of push_to_hub

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        if getattr(self.config, "linear_kinds", None):
            initialise_linear(module, self.config.initializer_range)
        if isinstance(module, FrozenGlyphEmbedding) or (
            self.config.substrate_dense and isinstance(module, nn.Embedding)
        ):
            initialise_substrate(module, self.config)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        """A new model; its substrate is that of the folder or repository that ``config`` was read from, if any was."""
        model = super()._from_config(config, **kwargs)
        if getattr(config, "num_frozen_layers", 0) and model.device.type != "meta":
            logger.warning_once(
                f"num_frozen_layers={config.num_frozen_layers}: so many blocks are new and do not train; load them, or "
                "set it to 0 to train all."
            )
        return model

    def to_dense(self) -> "FrozenGlyphPreTrainedModel":
        """Replace the substrate, in place, by an ordinary ``nn.Embedding`` of the same vectors; return the model.

        For servers that know no other embedding. Every logit keeps its bits. The table stays frozen, and the
        configuration keeps the fingerprint to say where the vectors came from; it cannot be checked without the bits,
        so a dense model does not dock. A model with an ordinary embedding stays as it is.
        """
        if isinstance(self.substrate, FrozenGlyphEmbedding):
            self.set_input_embeddings(self.substrate.to_dense(self.dtype))
            self.config.substrate_dense = True
        return self

    @staticmethod
    def create_masks_for_generate(
        config: Any, inputs_embeds: torch.Tensor, attention_mask: Any, position_ids: Any = None, **kwargs: Any
    ) -> Any:
        """The mask that ``generate`` prepares for a cache of fixed size: see ``causal_mask``."""
        cache = kwargs.get(CACHE, kwargs.get("past_key_values"))
        return causal_mask(config, inputs_embeds, attention_mask, position_ids, cache)

    def get_submodule(self, target: str) -> nn.Module:
        """As torch's; peft, which knows an embedding by a parameter of it, asks for BERT's name of it first."""
        return self.substrate if target == "embeddings.word_embeddings" else super().get_submodule(target)

    def records_states(self, options: dict[str, Any]) -> bool:
        """Whether the call with these ``options`` returns hidden states, and so those of all positions."""
        return bool(options.get("output_hidden_states") or self.config.output_hidden_states)

    def enable_input_require_grads(self) -> None:
        """Require gradients at the input of the first block that trains; below it there is no backward pass to run."""
        self.track_inputs(True)

    def disable_input_require_grads(self) -> None:
        self.track_inputs(False)

    def track_inputs(self, wanted: bool) -> None:
        for module in self.modules():
            if isinstance(module, FrozenGlyphBlock):
                module.tracks_input = wanted

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, where transformers' own models say it."""
        return self.config.vocab_size

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Refuse: token ids and glyph bits are one frozen object."""
        if new_num_tokens in (None, self.config.vocab_size):
            return self.substrate
        raise ValueError(
            f"cannot resize a frozen substrate from {self.config.vocab_size} to {new_num_tokens} tokens: "
            "give reserved ids the names you need (frozen-glyph substrate name FOLDER NAME), or build a new substrate "
            "and train on that"
        )


def make_substrate(config: Any) -> nn.Module:
    """The token embedding: glyph bits, or an ordinary ``nn.Embedding`` if ``substrate_dense`` or ``_trainable``."""
    width = getattr(config, "expert_size", config.hidden_size)
    if config.substrate_dense or config.substrate_trainable:
        return nn.Embedding(config.vocab_size, width)
    return FrozenGlyphEmbedding(
        config.vocab_size,
        width,
        config.substrate_bits,
        config.substrate_rotated,
        config.substrate_whitened,
        config.substrate_scale,
    )


class FrozenGlyphModel(FrozenGlyphPreTrainedModel):
    """Token ids [B, T] -> hidden states [B, T, D]."""

    def __init__(self, config: FrozenGlyphConfig) -> None:
        super().__init__(config)
        self.embed_tokens = make_substrate(config)
        self.layers = nn.ModuleList(FrozenGlyphBlock(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rotary_emb = FrozenGlyphRotaryEmbedding(config)
        if config.linear_kinds:
            apply_linear_kinds(self, config.linear_kinds)
        self.gradient_checkpointing = False
        self.post_init()
        self.apply_freezing()

    def frozen_modules(self) -> list[nn.Module]:
        trains = self.config.substrate_trainable and self.config.num_frozen_layers == 0  # the baseline's, in stage 1
        substrate = [] if trains else [self.embed_tokens]
        return [*substrate, *self.layers[: self.config.num_frozen_layers]]

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
        prefix_states: torch.Tensor | None = None,
        states_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """``prefix_states`` [B, T, D] is what ``prefix`` returned: the embedding and the frozen blocks are skipped.

        ``states_to_keep``: which of the last hidden states: so many at the end, 0 for all, or those of an index tensor.
        """
        cache = past_key_values if cache is None else cache
        layers: Any = list(self.layers)[: self.config.num_hidden_layers]  # fewer while ``assistant_early_exit`` drafts
        if prefix_states is not None:
            self.check_prefix_states(prefix_states, input_ids, inputs_embeds, cache)
            layers = layers[self.config.num_frozen_layers :]
            input_ids, inputs_embeds, use_cache = None, prefix_states.to(self.dtype), False
        hidden_states, shared = prepare_blocks(
            self, input_ids, attention_mask, position_ids, cache, inputs_embeds, use_cache
        )
        hidden_states = run_blocks(
            layers, self.rotary_emb, hidden_states, states_to_keep=states_to_keep, **shared, **kwargs
        )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **{CACHE: shared["cache"]})

    @torch.no_grad()
    def prefix(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the embedding and the ``config.num_frozen_layers`` frozen blocks make of ``input_ids``: [B, T, D]."""
        hidden_states, shared = prepare_blocks(self, input_ids, attention_mask, position_ids, None, None, False)
        return run_blocks(self.layers[: self.config.num_frozen_layers], self.rotary_emb, hidden_states, **shared)

    def check_prefix_states(
        self,
        prefix_states: torch.Tensor,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        cache: Cache | None,
    ) -> None:
        """Raise ``ValueError`` unless ``prefix_states`` can stand for the frozen blocks of this call."""
        if self.config.num_frozen_layers == 0:
            raise ValueError("prefix_states stand for frozen blocks, but config.num_frozen_layers=0; give input_ids")
        if inputs_embeds is not None or cache is not None:
            other = "inputs_embeds" if inputs_embeds is not None else "a cache of keys and values"
            raise ValueError(f"prefix_states cannot be given together with {other}; leave one of them out")
        shape_BT = prefix_states.shape[:2] if input_ids is None else input_ids.shape
        if prefix_states.shape != (*shape_BT, self.config.hidden_size) or prefix_states.dim() != 3:
            raise ValueError(
                f"prefix_states of shape {tuple(prefix_states.shape)} must be [B, T, D] with [B, T] = "
                f"{tuple(shape_BT)} and D = hidden_size = {self.config.hidden_size}, as prefix() returns them"
            )


def causal_mask(
    config: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
) -> Any:
    """transformers' mask, which tells packed documents apart by ``position_ids``; here beside padding and a cache too.

    ``position_ids`` are those that the caller gave; a mask of four dimensions says all that it says.
    """
    arguments: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids, CACHE: cache}
    plain = is_prepared(attention_mask) or (attention_mask is None and cache is None)
    if position_ids is not None and not plain:
        past = 0 if cache is None else cache.get_seq_length()
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or not continues_rows(attention_mask, position_ids, past):
            firsts: Any = first_columns(attention_mask, position_ids, past, inputs_embeds)
            if traced or firsts.any():
                arguments["and_mask_function"] = lambda batch, head, query, key: key >= firsts[batch, query - past]
    return create_causal_mask(config=config, inputs_embeds=inputs_embeds, **arguments)


def prepare_blocks(
    model: FrozenGlyphPreTrainedModel,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    inputs_embeds: torch.Tensor | None,
    use_cache: bool | None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the vectors [B, T, D] that enter the blocks, and the arguments that all blocks share."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    if model.training and inputs_embeds is None:
        refuse_wrapper(model.substrate)
    vectors = model.substrate(input_ids) if inputs_embeds is None else inputs_embeds
    inputs_embeds = vectors.to(model.dtype)  # the substrate's are float32, whoever looks them up
    mask = causal_mask(model.config, inputs_embeds, attention_mask, position_ids, cache)
    if position_ids is None:
        past = cache.get_seq_length() if cache is not None else 0
        position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past).unsqueeze(0)
    if use_cache and cache is None:
        cache = DynamicCache(config=model.config)
    return inputs_embeds, {
        "attention_mask": mask,
        "position_ids": position_ids,
        "cache": cache,
        "use_cache": use_cache,
    }


def run_blocks(
    blocks: Any,
    rotary_emb: FrozenGlyphRotaryEmbedding,
    hidden_states: torch.Tensor,
    adapters: Any = None,
    states_to_keep: int | torch.Tensor = 0,
    **kwargs: Any,
) -> torch.Tensor:
    """``hidden_states`` [B, T, D] after each of ``blocks`` in turn, with its entry of ``adapters`` if there are any.

    Every block but the last needs all positions; the MLP of the last sees ``states_to_keep`` alone.
    """
    if not blocks:
        return keep_positions(hidden_states, states_to_keep)
    position_embeddings = rotary_emb(hidden_states, kwargs["position_ids"])
    for index, block in enumerate(blocks):
        own = None if adapters is None else adapters[index]
        hidden_states = block(
            track(hidden_states, block, own),
            adapters=own,
            states_to_keep=states_to_keep if index == len(blocks) - 1 else 0,
            position_embeddings=position_embeddings,
            **kwargs,
        )
    return hidden_states


def track(states: torch.Tensor, block: Any, adapters: nn.Module | None) -> torch.Tensor:
    """What enters ``block``, as a leaf that requires gradients where the block is the first that trains.

    Only where something looks for gradients there, as reentrant checkpointing and peft's hooks do.
    """
    wanted = getattr(block, "tracks_input", False) or (
        getattr(block, "gradient_checkpointing", False) and block.training
    )
    is_plain = isinstance(states, torch.Tensor)  # peft's shadow blocks pass a carrier of several
    if not wanted or not is_plain or states.requires_grad or not torch.is_grad_enabled():
        return states
    trained = (part for part in (block, adapters) if part is not None)
    if any(parameter.requires_grad for part in trained for parameter in part.parameters()):
        return states.detach().requires_grad_()
    return states


def keep_positions(states: torch.Tensor, kept: int | torch.Tensor) -> torch.Tensor:
    """The last ``kept`` positions of [B, T, ...], all for 0, or those that an index tensor names."""
    return states[:, -kept:] if isinstance(kept, int) else states[:, kept]


class FrozenGlyphForCausalLM(FrozenGlyphPreTrainedModel, FrozenGlyphGenerationMixin):
    """Token ids [B, T] -> logits [B, T, V]."""

    pipeline_tag = "text-generation"
    can_skip_logits = True
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}  # type: ignore[dict-item]  # so are transformers' own

    def __init__(self, config: FrozenGlyphConfig) -> None:
        super().__init__(config)
        self.model = FrozenGlyphModel(config)
        self.lm_head = OutputHead(config.hidden_size, config.vocab_size)
        self.post_init()

    def frozen_modules(self) -> list[nn.Module]:
        return self.model.frozen_modules()

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
        prefix_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """``labels`` [B, T] are the input ids themselves (shifted inside; -100 is ignored).

        ``skip_logits``, which needs ``labels``: the same loss without logits, which are never whole in memory; with
        ``reduction="none"`` that of each label but the first [B, T - 1], without gradients.
        ``past_key_values`` is the name of ``cache`` before transformers 5.24. ``prefix_states``: see the base model.
        """
        whole = skip_logits or self.records_states(kwargs)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            prefix_states=prefix_states,
            states_to_keep=0 if whole else logits_to_keep,
            **kwargs,
        )
        logits, loss = None, None
        if skip_logits:
            if labels is None:
                raise ValueError("skip_logits=True needs labels: there is nothing else to compute")
            loss = chunked_causal_loss(outputs.last_hidden_state, self.lm_head, labels, **kwargs)
        else:
            states = outputs.last_hidden_state
            logits = self.lm_head(keep_positions(states, logits_to_keep) if whole else states)
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )


__all__ = ["FrozenGlyphForCausalLM", "FrozenGlyphModel", "FrozenGlyphPreTrainedModel"]
