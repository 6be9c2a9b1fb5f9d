"""The head's product is that of ``nn.functional.linear``, wherever it is computed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from frozen_glyph.model.head_frozen_glyph import HAS_BOTH, OutputHead, head_linear, log_sum

D, V = 48, 1000


class Recorder(TorchDispatchMode):
    """Keeps the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def by_onednn(head: Callable[[], torch.Tensor]) -> bool:
    with Recorder() as recorder:
        head()
    return any("_linear_pointwise" in name for name in recorder.names)


@pytest.fixture
def head() -> OutputHead:
    torch.manual_seed(0)
    head = OutputHead(D, V)
    nn.init.normal_(head.bias)
    return head


@pytest.mark.parametrize("shape", [(D,), (1, 1, D), (8, 1, D), (3, 70, D)])
def test_the_product_is_that_of_linear(head: OutputHead, shape: tuple[int, ...]) -> None:
    states = torch.randn(shape)
    with torch.no_grad():
        found = head(states)
        assert torch.equal(head(states), found)
        reference = (states.double() @ head.weight.double().T + head.bias.double()).float()
    torch.testing.assert_close(found, reference)
    assert found.shape == (*shape[:-1], V)


@pytest.mark.skipif(not HAS_BOTH, reason="this torch has MKL or oneDNN, not both")
def test_onednn_computes_it_where_nothing_follows(head: OutputHead) -> None:
    states = torch.randn(2, 40, D)
    with torch.no_grad():
        assert by_onednn(lambda: head(states))
        assert by_onednn(lambda: head(states[:, 1:]))  # a slice of the states, as logits_to_keep makes
        assert not by_onednn(lambda: head(states[:, :1]))  # a token of each sequence, as in generation
    with torch.inference_mode():
        assert by_onednn(lambda: head(states))


@pytest.mark.parametrize(
    "context",
    [torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.backends.mkldnn.flags(False)],
    ids=["autograd", "autocast", "oneDNN off"],
)
def test_linear_computes_it_elsewhere(head: OutputHead, context: Callable[[], AbstractContextManager[None]]) -> None:
    states = torch.randn(2, 40, D)
    with torch.no_grad(), context():
        assert not by_onednn(lambda: head(states))
        assert torch.equal(head(states), nn.functional.linear(states, head.weight, head.bias))


@pytest.mark.parametrize("kind", ["bfloat16", "float64", "part of a joint head", "meta"])
def test_other_tensors_are_left_to_linear(kind: str) -> None:
    states, weight, bias = torch.randn(2, 40, D), torch.randn(V, D), torch.randn(V)
    if kind == "part of a joint head":  # oneDNN would take seconds for columns of a wider matrix
        weight = torch.randn(V, 2 * D).chunk(2, dim=1)[1]
    elif kind == "meta":
        states, weight, bias = (each.to("meta") for each in (states, weight, bias))
    else:
        states, weight, bias = (each.to(getattr(torch, kind)) for each in (states, weight, bias))
    with torch.no_grad():
        assert not by_onednn(lambda: head_linear(states, weight, bias))
        found, expected = head_linear(states, weight, bias), nn.functional.linear(states, weight, bias)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert kind == "meta" or torch.equal(found, expected)


def test_hooks_and_adapters_see_the_head(head: OutputHead) -> None:
    seen: list[torch.Size] = []
    head.register_forward_hook(lambda module, inputs, logits: seen.append(logits.shape))
    with torch.no_grad():
        head(torch.randn(4, D))
    assert seen == [torch.Size([4, V])] and isinstance(head, nn.Linear)


def test_compiled_and_eager_heads_agree(head: OutputHead) -> None:
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    states = torch.randn(70, D)
    with torch.no_grad():
        torch.testing.assert_close(compiled(states), head(states))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_log_sums_are_those_of_whole_logits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of some columns of a merged model's weight, and with autograd, which keeps the plain way."""
    monkeypatch.setattr("frozen_glyph.model.head_frozen_glyph.BLOCK_TOKENS", 300)
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((2, 9, D), (V, 2 * D), (V,)))
    weight = weight[:, D:]
    expected = nn.functional.linear(states.float(), weight.float(), bias.float()).logsumexp(-1)
    with torch.no_grad():
        found = log_sum(states, weight, bias)
    for each in (found, log_sum(states, weight, bias)):
        assert each.dtype == torch.float32
        torch.testing.assert_close(each, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
