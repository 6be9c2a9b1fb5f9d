"""trl's tests of supervised fine-tuning on one variant. Run by ``python tests/peers``.

Their tests load models and texts by names on the Hub; folders of those names in the working directory stand in.
"""

import types

import pytest
import torch
from peers.fetch import load
from peers.targets import name_targets
from trl import SFTConfig

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


name_targets()
tests = load("trl", "test_sft_trainer")
tests.torch = types.SimpleNamespace(**{name: getattr(torch, name) for name in dir(torch)} | {"equal": equal})
if not torch.accelerator.is_available():  # without being told, trl trains in bfloat16 on a GPU
    _made = SFTConfig.__init__
    SFTConfig.__init__ = lambda self, *args, **kwargs: _made(self, *args, **{"use_cpu": True} | kwargs)
for _name, _class in vars(tests).items():
    if _name.startswith("Test") and _name not in OF_NO_MODEL:
        globals()[_name] = _class
    if "CELMHead" in _name:
        _class.pytestmark = []  # they run it on accelerators alone
