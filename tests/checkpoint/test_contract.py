"""What the checkpoint room says without torch is what the model room says with it."""

import subprocess
import sys

import pytest

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphMoEConfig
from frozen_glyph.checkpoint import contract
from frozen_glyph.checkpoint.files import sha256_tensor
from frozen_glyph.model import loading_frozen_glyph as loading
from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES
from frozen_glyph.model.embedding_frozen_glyph import substrate_fingerprint


def test_names_rules_and_fields():
    assert (contract.WEIGHTS, contract.DEFAULT_INDEX) == (loading.WEIGHTS, loading.INDEX)
    assert contract.stage_index(3) == loading.stage_index(3)
    assert tuple(contract.RULES) == MERGE_RULES
    assert FrozenGlyphMoEConfig().evidence_window == contract.EVIDENCE_WINDOW
    assert contract.EXPERT_FIELDS == FrozenGlyphMoEConfig.EXPERT_FIELDS
    assert all(hasattr(FrozenGlyphConfig(), name) for name in contract.SUBSTRATE_FIELDS)


@pytest.mark.parametrize(("config", "merged"), [(FrozenGlyphConfig, False), (FrozenGlyphMoEConfig, True)])
def test_identity_names_the_classes(config, merged):
    said = contract.identity(merged)
    assert said["model_type"] == config.model_type
    assert said["auto_map"] == config().auto_map
    assert said["architectures"] == [said["auto_map"]["AutoModelForCausalLM"].partition(".")[2]]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 12, "intermediate_size": 40},
        {"hidden_size": 16, "substrate_bits": 64},
        {"hidden_size": 32, "substrate_bits": 32, "substrate_rotated": True},
        {"hidden_size": 32, "substrate_bits": 16},
        {"hidden_size": 32, "substrate_bits": 16, "substrate_rotated": True},
    ],
)
def test_shapes_of_a_model(fields):
    config = FrozenGlyphConfig(
        **{"vocab_size": 50, "hidden_size": 48, "num_attention_heads": 2, "substrate_bits": 48} | fields
    )
    state = FrozenGlyphForCausalLM(config).state_dict()
    assert contract.model_shapes(config.to_dict()) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("projected", [False, True])
def test_fingerprint_from_hashes(projected):
    fields = {"substrate_bits": 64 if projected else 16}
    config = FrozenGlyphConfig(vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, **fields)
    state = FrozenGlyphForCausalLM(config).substrate.state_dict()
    expected = substrate_fingerprint(state["packed_bits"], state["center"], state.get("projection"), "abc")
    digests = {contract.SUBSTRATE_PREFIX + name: sha256_tensor(tensor) for name, tensor in state.items()}
    assert contract.fingerprint(digests, "abc") == expected


def test_merging_and_inspecting_import_no_torch():
    code = (
        "import sys; import frozen_glyph.merge.write, frozen_glyph.merge.extract, frozen_glyph.merge.reweigh, "
        "frozen_glyph.merge.report, frozen_glyph.checkpoint.ladder\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
