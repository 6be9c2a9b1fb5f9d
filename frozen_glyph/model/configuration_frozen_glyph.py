"""Configurations: one stack of blocks over a frozen glyph substrate, and several such experts side by side."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters

MERGE_RULES = ("mean", "posterior")


@strict
class FrozenGlyphConfig(PreTrainedConfig):
    """Decoder-only transformer over a substrate of ``substrate_bits`` bits a token (layout: PAPER tables, section 2).

    Fields that are this model's own:
        substrate_bits: bits stored for each token. Equal to ``hidden_size``: used as they are; more: projected down
            by a stored integer matrix; fewer: each bit repeated ``hidden_size // substrate_bits`` times.
        substrate_rotated: as many bits as ``hidden_size`` pass through such a matrix too.
        substrate_dense: the vectors are stored as a table in an ordinary, frozen ``nn.Embedding`` (see ``to_dense``).
        substrate_trainable: an ordinary ``nn.Embedding`` instead of a substrate (the published baselines).
        substrate_fingerprint, tokenizer_sha256: identity of the substrate, checked at every load; experts dock only
            when it is equal. ``None`` (a model made from a bare configuration) skips the check.
        num_frozen_layers: leading blocks that do not train; re-applied at every load.
        ladder: blocks after each growth stage, for example ``[1, 2, 3]``; a stage that repeats the number before it
            trained the newest blocks on. ``None`` when nothing was grown.
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
    substrate_dense: bool = False
    substrate_trainable: bool = False
    substrate_fingerprint: str | None = None
    tokenizer_sha256: str | None = None
    num_frozen_layers: int = 0
    ladder: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_frozen_glyph.FrozenGlyphConfig",
                "AutoModel": "modeling_frozen_glyph.FrozenGlyphModel",
                "AutoModelForCausalLM": "modeling_frozen_glyph.FrozenGlyphForCausalLM",
            },
        )
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raise ``ValueError`` naming the field, its value and what is allowed."""
        if self.num_attention_heads < 1 or self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be an even multiple of num_attention_heads="
                f"{self.num_attention_heads}: rotary embedding needs an even head size; change either"
            )
        if self.substrate_bits <= 0 or self.substrate_bits % 8:
            raise ValueError(f"substrate_bits={self.substrate_bits} must be a positive multiple of 8")
        if self.substrate_bits < self.hidden_size and self.hidden_size % self.substrate_bits:
            raise ValueError(
                f"substrate_bits={self.substrate_bits} below hidden_size={self.hidden_size} must divide it, "
                "because each bit is repeated; choose a divisor"
            )
        if self.substrate_rotated and self.substrate_bits != self.hidden_size:
            raise ValueError(
                f"substrate_rotated=True needs substrate_bits={self.substrate_bits} to equal hidden_size="
                f"{self.hidden_size}: more bits are always projected, fewer are repeated; leave it out"
            )
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True is not possible: the substrate is frozen and the head trains")
        if not 0 <= self.num_frozen_layers <= self.num_hidden_layers:
            raise ValueError(
                f"num_frozen_layers={self.num_frozen_layers} must lie in 0..num_hidden_layers={self.num_hidden_layers}"
            )

    def stage_layers(self, growth_stage: int) -> tuple[int, int]:
        """Return (blocks, frozen blocks) of stage ``growth_stage``, counted from 1; ``ValueError`` if there is none."""
        ladder = self.ladder or []
        if not 1 <= growth_stage <= len(ladder):
            known = f"1..{len(ladder)}" if ladder else "none: this checkpoint was not grown in stages"
            raise ValueError(f"growth_stage={growth_stage} does not exist; stages here: {known}")
        blocks = ladder[growth_stage - 1]
        return blocks, max((below for below in ladder if below < blocks), default=0)


@strict
class FrozenGlyphMoEConfig(PreTrainedConfig):
    """Experts on one substrate, merged without training (PAPER section 4).

    Fields that are this model's own:
        experts: for each expert the ``FrozenGlyphConfig`` fields that shape its blocks (see ``EXPERT_FIELDS``).
        rule: ``mean`` averages logits (published); ``posterior`` mixes probabilities, each expert weighted by the
            probability it gave to the tokens read so far.
        expert_weights: weights of the mean, or prior of the posterior; they sum to 1. Default: equal.
        num_hidden_layers: derived. All experts' blocks, plus one cache layer where ``posterior`` keeps its evidence,
            because ``generate()`` builds its cache from this number.
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
    experts: list[dict] | None = None
    expert_names: list[str] | None = None
    expert_weights: list[float] | None = None
    rule: str = "mean"
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
    substrate_dense: bool = False
    substrate_trainable: bool = False
    substrate_fingerprint: str | None = None
    tokenizer_sha256: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.experts = self.experts or []
        if self.expert_names is None:
            self.expert_names = [f"expert-{index}" for index in range(len(self.experts))]
        if self.expert_weights is None:
            self.expert_weights = [1.0 / len(self.experts)] * len(self.experts) if self.experts else []
        self.num_hidden_layers = self.evidence_layer + 1
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_frozen_glyph.FrozenGlyphMoEConfig",
                "AutoModel": "modeling_frozen_glyph_moe.FrozenGlyphMoEModel",
                "AutoModelForCausalLM": "modeling_frozen_glyph_moe.FrozenGlyphMoEForCausalLM",
            },
        )
        super().__post_init__(**kwargs)

    @property
    def evidence_layer(self) -> int:
        """Index of the cache layer behind all experts' blocks."""
        return sum(expert.get("num_hidden_layers", 0) for expert in self.experts or [])

    def expert_configs(self) -> list[FrozenGlyphConfig]:
        """One block configuration per expert."""
        shared = {"vocab_size": self.vocab_size, "hidden_size": self.hidden_size, "substrate_bits": self.substrate_bits}
        return [FrozenGlyphConfig(**shared, **expert) for expert in self.experts or []]

    def validate_architecture(self) -> None:
        """Raise ``ValueError`` naming the field, its value and what is allowed."""
        if self.rule not in MERGE_RULES:
            raise ValueError(f"rule={self.rule!r} is not known; allowed: {', '.join(MERGE_RULES)}")
        count = len(self.experts or [])
        for name, value in (("expert_names", self.expert_names), ("expert_weights", self.expert_weights)):
            if len(value or []) != count:
                raise ValueError(f"{name} has {len(value or [])} entries for {count} experts; give one for each")
        if count and (min(self.expert_weights) < 0 or abs(sum(self.expert_weights) - 1) > 1e-6):
            raise ValueError(f"expert_weights={self.expert_weights} must be non-negative and sum to 1")
        for index, expert in enumerate(self.experts or []):
            if set(expert) != set(self.EXPERT_FIELDS):
                raise ValueError(
                    f"experts[{index}] has the fields {', '.join(sorted(expert))}; "
                    f"it must have exactly {', '.join(sorted(self.EXPERT_FIELDS))}"
                )


__all__ = ["MERGE_RULES", "FrozenGlyphConfig", "FrozenGlyphMoEConfig"]
