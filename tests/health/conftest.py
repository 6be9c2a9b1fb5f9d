"""Models that are healthy, and one way to make each kind of sick block out of them."""

import pytest
import torch
from torch import nn

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.health.replace import replace_linear

VOCABULARY = 96


def make_model(seed: int = 0, width: int = 32, layers: int = 2, **fields) -> FrozenGlyphForCausalLM:
    """A model with fresh weights on random bits; nothing in it is sick."""
    config = FrozenGlyphConfig(
        vocab_size=VOCABULARY, hidden_size=width, substrate_bits=width, num_attention_heads=4, num_hidden_layers=layers,
        max_position_embeddings=64, **fields,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = FrozenGlyphForCausalLM(config)
    bits = model.substrate.packed_bits
    bits.copy_(torch.randint(0, 256, bits.shape, dtype=torch.uint8))
    return model.eval()


def make_text(seed: int = 0, count: int = 12, length: int = 16) -> torch.Tensor:
    """Token ids [count, length] with something to learn: most tokens follow from the one before."""
    generator = torch.Generator().manual_seed(seed)
    follower = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, VOCABULARY, (count, length), generator=generator)
    for at in range(1, length):
        follows = torch.rand(count, generator=generator) < 0.7
        ids[:, at] = torch.where(follows, follower[ids[:, at - 1]], ids[:, at])
    return ids


def train(model: nn.Module, steps: int, seed: int = 0) -> None:
    """A few steps of AdamW."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=3e-3)
    for step in range(steps):
        ids = make_text(1000 * seed + step + 1)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()


def additive(model, block):
    replace_linear(model, "additive", f"layers.{block}.*")


def additive_in_part(model, block):
    replace_linear(model, "additive", f"layers.{block}.mlp.fc_in")


def frozen_at_identity(model, block):
    layer = model.model.layers[block]
    for output in (layer.self_attn.o_proj.weight, layer.mlp.fc_out.weight, layer.mlp.fc_out.bias):
        output.data.zero_()


def dead_relu(model, block):
    mlp = model.model.layers[block].mlp
    mlp.activation = nn.ReLU()
    mlp.fc_in.bias.data.fill_(-100.0)


def mostly_dead_relu(model, block):
    mlp = model.model.layers[block].mlp
    mlp.activation = nn.ReLU()
    mlp.fc_in.bias.data[: len(mlp.fc_in.bias) * 2 // 3] = -100.0


def rank_one(model, block):
    for layer in model.model.layers[block].modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.mean(1, keepdim=True) @ layer.weight.data.mean(0, keepdim=True) * 1e3


def rank_one_in_part(model, block):
    layer = model.model.layers[block].self_attn.v_proj
    layer.weight.data = layer.weight.data[:, :1] @ layer.weight.data[:1] * 50


def duplicated(model, block):
    model.model.layers[block].load_state_dict(model.model.layers[1 - block].state_dict())


SICK = [
    additive,
    additive_in_part,
    frozen_at_identity,
    dead_relu,
    mostly_dead_relu,
    rank_one,
    rank_one_in_part,
    duplicated,
]


@pytest.fixture(scope="session")
def healthy():
    """A model of two blocks after a few steps."""
    model = make_model()
    train(model, 30)
    return model
