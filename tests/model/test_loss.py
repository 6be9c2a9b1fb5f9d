"""The loss without logits is transformers' own loss, in value and gradients, and makes no tensor as large as them."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.loss.loss_utils import ForCausalLMLoss

from frozen_glyph.model import loss_frozen_glyph
from frozen_glyph.model.loss_frozen_glyph import chunked_causal_loss

BATCH, LENGTH, WIDTH, VOCAB = 3, 11, 16, 50


@pytest.fixture(params=[4, 10, 1000], ids="chunk{}".format)
def chunks(request, monkeypatch):
    monkeypatch.setattr(loss_frozen_glyph, "CHUNK_TOKENS", request.param)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    labels = torch.randint(VOCAB, (BATCH, LENGTH))
    labels[0, :4] = labels[2, -1] = -100
    return torch.randn(BATCH, LENGTH, WIDTH), torch.nn.Linear(WIDTH, VOCAB), labels


def whole_loss(states, head, labels, **kwargs):
    """The reference: all logits at once."""
    return ForCausalLMLoss(logits=head(states), labels=labels, vocab_size=VOCAB, **kwargs)


def loss_and_gradients(compute, states, head, labels, scale=1.0, autocast=False, **kwargs):
    states, head = states.clone().requires_grad_(), copy.deepcopy(head)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = compute(states, head, labels, **kwargs)
    (scale * loss).backward()
    assert loss.dtype == torch.float32
    return [loss.detach(), states.grad, head.weight.grad, head.bias.grad]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kwargs", [{}, {"num_items_in_batch": 70}, {"num_items_in_batch": torch.tensor(70)}], ids=str)
def test_equals_the_loss_of_whole_logits(inputs, chunks, kwargs, autocast):
    found = loss_and_gradients(chunked_causal_loss, *inputs, scale=3.0, autocast=autocast, **kwargs)
    expected = loss_and_gradients(whole_loss, *inputs, scale=3.0, autocast=autocast, **kwargs)
    for mine, theirs in zip(found, expected, strict=True):
        # bf16 rounds each product to 8 bits; both ways stay that close to each other
        torch.testing.assert_close(mine, theirs, rtol=2e-2 if autocast else 1e-5, atol=2e-3 if autocast else 1e-6)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)  # the loss itself is never rounded


def test_accumulated_micro_batches_are_one_batch(inputs, chunks):
    states, head, labels = inputs
    count = labels[:, 1:].ne(-100).sum()
    whole = loss_and_gradients(whole_loss, states, head, labels)
    rows = [slice(row, row + 1) for row in range(BATCH)]
    parts = [
        loss_and_gradients(chunked_causal_loss, states[row], head, labels[row], num_items_in_batch=count)
        for row in rows
    ]
    for place in (0, 2, 3):  # loss, gradients of weight and bias
        torch.testing.assert_close(sum(part[place] for part in parts), whole[place])


@pytest.mark.parametrize("frozen", ["states", "weight", "bias", "no bias"])
def test_only_what_trains_gets_a_gradient(inputs, frozen):
    states, head, labels = inputs
    if frozen == "no bias":
        head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
    elif frozen != "states":
        getattr(head, frozen).requires_grad_(False)
    states.requires_grad_(frozen != "states")
    chunked_causal_loss(states, head, labels).backward()
    for tensor in (states, *head.parameters()):
        assert (tensor.grad is not None) == tensor.requires_grad


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("grad", [True, False])
def test_logits_are_never_whole(inputs, monkeypatch, grad):
    monkeypatch.setattr(loss_frozen_glyph, "CHUNK_TOKENS", 8)
    with torch.set_grad_enabled(grad), Largest() as largest:
        loss = chunked_causal_loss(*inputs)
        if grad:
            loss.backward()
    assert largest.elements == max(8 * VOCAB, WIDTH * VOCAB)
    with torch.set_grad_enabled(grad), Largest() as largest:
        whole_loss(*inputs)
    assert largest.elements >= BATCH * LENGTH * VOCAB


def test_model_without_logits(build_model, token_ids):
    model = build_model()
    ids = token_ids(2, 20)
    with torch.no_grad():
        usual, fused = (model(input_ids=ids, labels=ids, skip_logits=skip) for skip in (False, True))
    assert fused.logits is None
    torch.testing.assert_close(fused.loss, usual.loss)
    with pytest.raises(ValueError, match="skip_logits=True needs labels"):
        model(input_ids=ids, skip_logits=True)
