"""trl's tests of supervised fine-tuning on one variant. Run by ``python tests/peers``.

Their tests load models and texts by names on the Hub; folders of those names in the working directory stand in.
"""

import dataclasses
import types

import pytest
import torch
import trl.trainer.sft_trainer as home
from peers.fetch import load
from peers.targets import name_targets

pytestmark = pytest.mark.peers
STANDS_IN_FOR = tuple(
    f"trl-internal-testing/tiny-{name}"
    for name in ("Qwen2ForCausalLM-2.5", "Qwen3ForCausalLM", "GPTNeoXForCausalLM", "LlamaForCausalLM-3.2")
)


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
    on_cpu = dataclasses.make_dataclass("SFTConfig", [("use_cpu", bool, True)], bases=(home.SFTConfig,))
    tests.SFTConfig = home.SFTConfig = on_cpu
TestSFTTrainer, TestPatchChunkedCELMHead = tests.TestSFTTrainer, tests.TestPatchChunkedCELMHead
TestPatchChunkedCELMHead.pytestmark = []  # they run it on accelerators alone
