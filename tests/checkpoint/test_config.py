"""What the checkpoint room says of ``config.json`` without torch is what the model room says with it."""

import pytest

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.checkpoint import config as said
from frozen_glyph.evaluation.measure import measure_facts

SIZES = {"vocab_size": 50, "hidden_size": 16, "substrate_bits": 16, "num_attention_heads": 2}


def merged_config(shared: int, own: list[int]) -> FrozenGlyphMoEConfig:
    alone = FrozenGlyphConfig(**SIZES, intermediate_size=40)
    fields = {name: getattr(alone, name) for name in said.EXPERT_FIELDS}
    experts = [fields | {"num_hidden_layers": blocks} for blocks in own]
    return FrozenGlyphMoEConfig(**SIZES, experts=experts, num_shared_layers=shared)


def test_fields_are_those_of_the_model_room():
    assert said.EXPERT_FIELDS == FrozenGlyphMoEConfig.EXPERT_FIELDS
    assert all(hasattr(FrozenGlyphConfig(), name) for name in said.SUBSTRATE_FIELDS)


@pytest.mark.parametrize(("config", "merged"), [(FrozenGlyphConfig, False), (FrozenGlyphMoEConfig, True)])
def test_identity_names_the_classes(config, merged):
    identity = said.identity(merged)
    assert identity["model_type"] == config.model_type
    assert identity["auto_map"] == config().auto_map
    assert identity["architectures"] == [identity["auto_map"]["AutoModelForCausalLM"].partition(".")[2]]


@pytest.mark.parametrize(
    ("shared", "own", "passed"), [(0, [2, 3], [2, 3]), (3, [2, 2], [5, 5]), (2, [0, 1, 4], [2, 3, 6])]
)
def test_blocks_of_a_merged_model(shared, own, passed):
    """The trunk counts once among those stored, and for every expert among those that a token passes."""
    config = merged_config(shared, own)
    model = FrozenGlyphMoEForCausalLM(config)
    stored = {name.partition(".self_attn.")[0] for name in model.state_dict() if ".self_attn." in name}
    assert said.stored_blocks(config.to_dict()) == len(stored) == shared + sum(own)
    assert said.expert_blocks(config.to_dict()) == passed
    assert measure_facts(model)["num_hidden_layers"] == shared + sum(own)


def test_blocks_of_a_grown_model():
    config = FrozenGlyphConfig(**SIZES, num_hidden_layers=3)
    assert said.stored_blocks(config.to_dict()) == 3
    assert measure_facts(FrozenGlyphForCausalLM(config))["num_hidden_layers"] == 3
