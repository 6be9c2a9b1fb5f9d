"""Configurations refuse what cannot work, naming field, value and what is allowed."""

import importlib
import json
import math

import pytest
from transformers import AutoConfig

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.model.configuration_frozen_glyph import auto_map
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphRotaryEmbedding

EXPERT = {
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "max_position_embeddings": 128,
}

LORA = {"rank": 2, "alpha": 4, "targets": ["self_attn.q_proj"]}
SHARED = {"num_shared_layers": 1}
LLAMA = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1, "high_freq_factor": 4}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "factor": 2.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 100, "num_attention_heads": 32}, "hidden_size=100 .* num_attention_heads=32"),
        ({"hidden_size": 96, "num_attention_heads": 32}, "even head size"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"substrate_bits": 12}, "substrate_bits=12 must be a positive multiple of 8"),
        ({"substrate_bits": 0}, "substrate_bits=0"),
        ({"substrate_bits": 24}, "substrate_bits=24 below hidden_size=1024 must divide it"),
        (
            {"substrate_rotated": True, "substrate_bits": 2048},
            "substrate_rotated=True needs substrate_bits=2048 to be at most hidden_size=1024",
        ),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True is not possible"),
        ({"num_frozen_layers": 10}, "num_frozen_layers=10 must lie in 0..num_hidden_layers=9"),
        ({"num_frozen_layers": -1}, "num_frozen_layers=-1"),
        ({"hidden_size": "wide"}, "hidden_size: Field 'hidden_size' expected int, got str"),
        ({"hidden_size": 2**31}, "hidden_size=2147483648 must be from 1 to 1048576"),
        ({"hidden_act": "geluu"}, "hidden_act='geluu' must be one of .*; did you mean 'gelu'"),
        ({"rope_parameters": {"rope_type": "liner"}}, "rope_type='liner' must be one of .*; did you mean 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.factor is missing; rope_type='yarn' needs"),
        ({"rope_parameters": {"rope_type": "linear", "factor": math.nan}}, "factor=nan must be a number of at least 1"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_theta=0 must be a number above 0"),
        ({"rope_parameters": LLAMA | {"high_freq_factor": 1}}, "high_freq_factor=1 must be above low_freq_factor=1"),
        ({"rope_parameters": LONG | {"long_factor": [1.0]}}, "long_factor=.* must be a list of 16 numbers"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "all of a head is rotated"),
        ({"attention_dropout": 5}, "attention_dropout=5 must be from 0 to 1"),
        ({"initializer_range": math.nan}, "initializer_range=nan must be from 0 to"),
        ({"intermediate_size": -1}, "intermediate_size=-1 must be from 1 to"),
        ({"pad_token_id": 65536}, "pad_token_id=65536 must lie in the vocabulary, 0 to 65535"),
        ({"eos_token_id": [2, -1]}, r"eos_token_id=\[2, -1\] must lie in the vocabulary"),
        ({"sep_token_id": 65536}, "sep_token_id=65536 must lie in the vocabulary, 0 to 65535"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id=-1 must lie in the vocabulary"),
        ({"unk_token_id": "two"}, "unk_token_id='two' must lie in the vocabulary"),
        ({"mask_token_id": [1, 2.5]}, r"mask_token_id=\[1, 2.5\] must lie in the vocabulary"),
        ({"ladder": [3, 2]}, r"ladder=\[3, 2\] must hold numbers of blocks"),
        ({"dtype": "float33"}, "dtype='float33' must be one of float32"),
        ({"num_frozen_layers": True}, "num_frozen_layers: Field 'num_frozen_layers' .*True"),
        ({"intermediate_size": True}, "intermediate_size: Field 'intermediate_size' .*True"),
        ({"num_hidden_layers": 2, "ladder": [True, 2]}, "ladder: Field 'ladder' .*True"),
    ],
)
def test_impossible_fields_are_refused_with_what_is_allowed(fields, message, tmp_path):
    """With a ``ValueError`` of one line, made in Python or read from a file."""
    with pytest.raises(ValueError, match=message) as error:
        FrozenGlyphConfig(**fields)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "frozen_glyph"} | fields))
    with pytest.raises(ValueError, match=message):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "rope", [{"rope_type": "dynamic", "factor": 2.0}, LLAMA, LONG, {"type": "linear", "factor": 2}]
)
def test_rotary_scalings_of_transformers(rope):
    config = FrozenGlyphConfig(rope_parameters=dict(rope))
    assert len(FrozenGlyphRotaryEmbedding(config).inv_freq) == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "man"}, "rule='man' is not known; allowed: mean, weighted, probability, posterior, fixed_share"),
        ({"expert_names": ["a"]}, "expert_names has 1 entries for 2 experts"),
        ({"expert_weights": [1.0]}, "expert_weights has 1 entries for 2 experts"),
        ({"expert_weights": [0.5, 0.6]}, "must be non-negative and sum to 1"),
        ({"expert_weights": [1.5, -0.5]}, "must be non-negative and sum to 1"),
        ({"expert_weights": [1.5, float("nan")], "rule": "weighted"}, "must be finite"),
        ({"evidence_window": 0}, "evidence_window=0 must be from 1 to"),
        ({"switching_rates": []}, r"switching_rates=\[\] must hold 1 to 64 numbers from 0 to 1"),
        ({"switching_rates": [0.1, 1.5]}, r"switching_rates=\[0.1, 1.5\] must hold 1 to"),
        ({"num_shared_layers": -1}, "num_shared_layers=-1 must be from 0 to"),
        (
            {"num_shared_layers": 1, "experts": [EXPERT, EXPERT | {"intermediate_size": 32}]},
            r"experts\[1\].intermediate_size=32 differs from 64 of experts\[0\]",
        ),
        ({"experts": [EXPERT, EXPERT | {"lora": LORA}]}, r"experts\[1\].lora changes shared blocks"),
        (SHARED | {"experts": [EXPERT | {"lora": LORA | {"rank": 0}}]}, r"experts\[0\].lora.rank=0 must be"),
        (SHARED | {"experts": [EXPERT | {"lora": {"rank": 2}}]}, "needs rank, alpha and targets"),
        (SHARED | {"experts": [EXPERT | {"lora": LORA | {"targets": ["q"]}}]}, "must be some of self_attn.q_proj"),
        ({"experts": [EXPERT, EXPERT | {"layers": 3}]}, r"experts\[1\] has the fields .*layers"),
        ({"experts": [EXPERT, EXPERT | {"hidden_act": "geluu"}]}, r"experts\[1\]\.hidden_act='geluu' must be one of"),
        ({"experts": [EXPERT, EXPERT | {"layer_norm_eps": -1}]}, r"experts\[1\]\.layer_norm_eps=-1 must be from 0"),
        (SHARED | {"experts": [EXPERT | {"lora": LORA | {"alpha": math.inf}}]}, r"lora.alpha=inf must be a finite"),
        ({"vocab_size": 2**40}, "vocab_size=1099511627776 must be from 1 to"),
        ({"cls_token_id": 65536}, "cls_token_id=65536 must lie in the vocabulary, 0 to 65535"),
        ({"experts": [EXPERT, {}]}, r"experts\[1\].*must have exactly .*num_hidden_layers"),
    ],
)
def test_impossible_fields_of_a_merge_are_refused_with_what_is_allowed(fields, message):
    with pytest.raises(ValueError, match=message):
        FrozenGlyphMoEConfig(**({"experts": [EXPERT, EXPERT]} | fields))


def test_fields_left_out_are_derived():
    single = FrozenGlyphConfig(hidden_size=64)
    assert single.intermediate_size == 256
    assert single.rope_parameters["rope_theta"] == 10000.0
    merged = FrozenGlyphMoEConfig(experts=[EXPERT, EXPERT | {"num_hidden_layers": 3}])
    assert merged.num_hidden_layers == 2 + 3 + 1  # the last one holds the evidence
    assert merged.expert_weights == merged.logit_weights == [0.5, 0.5]
    assert merged.expert_names == ["expert-0", "expert-1"]
    any_weights = {"expert_weights": [1.5, -0.25]}
    assert FrozenGlyphMoEConfig(experts=[EXPERT, EXPERT], rule="weighted", **any_weights).logit_weights == [1.5, -0.25]


@pytest.mark.parametrize(
    ("adapted", "passes", "layers"),
    [((False, False), [None], 3 + 2 + 2), ((False, True), [None, 1], 6 + 2 + 2), ((True, True), [0, 1], 6 + 2 + 2)],
)
def test_cache_layers_of_a_shared_trunk(adapted, passes, layers):
    experts = [EXPERT | {"lora": LORA} if lora else EXPERT for lora in adapted]
    merged = FrozenGlyphMoEConfig(experts=experts, num_shared_layers=3)
    assert (merged.trunk_passes, merged.evidence_layer) == (passes, layers)


@pytest.mark.parametrize(
    "config",
    [FrozenGlyphConfig(ladder=[3, 6, 9]), FrozenGlyphMoEConfig(experts=[EXPERT, EXPERT | {"lora": LORA}], **SHARED)],
)
def test_configurations_survive_a_file(config, tmp_path):
    config.save_pretrained(tmp_path)
    loaded = type(config).from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.auto_map == type(config)().auto_map


def test_what_an_older_folder_does_not_name_is_added():
    """Its own entries stay, such as those of a repository."""
    config = FrozenGlyphConfig(auto_map={"AutoModel": "user/ru--modeling_frozen_glyph.FrozenGlyphModel"})
    assert config.auto_map == auto_map() | {"AutoModel": "user/ru--modeling_frozen_glyph.FrozenGlyphModel"}
    places = [place.split(".") for place in (*auto_map().values(), *auto_map("MoE", "_moe").values())]
    assert all(hasattr(importlib.import_module(f"frozen_glyph.model.{module}"), name) for module, name in places)


def test_layers_of_a_stage_follow_the_ladder():
    config = FrozenGlyphConfig(ladder=[3, 6, 9])
    assert [config.stage_layers(stage) for stage in (1, 2, 3)] == [(3, 0), (6, 3), (9, 6)]
    for stage in (0, 4, -1):
        with pytest.raises(ValueError, match=rf"growth_stage={stage} does not exist; stages here: 1\.\.3"):
            config.stage_layers(stage)
    with pytest.raises(ValueError, match="not grown in stages"):
        FrozenGlyphConfig().stage_layers(1)


@pytest.mark.parametrize(
    ("ladder", "expected"),
    [
        ([3, 6, 9], [(3, 0), (6, 3), (9, 6)]),
        ([1, 2, 2, 3], [(1, 0), (2, 1), (2, 1), (3, 2)]),
        ([2, 2], [(2, 0), (2, 0)]),
    ],
)
def test_blocks_and_frozen_blocks_of_each_stage(ladder, expected):
    """A stage without new blocks trains those of the stage before on: no more are frozen."""
    config = FrozenGlyphConfig(ladder=ladder, num_hidden_layers=ladder[-1])
    assert [config.stage_layers(stage) for stage in range(1, len(ladder) + 1)] == expected
