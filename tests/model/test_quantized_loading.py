"""Models loaded in 8 or 4 bits by torchao and bitsandbytes on a CPU: Linears are rounded, glyph bits not touched."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM

WIDTH = 64  # of 4-bit kernels, which take no narrower matrices
ERRORS = {"torchao int8": 0.05, "bitsandbytes int8": 0.1, "bitsandbytes nf4": 0.5}  # of logits, by their spread


def recipe(kind: str):
    library, number = kind.split()
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    if kind == "torchao int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    return BitsAndBytesConfig(load_in_8bit=True) if number == "int8" else BitsAndBytesConfig(load_in_4bit=True)


@pytest.fixture
def wide_folder(tmp_path):
    """A model of random bits and weights, wide enough for every kernel."""
    torch.manual_seed(0)
    config = FrozenGlyphConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        substrate_bits=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = FrozenGlyphForCausalLM(config)
    bits = torch.randint(256, model.substrate.packed_bits.shape)
    model.substrate.load_state_dict({"packed_bits": bits, "center": torch.full((WIDTH,), 8)})
    model.save_pretrained(tmp_path / "wide")
    return tmp_path / "wide"


def check(folder, kind, ids, **fields) -> None:
    options = {"quantization_config": recipe(kind), "device_map": "cpu"}
    exact = AutoModelForCausalLM.from_pretrained(folder, **fields).eval()
    rounded = AutoModelForCausalLM.from_pretrained(folder, **fields, **options).eval()
    assert rounded.substrate.packed_bits.dtype == torch.uint8
    assert torch.equal(rounded.substrate.packed_bits, exact.substrate.packed_bits)
    weights = {name: p for name, p in rounded.named_parameters() if name.endswith(("q_proj.weight", "fc_in.weight"))}
    assert weights and all(type(w.data) is not torch.Tensor or not w.is_floating_point() for w in weights.values())
    found, expected = rounded(ids).logits.float(), exact(ids).logits
    error = ((found - expected).std() / expected.std()).item()
    assert 1e-4 < error < ERRORS[kind]
    assert rounded.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


@pytest.mark.parametrize("kind", ERRORS)
def test_a_grown_model(wide_folder, kind):
    check(wide_folder, kind, torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", ["torchao int8", "bitsandbytes int8"])
@pytest.mark.parametrize("rule", ["mean", "posterior"])
def test_a_merged_model(merged_folder, token_ids, kind, rule):
    check(merged_folder, kind, token_ids(2, 12), rule=rule)
