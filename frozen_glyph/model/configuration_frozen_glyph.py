"""Configurations: one stack of blocks over a frozen glyph substrate, and several such experts side by side."""

import math
from dataclasses import field
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters

from .limits_frozen_glyph import (
    check_activation,
    check_dtype,
    check_heads,
    check_ladder,
    check_limits,
    check_rates,
    check_rope,
    check_substrate,
    is_number,
    nearest_of,
    refused_with_value_error,
)
from .rules_frozen_glyph import DEFAULT_RULE, OPTIONS, RULES, rules_with

LINEAR_KINDS = ("matmul", "additive", "adder", "low_rank", "compiled", "fused", "quantized")
LORA_TARGETS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.fc_in",
    "mlp.fc_out",
)
TASKS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


def auto_map(kind: str = "", suffix: str = "") -> dict[str, str]:
    """Where transformers finds, beside a ``config.json``, the classes of single models or, as "MoE", of merged ones."""
    classes, models = f"FrozenGlyph{kind}", f"modeling_frozen_glyph{suffix}.FrozenGlyph{kind}"
    return {
        "AutoConfig": f"configuration_frozen_glyph.{classes}Config",
        "AutoModel": f"{models}Model",
        "AutoModelForCausalLM": f"{models}ForCausalLM",
        **{f"AutoModelFor{task}": f"tasks_frozen_glyph.{classes}For{task}" for task in TASKS},
    }


@refused_with_value_error
@strict
class FrozenGlyphConfig(PreTrainedConfig):
    """Decoder-only transformer over a substrate of ``substrate_bits`` bits a token (layout: PAPER tables, section 2).

    Fields that are this model's own:
        substrate_bits: bits stored for each token. Equal to ``hidden_size``: used as they are; more: projected down
            by a stored integer matrix; fewer: each bit repeated ``hidden_size // substrate_bits`` times.
        substrate_rotated: no more bits than ``hidden_size`` pass through such a matrix too, before any repetition.
        substrate_whitened: each number of a projected vector has a stored factor, its gain.
        substrate_scale: length of a vector.
        substrate_dense: the vectors are stored as a table in an ordinary, frozen ``nn.Embedding`` (see ``to_dense``).
        substrate_trainable: an ordinary ``nn.Embedding`` instead of a substrate (the published baselines).
        substrate_fingerprint, tokenizer_sha256: identity of the substrate, checked at every load; experts dock only
            when it is equal. ``None`` (a model made from a bare configuration) skips the check.
        num_frozen_layers: leading blocks that do not train; re-applied at every load.
        ladder: blocks after each growth stage, for example ``[1, 2, 3]``; a stage that repeats the number before it
            trained the newest blocks on. ``None`` when nothing was grown.
        linear_kinds: what stands in the place of the blocks' Linears, as pairs of a pattern of module names and a kind
            (see ``linear_frozen_glyph.py``), for example ``[["layers.*.mlp.*", "low_rank"]]``. ``None``: Linears.
        transformers_weights: of transformers; the index file of the weights, which the configuration of a folder with
            stages names. Not a field: it is never written by ``save_pretrained``.
    """

    model_type = "frozen_glyph"
    transformers_weights = None
    keys_to_ignore_at_inference: ClassVar = ["cache", "past_key_values"]
    base_model_tp_plan: ClassVar = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.fc_in": "colwise",
        "layers.*.mlp.fc_out": "rowwise",
    }

    vocab_size: int = 65536
    hidden_size: int = 1024
    intermediate_size: int | None = None
    num_hidden_layers: int = 9
    num_attention_heads: int = 32
    hidden_act: str = "gelu"
    max_position_embeddings: int = 1024
    initializer_range: int | float = 0.02
    layer_norm_eps: int | float = 1e-5
    attention_dropout: int | float = 0.0
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    rope_parameters: RopeParameters | dict | None = None
    substrate_bits: int = 1024
    substrate_rotated: bool = False
    substrate_whitened: bool = False
    substrate_scale: int | float = 1.0
    substrate_dense: bool = False
    substrate_trainable: bool = False
    substrate_fingerprint: str | None = None
    tokenizer_sha256: str | None = None
    num_frozen_layers: int = 0
    ladder: list[int] | None = None
    linear_kinds: list[list[str]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_dtype(kwargs.get("torch_dtype", self.dtype))
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
        kwargs["auto_map"] = auto_map() | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raise ``ValueError`` naming the field, its value and what is allowed."""
        check_limits(self)
        check_activation(self.hidden_act)
        check_heads(self)
        rope: Any = self.rope_parameters
        check_rope(rope, self.hidden_size // self.num_attention_heads)
        check_ladder(self.ladder or [])
        check_substrate(self)
        if not 0 < self.substrate_scale < math.inf:
            raise ValueError(f"substrate_scale={self.substrate_scale} must be a positive length of a vector")
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True is not possible: the substrate is frozen and the head trains")
        if not 0 <= self.num_frozen_layers <= self.num_hidden_layers:
            raise ValueError(
                f"num_frozen_layers={self.num_frozen_layers} must lie in 0..num_hidden_layers={self.num_hidden_layers}"
            )
        for pair in self.linear_kinds or []:
            if len(pair) != 2 or pair[1] not in LINEAR_KINDS:
                raise ValueError(
                    f"linear_kinds has {pair!r}; it must have pairs of a pattern of module names, such as 'layers.*', "
                    f"and one of {', '.join(LINEAR_KINDS)}{nearest_of(pair[-1] if pair else '', LINEAR_KINDS)}"
                )

    def stage_layers(self, growth_stage: int) -> tuple[int, int]:
        """Return (blocks, frozen blocks) of stage ``growth_stage``, counted from 1; ``ValueError`` if there is none."""
        ladder = self.ladder or []
        if not 1 <= growth_stage <= len(ladder):
            known = f"1..{len(ladder)}" if ladder else "none: this checkpoint was not grown in stages"
            raise ValueError(f"growth_stage={growth_stage} does not exist; stages here: {known}")
        blocks = ladder[growth_stage - 1]
        return blocks, max((below for below in ladder if below < blocks), default=0)


@refused_with_value_error
@strict
class FrozenGlyphMoEConfig(PreTrainedConfig):
    """Experts on one substrate, merged without training (PAPER section 4).

    Fields that are this model's own:
        experts: for each expert the ``FrozenGlyphConfig`` fields that shape its own blocks (see ``EXPERT_FIELDS``), and
            ``lora``, if the expert changes the shared blocks: ``rank``, ``alpha`` (the low-rank terms are scaled by
            ``alpha / rank``) and ``targets``, some of ``LORA_TARGETS``.
        num_shared_layers: leading blocks that all experts share; each expert's own blocks follow them.
        rule: how the experts' predictions become one: a name of ``RULES`` in ``rules_frozen_glyph.py``.
        expert_weights: any finite numbers where the rule takes any, else non-negative and of sum 1. Default: equal.
        evidence_window: how many tokens ``evidence`` looks back.
        switching_rates: with what probability another expert takes over at a token, under ``fixed_share``; of several,
            each from 0 to 1, the text tells which is right.
        prompt_sample: rules that read tokens read so many of a longer prompt that ``generate`` is given, and estimate
            what experts count after it. None: they read all that counts.
        active_experts, active_threshold: while a text is written under ``fixed_share``, at most so many experts run
            where they hold all of the weight but the threshold (see ``scheduling_frozen_glyph.py``). None: all run.
            Like every option it says nothing to rules that do not take it.
        embedding_size: of a model with one ordinary head (see ``to_one_head``): the width of its token vectors and
            blocks; ``hidden_size`` is then that of what the base model returns, which servers make their head for, and
            the weights of the experts are in the head.
        num_hidden_layers: derived. One for every layer of the cache, because ``generate()`` builds it from this number:
            the shared blocks (once, and once more for every expert with ``lora``), the experts' own, and one layer
            where rules keep what they know of the tokens read, unless there is only one head.
    """

    model_type = "frozen_glyph_moe"
    keys_to_ignore_at_inference: ClassVar = ["cache", "past_key_values"]
    EXPERT_FIELDS: ClassVar = (
        "num_hidden_layers",
        "intermediate_size",
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        "rope_parameters",
        "max_position_embeddings",
    )

    vocab_size: int = 65536
    hidden_size: int = 1024
    embedding_size: int | None = None
    experts: list[dict] = field(default_factory=list)
    expert_names: list[str] | None = None
    expert_weights: list[float] | None = None
    rule: str = DEFAULT_RULE
    evidence_window: int = OPTIONS["evidence_window"]
    switching_rates: list[int | float] = field(default_factory=OPTIONS["switching_rates"].copy)
    prompt_sample: int | None = OPTIONS["prompt_sample"]
    active_experts: int | None = OPTIONS["active_experts"]
    active_threshold: int | float = OPTIONS["active_threshold"]
    num_shared_layers: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 32
    max_position_embeddings: int = 1024
    initializer_range: int | float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    substrate_bits: int = 1024
    substrate_rotated: bool = False
    substrate_whitened: bool = False
    substrate_scale: int | float = 1.0
    substrate_dense: bool = False
    substrate_trainable: bool = False
    substrate_fingerprint: str | None = None
    tokenizer_sha256: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_dtype(kwargs.get("torch_dtype", self.dtype))
        if self.expert_names is None:
            self.expert_names = [f"expert-{index}" for index in range(len(self.experts))]
        if self.expert_weights is None:
            self.expert_weights = [1.0 / len(self.experts)] * len(self.experts) if self.experts else []
        self.num_hidden_layers = self.evidence_layer + (self.embedding_size is None)
        kwargs["auto_map"] = auto_map("MoE", "_moe") | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    @property
    def trunk_passes(self) -> list[int | None]:
        """Who runs the shared blocks, in turn: all experts without adapters at once (None), then each with its own."""
        adapted = [expert.get("lora") is not None for expert in self.experts]
        together: list[int | None] = [] if adapted and all(adapted) else [None]
        return together + [index for index, own in enumerate(adapted) if own]

    @property
    def first_own_layer(self) -> int:
        """Index of the cache layer behind those of the shared blocks."""
        return self.num_shared_layers * len(self.trunk_passes)

    @property
    def evidence_layer(self) -> int:
        """Index of the cache layer behind all blocks."""
        return self.first_own_layer + sum(expert.get("num_hidden_layers", 0) for expert in self.experts)

    @property
    def expert_size(self) -> int:
        """Width of the token vectors and of each expert's blocks."""
        return self.embedding_size or self.hidden_size

    @property
    def logit_weights(self) -> list[float]:
        """What each expert counts under the rule, before any token is read."""
        return RULES[self.rule].weights_of(self.expert_weights or [])

    def expert_configs(self) -> list[FrozenGlyphConfig]:
        """One configuration of its own blocks per expert."""
        return [self.block_config(expert) for expert in self.experts]

    def block_config(self, expert: dict[str, Any], **changes: Any) -> FrozenGlyphConfig:
        """The configuration of blocks shaped as ``expert`` says."""
        shared: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.expert_size,
            "substrate_bits": self.substrate_bits,
        }
        return FrozenGlyphConfig(**shared, **({name: expert[name] for name in self.EXPERT_FIELDS} | changes))

    def trunk_config(self) -> FrozenGlyphConfig | None:
        """The configuration of the shared blocks; None if there are none."""
        if not self.num_shared_layers or not self.experts:
            return None
        return self.block_config(self.experts[0], num_hidden_layers=self.num_shared_layers)

    def validate_architecture(self) -> None:
        """Raise ``ValueError`` naming the field, its value and what is allowed."""
        if self.rule not in RULES:
            raise ValueError(f"rule={self.rule!r} is not known; allowed: {', '.join(RULES)}")
        check_limits(self)
        count = len(self.experts)
        for name, value in (("expert_names", self.expert_names), ("expert_weights", self.expert_weights)):
            if len(value or []) != count:
                raise ValueError(f"{name} has {len(value or [])} entries for {count} experts; give one for each")
        if self.embedding_size is not None:
            self.check_one_head(self.embedding_size, count)
        self.check_weights()
        check_rates(self.switching_rates)
        self.check_active(count)
        for index, expert in enumerate(self.experts):
            self.check_expert(index, expert)

    def check_one_head(self, embedding_size: int, count: int) -> None:
        if not RULES[self.rule].one_head:
            raise ValueError(
                f"rule={self.rule!r} is not possible with one head, which embedding_size says this model has"
            )
        if self.hidden_size != count * embedding_size:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be {count} times embedding_size={embedding_size}, for "
                f"{count} experts with one head"
            )

    def check_active(self, count: int) -> None:
        if self.active_experts is None:
            return
        if not 1 <= self.active_experts <= max(1, count):
            raise ValueError(f"active_experts={self.active_experts} must lie in 1..{count}, the experts, or be None")
        if not 0 <= self.active_threshold < 1:
            raise ValueError(f"active_threshold={self.active_threshold} must be a share of the weight, from 0 to 1")

    def check_weights(self) -> None:
        weights = self.expert_weights or []
        if not all(math.isfinite(weight) for weight in weights):
            raise ValueError(f"expert_weights={weights} must be finite numbers")
        if RULES[self.rule].weights != "any" and weights and (min(weights) < 0 or abs(sum(weights) - 1) > 1e-6):
            raise ValueError(
                f"expert_weights={weights} must be non-negative and sum to 1 under rule={self.rule!r}; "
                f"only rule={' or '.join(map(repr, rules_with(weights='any')))} takes others"
            )

    def check_expert(self, index: int, expert: dict[str, Any]) -> None:
        allowed = ", ".join(sorted(self.EXPERT_FIELDS))
        if set(expert) - {"lora"} != set(self.EXPERT_FIELDS):
            raise ValueError(
                f"experts[{index}] has the fields {', '.join(sorted(expert))}; "
                f"it must have exactly {allowed}, and may have lora"
            )
        if self.num_shared_layers:
            first = self.experts[0]
            for name in self.EXPERT_FIELDS:
                if name != "num_hidden_layers" and expert[name] != first[name]:
                    raise ValueError(
                        f"experts[{index}].{name}={expert[name]!r} differs from {first[name]!r} of experts[0]; "
                        f"experts that share num_shared_layers={self.num_shared_layers} blocks must agree in all but "
                        "num_hidden_layers and lora"
                    )
        try:
            self.block_config(expert)
        except ValueError as error:
            raise ValueError(f"experts[{index}].{error}") from None
        lora = expert.get("lora")
        if lora is None:
            return
        if not self.num_shared_layers:
            raise ValueError(
                f"experts[{index}].lora changes shared blocks, but num_shared_layers=0; merge it into them"
            )
        if set(lora) != {"rank", "alpha", "targets"}:
            raise ValueError(f"experts[{index}].lora has {', '.join(sorted(lora))}; it needs rank, alpha and targets")
        if not isinstance(lora["rank"], int) or lora["rank"] < 1:
            raise ValueError(f"experts[{index}].lora.rank={lora['rank']!r} must be a positive whole number")
        if not is_number(lora["alpha"]):
            raise ValueError(f"experts[{index}].lora.alpha={lora['alpha']!r} must be a finite number")
        if not lora["targets"] or set(lora["targets"]) - set(LORA_TARGETS):
            raise ValueError(
                f"experts[{index}].lora.targets={lora['targets']} must be some of {', '.join(LORA_TARGETS)}"
            )


__all__ = ["LINEAR_KINDS", "LORA_TARGETS", "FrozenGlyphConfig", "FrozenGlyphMoEConfig"]
