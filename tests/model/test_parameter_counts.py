"""Every published configuration, built on the meta device, has exactly the published parameter counts.

Published totals count the substrate's table; here it is packed bits, not parameters, so its vocab_size * substrate_bits
entries are added. Sources: arXiv 2507.07129, arXiv 2507.04886, arXiv 2605.09751 and the model cards of ``Bochkov/*``.
"""

import math

import pytest
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM

UNICODE, BINARY_16, LONG_RUN = {}, {"substrate_bits": 16}, {"substrate_bits": 16, "num_hidden_layers": 16}
BEST_BVV = {"num_hidden_layers": 16, "vocab_size": 131072}
ABLATION = {"num_hidden_layers": 16}
ABS_BVV = {"hidden_size": 4096, "substrate_bits": 4096, "vocab_size": 131072}


def meta_model(**fields) -> FrozenGlyphForCausalLM:
    """The layout's defaults are the nine-layer model of the paper: 1024 wide, 65,536 ids, 32 heads."""
    with torch.device("meta"):
        return FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields))


def parameters(model: torch.nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def published_total(model: FrozenGlyphForCausalLM) -> int:
    config = model.config
    return parameters(model) + (0 if config.substrate_trainable else config.vocab_size * config.substrate_bits)


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        (UNICODE, 247_614_464),
        ({"substrate_trainable": True}, 247_614_464),
        (BINARY_16, 181_554_176),
        (LONG_RUN, 269_699_072),
        (BEST_BVV, 470_042_624),
        ({"substrate_bits": 16, "num_hidden_layers": 32}, 471_173_120),  # published as a layout, without a count
    ],
)
def test_total_parameters_are_the_published_ones(fields, total):
    assert published_total(meta_model(**fields)) == total


@pytest.mark.parametrize(
    ("fields", "trainable"),
    [
        (UNICODE, 180_505_600),
        (UNICODE | {"num_frozen_layers": 6}, 104_952_832),
        (BINARY_16 | {"num_frozen_layers": 6}, 104_952_832),
        ({"substrate_trainable": True}, 247_614_464),
    ],
)
def test_trainable_parameters_are_the_published_ones(fields, trainable):
    assert parameters(meta_model(**fields), trainable=True) == trainable


@pytest.mark.parametrize(("layers", "billions"), [(1, 1.3), (2, 1.5), (3, 1.7), (4, 1.9), (5, 2.1), (6, 2.3)])
def test_abs_bvv_totals_are_the_published_billions(layers, billions):
    assert round(published_total(meta_model(num_hidden_layers=layers, **ABS_BVV)) / 1e9, 1) == billions


@pytest.mark.parametrize(
    ("fields", "millions"),
    [
        ({"substrate_bits": 1024}, 335),
        ({"substrate_trainable": True}, 335),
        ({"substrate_bits": 256}, 285),
        ({"substrate_bits": 64}, 272),
        ({"substrate_bits": 16}, 269),
    ],
)
def test_ablation_totals_are_the_published_millions(fields, millions):
    assert math.floor(published_total(meta_model(**ABLATION, **fields)) / 1e6) == millions


def test_merged_experts_share_one_table():
    expert = meta_model(**BEST_BVV)
    fields = {name: getattr(expert.config, name) for name in FrozenGlyphMoEConfig.EXPERT_FIELDS}
    with torch.device("meta"):
        merged = FrozenGlyphMoEForCausalLM(FrozenGlyphMoEConfig(vocab_size=131072, experts=[fields, fields]))
    assert parameters(merged) == 671_649_792 == 2 * parameters(expert)
    head = merged.lm_head.weight.numel() + merged.lm_head.biases.numel()
    assert parameters(merged, trainable=True) == head == 2 * (131072 * 1024 + 131072)


@pytest.mark.parametrize(("width", "projected"), [(64, True), (1024, False), (2048, False)])
def test_the_substrate_has_no_parameters(width, projected):
    with torch.device("meta"):
        config = FrozenGlyphConfig(vocab_size=8, hidden_size=width, num_hidden_layers=1, substrate_bits=1024)
        substrate = FrozenGlyphForCausalLM(config).substrate
    assert not list(substrate.parameters())
    assert substrate.packed_bits.shape == (8, 128)
    assert (substrate.projection is not None) == projected
