"""Names and shapes of tensors: said once without torch, equal to the models', and the same there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.checkpoint import tensors
from frozen_glyph.checkpoint.config import EXPERT_FIELDS
from frozen_glyph.checkpoint.files import sha256_tensor
from frozen_glyph.model.embedding_frozen_glyph import substrate_fingerprint

SIZES = {"vocab_size": 50, "hidden_size": 16, "substrate_bits": 16, "num_attention_heads": 2}
BLOCK = {"self_attn.q_proj.weight", "mlp.fc_in.bias", "input_layernorm.weight", "post_attention_layernorm.bias"}
ADAPTERS = [[], [f"adapters.{layer}.self_attn_q_proj.lora_{part}" for layer in range(2) for part in "AB"]]
SHARED = {"model.embed_tokens.packed_bits", "model.embed_tokens.center", "lm_head.weight", "lm_head.bias"}


@st.composite
def experts(draw) -> tuple[int, int, int]:
    """Index, number of blocks, and how many of these are the trunk's."""
    shared = draw(st.integers(0, 12))
    return draw(st.integers(0, 11)), shared + draw(st.integers(0, 12)), shared


def own_names(layers: int) -> set[str]:
    """Tensors of an expert with an adapter on each block, as they are called in a model of its own."""
    blocks = {f"model.layers.{layer}.{part}" for layer in range(layers) for part in BLOCK}
    adapters = {f"adapters.{layer}.self_attn_q_proj.lora_{part}" for layer in range(layers) for part in "AB"}
    return SHARED | blocks | adapters | {"model.norm.weight", "model.norm.bias"}


@given(experts())
def test_names_in_a_merged_model_and_back(expert):
    """The map is one to one, its inverse gives every name again, and no name is any other expert's."""
    index, layers, shared = expert
    prefixes = tensors.merged_prefixes(index, layers, shared)
    inverse = {merged: own for own, merged in prefixes.items()}
    names = own_names(layers)
    merged = {name: tensors.rename(name, prefixes) for name in names}
    assert len(set(merged.values())) == len(names)
    assert {name: tensors.rename(there, inverse) for name, there in merged.items()} == {name: name for name in names}
    trunk = {f"model.layers.{layer}.{part}" for layer in range(shared) for part in BLOCK}
    common = {name for name in names if not merged[name].startswith(f"model.experts.{index}.")}
    assert common == SHARED | trunk
    others = {tensors.rename(name, tensors.merged_prefixes(index + 1, layers, shared)) for name in names}
    assert others & set(merged.values()) == {merged[name] for name in common}


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ("model.embed_tokens.packed_bits", "model.embed_tokens.packed_bits"),
        ("model.layers.0.mlp.fc_in.bias", "model.trunk.0.mlp.fc_in.bias"),
        ("model.layers.2.mlp.fc_in.bias", "model.trunk.2.mlp.fc_in.bias"),
        ("model.layers.3.input_layernorm.weight", "model.experts.1.layers.0.input_layernorm.weight"),
        ("model.layers.13.self_attn.q_proj.weight", "model.experts.1.layers.10.self_attn.q_proj.weight"),
        ("model.norm.bias", "model.experts.1.norm.bias"),
        ("adapters.12.mlp_fc_out.lora_B", "model.experts.1.adapters.12.mlp_fc_out.lora_B"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_of_the_second_of_experts_with_a_trunk_of_three(own, merged):
    """Names are in files that exist: these may not change."""
    prefixes = tensors.merged_prefixes(expert=1, layers=14, shared=3)
    assert tensors.rename(own, prefixes) == merged
    assert tensors.rename(merged, {there: here for here, there in prefixes.items()}) == own


@pytest.mark.parametrize("stored", ["model.experts.1.layers.11.norm", "model.trunk.3.x", "model.experts.0.norm.bias"])
def test_what_is_no_tensor_of_the_expert_keeps_its_name(stored):
    """So a check of names finds it superfluous, and it never takes the place of another."""
    prefixes = tensors.merged_prefixes(expert=1, layers=14, shared=3)
    assert tensors.rename(stored, {there: here for here, there in prefixes.items()}) == stored


def test_names_are_those_of_the_models():
    """An expert with one block of its own on a trunk of two, and one that is adapters on the trunk."""
    alone = FrozenGlyphConfig(**SIZES, intermediate_size=40, num_hidden_layers=3)
    fields = {name: getattr(alone, name) for name in EXPERT_FIELDS}
    lora = {"rank": 2, "alpha": 4, "targets": ["self_attn.q_proj"]}
    experts = [fields | {"num_hidden_layers": 1}, fields | {"num_hidden_layers": 0, "lora": lora}]
    merged = FrozenGlyphMoEForCausalLM(FrozenGlyphMoEConfig(**SIZES, experts=experts, num_shared_layers=2))
    found = {
        tensors.rename(name, tensors.merged_prefixes(index, layers, shared=2))
        for index, layers in enumerate((3, 2))
        for name in (*tensors.model_shapes(alone.to_dict() | {"num_hidden_layers": layers}), *ADAPTERS[index])
    }
    assert found == {name.replace("biases", "bias") for name in merged.state_dict()}  # as files call them


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 12, "intermediate_size": 40},
        {"hidden_size": 16, "substrate_bits": 64},
        {"hidden_size": 32, "substrate_bits": 32, "substrate_rotated": True},
        {"hidden_size": 32, "substrate_bits": 16},
        {"hidden_size": 32, "substrate_bits": 16, "substrate_rotated": True},
        {"hidden_size": 16, "substrate_bits": 64, "substrate_whitened": True},
        {"hidden_size": 32, "substrate_bits": 16, "substrate_rotated": True, "substrate_whitened": True},
    ],
)
def test_shapes_of_a_model(fields):
    config = FrozenGlyphConfig(
        **{"vocab_size": 50, "hidden_size": 48, "num_attention_heads": 2, "substrate_bits": 48} | fields
    )
    state = FrozenGlyphForCausalLM(config).state_dict()
    assert tensors.model_shapes(config.to_dict()) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("projected", [False, True])
def test_fingerprint_from_hashes(projected):
    config = FrozenGlyphConfig(**SIZES | {"num_hidden_layers": 1, "substrate_bits": 64 if projected else 16})
    state = FrozenGlyphForCausalLM(config).substrate.state_dict()
    expected = substrate_fingerprint(state["packed_bits"], state["center"], state.get("projection"), "abc")
    digests = {tensors.SUBSTRATE_PREFIX + name: sha256_tensor(tensor) for name, tensor in state.items()}
    assert tensors.fingerprint(digests, "abc") == expected
