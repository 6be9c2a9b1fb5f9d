"""Sick blocks are flagged, healthy ones are not, and the numbers do not depend on how examples come in batches."""

import copy

import pytest
import torch

from frozen_glyph import FrozenGlyphMoEForCausalLM
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.health.capture import blocks_of, capture
from frozen_glyph.health.measure import model_health
from frozen_glyph.health.replace import replace_linear

from .conftest import SICK, make_model, make_text, train


@pytest.mark.parametrize(("width", "layers"), [(16, 1), (32, 2), (48, 3)])
def test_healthy_blocks_are_not_flagged(width, layers):
    """Twenty seeds, each after another number of steps."""
    for seed in range(20):
        model = make_model(seed, width, layers)
        train(model, seed % 4, seed)
        found = model_health(model, [make_text(seed)])
        assert found["collapsed"] == [], (seed, [block["flags"] for block in found["blocks"]])


@pytest.mark.parametrize("make_sick", SICK, ids=lambda each: each.__name__)
@pytest.mark.parametrize("block", [0, 1])
def test_sick_blocks_are_flagged_and_no_other(healthy, make_sick, block):
    model = copy.deepcopy(healthy)
    make_sick(model, block)
    sick = 1 if make_sick.__name__ == "duplicated" else block  # of two equal blocks the upper one is the copy
    found = model_health(model, [make_text()])
    assert found["collapsed"] == [f"model.layers.{sick}"], [entry["flags"] for entry in found["blocks"]]


def test_additive_blocks_learn_no_more_than_a_bias():
    """Most tokens follow from the one before. Blocks of matrix products find that, additive ones the frequencies."""
    losses = {}
    for kind in ("matmul", "additive"):
        model = replace_linear(make_model(), kind)
        train(model, 60)
        found = model_health(model, [make_text()])
        assert bool(found["collapsed"]) == (kind == "additive")
        losses[kind] = found["loss"]
    assert losses["matmul"] < 3 and losses["additive"] > 4.4


def numbers(report):
    return {key: report[key] for key in ("loss", "blocks", "collapsed", "examples", "tokens")}


def test_order_and_division_of_the_examples_change_no_bit(healthy):
    ids = make_text(count=13)
    found = numbers(model_health(healthy, [ids]))
    shuffled = ids[torch.randperm(13, generator=torch.Generator().manual_seed(3))]
    for batches in ([shuffled], list(ids.split(4)), [shuffled[:1], shuffled[1:]]):
        assert numbers(model_health(healthy, batches)) == found


def test_numbers_are_stable_to_the_number_of_examples(healthy):
    """From 16 to 64 examples: within these bounds, and the verdict is the same."""
    reports = [model_health(healthy, [make_text(seed, count)]) for seed, count in ((1, 16), (2, 32), (3, 64))]
    assert all(report["collapsed"] == [] for report in reports)
    largest = reports[-1]
    for report in reports[:-1]:
        for block, reference in zip(report["blocks"], largest["blocks"], strict=True):
            for key, bound in (("move", 0.1), ("off_diagonal", 0.1), ("mixing_rank", 0.15)):
                assert block["metrics"][key] == pytest.approx(reference["metrics"][key], rel=bound), key
            for name, values in block["linears"].items():
                expected = reference["linears"][name]
                assert values["gradient_rank"] == pytest.approx(expected["gradient_rank"], rel=0.35), name
                assert values["constancy"] == pytest.approx(expected["constancy"], abs=0.2), name
                assert values["mixing_rank"] == pytest.approx(expected["mixing_rank"], rel=0.01), name
                assert values["update_ratio"] == pytest.approx(expected["update_ratio"], rel=0.1), name


def test_what_is_captured_is_what_autograd_says(healthy):
    ids, model = make_text(count=10), copy.deepcopy(healthy)
    traces, loss = capture(model, ids, list(blocks_of(model)))
    losses = model(ids, labels=ids).loss
    losses.backward()
    assert loss == pytest.approx(losses.item(), rel=1e-5)
    for trace in traces.values():
        for linear in trace.linears.values():
            grads, inputs = torch.cat(linear.grads), torch.cat(linear.inputs)
            total = torch.einsum("nto,nti->oi", grads, inputs) / 10
            torch.testing.assert_close(total, linear.layer.weight.grad, atol=1e-6, rtol=1e-3)


def test_the_model_is_left_as_it_was(healthy):
    model = copy.deepcopy(healthy).train()
    model.model.layers[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    model_health(model, [make_text()])
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.model.layers[0].parameters())
    assert all(parameter.requires_grad for parameter in model.model.layers[1].parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_chosen_blocks_have_the_numbers_they_have_among_all(healthy):
    whole, top = model_health(healthy, [make_text()]), model_health(healthy, [make_text()], blocks=["model.layers.1"])
    assert top["blocks"] == whole["blocks"][1:]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_measured_in_float32(healthy, dtype):
    found = model_health(copy.deepcopy(healthy).to(dtype), [make_text()])
    reference = model_health(healthy, [make_text()])
    assert found["collapsed"] == [] and found["loss"] == pytest.approx(reference["loss"], abs=0.02)


@pytest.mark.parametrize("rule", ["mean", "posterior"])
def test_every_expert_of_a_merged_model_is_measured(merged_folder, token_ids, rule):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    found = model_health(model, [token_ids(6, 12)])
    assert [entry["name"] for entry in found["blocks"]] == list(blocks_of(model))
    assert len(found["blocks"]) == 5 and found["collapsed"] == []


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "0 examples"),
        ([torch.zeros(2, 8, dtype=torch.long)], r"2 examples of length \[8\].*3 examples or more"),
        ([torch.zeros(3, 8, dtype=torch.long), torch.zeros(1, 9, dtype=torch.long)], r"length \[8, 9\]"),
        ([torch.zeros(4, 1, dtype=torch.long)], r"at least 2"),
    ],
)
def test_unusable_examples_are_refused(healthy, batches, message):
    with pytest.raises(FrozenGlyphError, match=message):
        model_health(healthy, batches)


def test_an_unknown_block_is_refused(healthy):
    with pytest.raises(FrozenGlyphError, match=r"model\.layers\.7.*this model has model\.layers\.0, model\.layers\.1"):
        model_health(healthy, [make_text()], blocks=["model.layers.7"])


def test_a_model_without_such_blocks_is_refused():
    foreign = torch.nn.Embedding(8, 4)
    foreign.device = torch.device("cpu")
    with pytest.raises(FrozenGlyphError, match="Embedding has none of the blocks that health knows"):
        model_health(foreign, [torch.zeros(3, 4, dtype=torch.long)])
