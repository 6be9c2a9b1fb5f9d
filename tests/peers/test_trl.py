"""trl's tests of supervised fine-tuning on one variant. Run by ``python tests/peers``.

Their tests load models and texts by names on the Hub; folders of those names in the working directory stand in.
"""

import os
import types
from typing import Any

import pytest
import torch
from peers.fetch import load
from peers.targets import name_targets
from peers.variants import APART, CHOICE
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

pytestmark = pytest.mark.peers
STANDS_IN_FOR = (
    "trl-internal-testing/tiny-Qwen2ForCausalLM-2.5",
    "trl-internal-testing/tiny-Qwen3ForCausalLM",
    "trl-internal-testing/tiny-GPTNeoXForCausalLM",
    "trl-internal-testing/tiny-LlamaForCausalLM-3.2",
    "trl-internal-testing/tiny-CohereForCausalLM",
    "Qwen/Qwen3-4B",
)
OF_NO_MODEL = ("TestDFTLoss", "TestDataCollatorForLanguageModeling", "TestChunkedCrossEntropyLoss")


def equal(before: torch.Tensor, after: torch.Tensor) -> bool:
    """``torch.equal`` as their tests use it, to ask whether training has moved a parameter: not one that is frozen."""
    if isinstance(after, torch.nn.Parameter) and not after.requires_grad:
        assert torch.equal(before, after), "training moved a frozen parameter"
        return False
    return torch.equal(before, after)


def set_defaults() -> None:
    """Say what their tests leave out: to train on a CPU where that is all, and whose loss it is.

    Under a rule that is no sum of logits the model makes the loss, as its error says: trl multiplies by the head's
    weight, in its newer versions whatever it is told, in older ones only by default.
    """
    given: dict[str, Any] = {} if torch.accelerator.is_available() else {"use_cpu": True}  # else bfloat16 on a GPU
    if os.environ[CHOICE] in APART:
        if SFTConfig.__dataclass_fields__["loss_type"].default == "nll":
            tests.SFTTrainer = type("SFTTrainer", (SFTTrainer,), {"compute_loss": Trainer.compute_loss})
        else:
            given["loss_type"] = "nll"
    made = SFTConfig.__init__
    SFTConfig.__init__ = lambda self, *args, **kwargs: made(self, *args, **given | kwargs)


name_targets()
tests = load("trl", "test_sft_trainer")
tests.torch = types.SimpleNamespace(**{name: getattr(torch, name) for name in dir(torch)} | {"equal": equal})
set_defaults()
for _name, _class in vars(tests).items():
    if _name.startswith("Test") and _name not in OF_NO_MODEL:
        globals()[_name] = _class
    if "CELMHead" in _name:
        _class.pytestmark = []  # they run it on accelerators alone
