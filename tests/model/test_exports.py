"""The model as a graph: torch.export and ONNX take it with its glyph bits, grown and under the merge rules.

Rules that sum logits take any batch and length, the others, which read long texts in pieces, those of the example.
"""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import AutoModelForCausalLM

from frozen_glyph.model.rules_frozen_glyph import RULES

GROWN = None
NOT_IN_ONNX = {"evidence"}  # it looks for the begin of its window with searchsorted


class Logits(nn.Module):
    """Token ids [B, T] -> logits [B, T, V]: a graph has no cache to hand on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, use_cache=False).logits


@pytest.fixture
def case(experts, merged_folder):
    """``case(rule)``: the module, the dimensions of its ids that may differ, and the shapes to try."""

    def load(rule):
        folder, options = (experts[1], {}) if rule is GROWN else (merged_folder, {"rule": rule})
        module = Logits(AutoModelForCausalLM.from_pretrained(folder, **options).eval())
        if rule is GROWN or RULES[rule].one_head:
            return module, ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},), [(2, 9), (3, 17)]
        return module, None, [(2, 9)]

    return load


@pytest.mark.parametrize("rule", [GROWN, *(pytest.param(rule, marks=pytest.mark.slow) for rule in RULES)])
def test_torch_export(rule, case, token_ids):
    module, dynamic, shapes = case(rule)
    program = torch.export.export(module, (token_ids(2, 9),), dynamic_shapes=dynamic).module()
    for shape in shapes:
        ids = token_ids(*shape)
        torch.testing.assert_close(program(ids), module(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GROWN, *(rule for rule in RULES if rule not in NOT_IN_ONNX)])
def test_onnx(rule, case, token_ids, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime runs what is exported")
    pytest.importorskip("onnxscript", reason="torch.onnx writes with onnxscript")
    module, dynamic, shapes = case(rule)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(module, (token_ids(2, 9),), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    program.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for shape in shapes:
        ids = token_ids(*shape)
        found = session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), module(ids), atol=1e-4, rtol=1e-4)
