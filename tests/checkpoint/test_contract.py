"""What the checkpoint room says without torch is what the model room says with it."""

import subprocess
import sys

from frozen_glyph.checkpoint import contract
from frozen_glyph.model import pretrained_frozen_glyph as loading


def test_names_are_those_of_the_model_room():
    assert (contract.WEIGHTS, contract.DEFAULT_INDEX) == (loading.WEIGHTS, loading.INDEX)
    assert contract.stage_index(3) == loading.stage_index(3)
    assert contract.copied_by("save") == list(loading.COMPANIONS)


def test_merging_and_inspecting_import_no_torch():
    code = (
        "import sys; import frozen_glyph.merge.write, frozen_glyph.merge.extract, frozen_glyph.merge.reweigh, "
        "frozen_glyph.cli.tables, frozen_glyph.checkpoint.describe\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
