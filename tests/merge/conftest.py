"""A trunk, two runs that went on from it, and adapters on it, as growth writes them."""

import shutil

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.growth.lora import adapters, add_adapters, drop_adapters, write_adapters
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.growth.recipe import LoraRecipe


@pytest.fixture(scope="module")
def trunk(write_expert):
    """A run of two stages: 1 and 2 blocks."""
    return write_expert("trunk", [1, 2], seed=3)


@pytest.fixture(scope="module")
def branches(trunk, tmp_path_factory):
    """Two runs that went on from the trunk's second stage, to 3 and to 4 blocks."""
    found = []
    for name, layers in (("a", 1), ("b", 2)):
        out = tmp_path_factory.mktemp("branches") / name
        entries = adopt_parent(Source(str(trunk), 2), out)
        model = grow(FrozenGlyphForCausalLM.from_pretrained(out), layers, init="random")
        torch.manual_seed(layers)
        for parameter in (*model.model.layers[2:].parameters(), *model.lm_head.parameters()):
            torch.nn.init.normal_(parameter, std=0.2)
        stage = {"stage": 3, "files": write_stage(out, model, 3)}
        write_provenance(out, "growth", {"recipe": {"name": name}, "stages": [*entries, stage]})
        found.append(out)
    return found


@pytest.fixture(scope="module")
def adapted(trunk, tmp_path_factory):
    """``adapted(name, targets)``: a copy of the trunk's run with adapters of stage 2 kept in ``lora-2``."""

    def make(name: str, targets=("q_proj", "fc_out"), seed=0, rank=3):
        out = shutil.copytree(trunk, tmp_path_factory.mktemp("adapted") / name)
        model = FrozenGlyphForCausalLM.from_pretrained(out)
        recipe = LoraRecipe(rank=rank, alpha=4.5, targets=list(targets), merge=False)
        add_adapters(model, recipe, seed)
        generator = torch.Generator().manual_seed(seed)
        for _, layer in adapters(model):
            up = layer.lora_B["default"].weight
            up.data = 0.3 * torch.randn(up.shape, generator=generator)
        write_adapters(model, recipe, out / "lora-2")
        drop_adapters(model)
        return out / "lora-2"

    return make
