"""Optimisers of less state: resumed to the same bits, refused where they are missing, what they are said to keep."""

import numpy as np
import pytest

from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.callbacks import LogAtCheckpoints
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.optimizers import PACKAGES, check_optimizer, optimizer_arguments, optimizer_bytes
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.train import Phase, train_phase


class Stop(LogAtCheckpoints):
    """Ends the process after step 3."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise InterruptedError


@pytest.mark.parametrize("optim", ["adafactor", *(pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES)])
def test_a_killed_phase_ends_with_the_same_bits(optim, build_model, make_training, substrate, tmp_path):
    """The state of each, projectors included, comes back from a checkpoint."""
    if optim in PACKAGES:
        pytest.importorskip(PACKAGES[optim])
    windows = TokenWindows(np.random.default_rng(0).integers(3, substrate.vocab_size, 640).astype(np.uint16), 32)

    def train(name, *callbacks, **changes):
        model, recipe = build_model(), make_training(save_steps=2, optim_rank=4, **changes)
        loss = train_phase(model, windows, Phase(5, 1e-2, 0), recipe, tmp_path / name, callbacks)["train_loss"]
        return loss, model.state_dict()

    loss, whole = train("whole", optim=optim)
    with pytest.raises(InterruptedError):
        train("killed", Stop(), optim=optim)
    again, resumed = train("killed", optim=optim)
    assert again == loss and all(resumed[name].equal(tensor) for name, tensor in whole.items())
    assert train("adam")[0] != loss


def test_a_missing_package_and_divided_weights_are_refused(monkeypatch):
    recipe = TrainingRecipe(optim="galore_adamw")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"optim='galore_adamw' needs galore-torch: pip install galore-torch"):
        check_optimizer(recipe, sharded=False)
    with pytest.raises(RecipeError, match="FSDP and DeepSpeed divide"):
        check_optimizer(TrainingRecipe(optim="adafactor"), sharded=True)
    check_optimizer(TrainingRecipe(), sharded=True)


def test_what_is_said_of_adam_is_as_before():
    assert optimizer_arguments(TrainingRecipe()) == {}
    assert TrainingRecipe().to_dict().keys().isdisjoint({"optim", "optim_rank"})
    assert TrainingRecipe(optim="adafactor").to_dict()["optim"] == "adafactor"


def test_bytes_of_a_state():
    """Two Linears of 8 x 32 and 10 other weights; projected to rank 4."""
    linears, trainable = [(8, 32), (32, 8)], 2 * 8 * 32 + 10
    found = {
        optim: optimizer_bytes(TrainingRecipe(optim=optim, optim_rank=4), trainable, linears)
        for optim in ("adamw", "adamw_8bit", "adafactor", "galore_adamw", "apollo_adamw")
    }
    projected = 2 * 4 * 4 * (2 * 32 + 8) + 8 * 10
    assert found == {
        "adamw": 8 * trainable,
        "adamw_8bit": 2 * trainable,
        "adafactor": 4 * (2 * 40 + 10),
        "galore_adamw": projected,
        "apollo_adamw": projected,
    }
