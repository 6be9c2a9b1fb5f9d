"""A stage trains what it should, survives being stopped, and raises when anything frozen moves."""

import copy
import shutil

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, set_seed

from frozen_glyph import grow
from frozen_glyph.growth.data import TokenWindows
from frozen_glyph.growth.train import FrozenWeightsChanged, Phase, frozen_digest, train_phase, uses_bf16

STEPS = 6


@pytest.fixture
def model(build_model):
    set_seed(0)
    return grow(build_model(seed=5, num_hidden_layers=1), 1)


@pytest.fixture(scope="module")
def windows(substrate):
    ids = np.random.default_rng(0).integers(3, substrate.vocab_size, 20 * 32).astype(np.uint16)
    return TokenWindows(ids, 32)


@pytest.fixture
def train(make_recipe, windows, tmp_path):
    """``train(model, work name, *callbacks)``: six steps, saved every two."""
    recipe = make_recipe({"training.save_steps": 2}).training

    def train(model, name="work", *callbacks):
        return train_phase(
            model, windows, Phase(STEPS, recipe.learning_rate, seed=0), recipe, tmp_path / name, callbacks
        )

    return train


def same(model, state) -> dict[str, bool]:
    return {name: torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items()}


def test_what_is_trainable_changes_and_nothing_else(model, train):
    before = copy.deepcopy(model.state_dict())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    metrics = train(model)
    unchanged = {name for name, equal in same(model, before).items() if equal}
    assert unchanged == before.keys() - trainable
    assert metrics["train_loss"] > 0


class FlipOneBit(TrainerCallback):
    """Changes one bit of a tensor after the first step."""

    def __init__(self, tensor):
        self.tensor = tensor

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.tensor.view(torch.uint8).view(-1)[3] ^= 1


@pytest.mark.parametrize("name", ["model.layers.0.mlp.fc_in.weight", "model.embed_tokens.packed_bits"])
def test_one_changed_bit_of_a_frozen_tensor_is_noticed(model, train, name):
    with pytest.raises(FrozenWeightsChanged, match=r"frozen weights changed while training in .*work"):
        train(model, "work", FlipOneBit(model.state_dict()[name]))


def test_digest_sees_frozen_tensors_only(model):
    digest = frozen_digest(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
        model.model.layers[1].mlp.fc_in.bias.add_(1)
    assert frozen_digest(model) == digest
    with torch.no_grad():
        model.model.layers[0].mlp.fc_in.bias[0] += 1
    assert frozen_digest(model) != digest


@pytest.mark.parametrize("complete", [True, False])
def test_stopped_training_goes_on_from_the_newest_whole_checkpoint(model, train, tmp_path, complete):
    again = copy.deepcopy(model)
    train(model, "once")
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    shutil.copytree(tmp_path / "once" / "checkpoint-4", tmp_path / "twice" / "checkpoint-4")
    if not complete:
        shutil.copytree(tmp_path / "once" / "checkpoint-4", tmp_path / "twice" / "checkpoint-5")
        (tmp_path / "twice" / "checkpoint-5" / "manifest.json").unlink()

    class FirstStep(TrainerCallback):
        step = None

        def on_train_begin(self, args, state, control, **kwargs):
            self.step = state.global_step

    first = FirstStep()
    train(again, "twice", first)
    assert first.step == 4
    assert all(same(again, model.state_dict()).values())


def test_precision_is_what_the_recipe_says():
    assert uses_bf16("bf16") is True
    assert uses_bf16("fp32") is False
    assert uses_bf16("auto") in (True, False)
