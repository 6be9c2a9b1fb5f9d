"""What the checkpoint room says without torch is what the model room says with it."""

import subprocess
import sys

import pytest

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.checkpoint import contract
from frozen_glyph.model import loading_frozen_glyph as loading
from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES


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


def test_merging_and_inspecting_import_no_torch():
    code = (
        "import sys; import frozen_glyph.merge.write, frozen_glyph.merge.extract, frozen_glyph.merge.reweigh, "
        "frozen_glyph.cli.tables, frozen_glyph.checkpoint.ladder\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
