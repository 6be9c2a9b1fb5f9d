"""Attention while training takes the fast path: causal without a mask, and nothing that the host has to wait for."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from frozen_glyph.model.generation_frozen_glyph import CACHE

FULL = "scaled_dot_product_attention"


@pytest.fixture
def model(build_model):
    return build_model(seed=1).train()


def arguments_of(calls):
    """(mask, is_causal) of each call."""
    return {(options.get("attn_mask"), options.get("is_causal")) for options in calls}


def test_without_positions_attention_is_causal_and_has_no_mask(model, token_ids, monkeypatch):
    calls, attend = [], torch.nn.functional.scaled_dot_product_attention

    def recorded(*args, **options):
        calls.append(options)
        return attend(*args, **options)

    monkeypatch.setattr(torch.nn.functional, FULL, recorded)
    ids = token_ids(2, 12)
    model(input_ids=ids, labels=ids, skip_logits=True, use_cache=False).loss.backward()
    assert arguments_of(calls) == {(None, True)}
    calls.clear()
    apart = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]] * 2)
    model(input_ids=ids, position_ids=apart, labels=ids, skip_logits=True, use_cache=False)
    assert all(options["attn_mask"] is not None and not options["is_causal"] for options in calls)


@pytest.mark.skipif(CACHE != "cache", reason="before 5.24 transformers makes a mask while it compiles")
def test_the_same_under_compile(model, token_ids):
    calls = []

    def keep_calls(graph, inputs):
        calls.extend(node.kwargs for node in graph.graph.nodes if FULL in str(node.target))
        return graph

    ids = token_ids(2, 12)
    compiled = torch.compile(model.model, backend=keep_calls, fullgraph=True)
    compiled(input_ids=ids, use_cache=False)
    assert arguments_of(calls) == {(None, True)}


class Asked(TorchDispatchMode):
    """Keeps the operators whose results the host needs: numbers, and how many elements are not zero."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).split(".")[1] in ("_local_scalar_dense", "nonzero", "equal", "masked_select"):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_training_step_asks_the_device_for_nothing(model, token_ids):
    ids = token_ids(2, 12)
    model(input_ids=ids)  # the first call of all sees whether the substrate has its bits
    with Asked() as asked:
        ids.sum().item()
        assert asked.names.pop() == "aten._local_scalar_dense.default"  # so it would be seen
        model(input_ids=ids, labels=ids, skip_logits=True, use_cache=False).loss.backward()
    assert asked.names == []
