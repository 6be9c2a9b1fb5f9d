"""A prompt of which only what counts is read leads to what reading all of it does, cached, cropped and padded."""

import copy

import pytest
import torch
from transformers import DynamicCache

from frozen_glyph import FrozenGlyphMoEForCausalLM
from frozen_glyph.model import skimming_frozen_glyph
from frozen_glyph.model.generation_frozen_glyph import CACHE

FIELDS = {"evidence": {"evidence_window": 4}, "fixed_share": {"switching_rates": [0.3]}, "posterior": {}}
LENGTH = 40


@pytest.fixture(scope="module", params=FIELDS)
def model(request, merged_folder):
    fields = {"rule": request.param, **FIELDS[request.param]}
    return FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, **fields).eval()


@pytest.fixture
def read(model, monkeypatch):
    """Of how many tokens the whole heads were asked in each call."""
    monkeypatch.setattr(skimming_frozen_glyph, "LEAST_READ", 8)
    seen = []

    def note(head, inputs, arguments):
        if arguments.get("normalisers"):
            seen.append(inputs[0].shape[1])

    hook = model.lm_head.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


@torch.no_grad()
def close_to_reading_all(model, ids, found, **arguments):
    expected = model(ids, use_cache=False, **arguments).logits[:, -found.shape[1] :]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_prompt(model, token_ids, read):
    """``posterior`` reads all, ``evidence`` its window, ``fixed_share`` until nothing before matters."""
    ids = token_ids(2, LENGTH, seed=80)
    output = model(ids[:, :-2], logits_to_keep=1, use_cache=True)
    close_to_reading_all(model, ids[:, :-2], output.logits)
    rule = model.config.rule
    assert sum(read) == 37 if rule == "posterior" else sum(read) == 4 if rule == "evidence" else 8 <= sum(read) < 37
    read.clear()
    close_to_reading_all(model, ids, model(ids[:, -2:], **{CACHE: output[CACHE]}).logits)
    assert not read  # nothing was missing
    rest, known = model.expert_weights(output[CACHE]), model(ids, return_expert_weights=True).expert_weights
    torch.testing.assert_close(rest, known, atol=1e-4, rtol=1e-4)
    assert bool(read) == (rule != "posterior")


@torch.no_grad()
def test_rounding_is_no_memory(merged_folder, token_ids, read, model):
    """Text that every expert holds for next to impossible: large sums, of which differences of weights are little."""
    sure = copy.deepcopy(model)
    sure.lm_head.weight.mul_(1000)
    sure(token_ids(2, LENGTH, seed=86), logits_to_keep=1, use_cache=True)
    assert sum(read) == {"posterior": LENGTH - 1, "evidence": 4, "fixed_share": 8}[model.config.rule]


@torch.no_grad()
@pytest.mark.parametrize("left", [20, 37])
def test_a_cache_cropped_into_a_prompt(model, token_ids, left):
    """What was skipped is read when it counts: once; copies know of it too."""
    ids, other = token_ids(2, LENGTH, seed=81), token_ids(2, 3, seed=82)
    cache = model(ids, logits_to_keep=2, use_cache=True)[CACHE]
    cache.crop(left - LENGTH)
    copy = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys.clone(), layer.values.clone(), number)
    for each in (cache, copy):
        found = [model(other[:, :2], **{CACHE: each}).logits, model(other[:, 2:], **{CACHE: each}).logits]
        close_to_reading_all(model, torch.cat([ids[:, :left], other], dim=1), torch.cat(found, dim=1))


@torch.no_grad()
def test_padded_rows_and_documents(model, token_ids):
    """The window of each row reaches over its padding; a document that begins within is not left."""
    ids = token_ids(4, LENGTH, seed=83)
    mask = torch.ones_like(ids)
    mask[0, :30], mask[1, 36:], mask[2, 25:38] = 0, 0, 0
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    position_ids[3] = torch.cat([torch.arange(35), torch.arange(5)])
    for mask_of_row, positions in ((mask, None), (mask, position_ids), (None, torch.arange(LENGTH).repeat(4, 1) % 18)):
        arguments = {"attention_mask": mask_of_row, "position_ids": positions}
        found = model(ids, logits_to_keep=1, use_cache=True, **arguments)
        close_to_reading_all(model, ids, found.logits, **arguments)


@torch.no_grad()
def test_turns(model, token_ids):
    """A long turn after a long turn: the second skips too, and a cache cropped into the first knows of both."""
    ids = token_ids(2, 2 * LENGTH, seed=84)
    cache = model(ids[:, :LENGTH], logits_to_keep=1, use_cache=True)[CACHE]
    found = model(ids[:, LENGTH:], logits_to_keep=1, **{CACHE: cache}).logits
    close_to_reading_all(model, ids, found)
    cache.crop(-LENGTH - 10)
    close_to_reading_all(model, ids[:, : LENGTH - 7], model(ids[:, LENGTH - 10 : LENGTH - 7], **{CACHE: cache}).logits)


@torch.no_grad()
def test_an_estimate_reads_no_more_than_was_allowed(merged_folder, token_ids, read, model):
    """Half of it at the end; of a text that repeats itself the sum over all tokens is estimated exactly."""
    model.config.prompt_sample = 12
    ids = token_ids(1, 3, seed=85).repeat(1, 14)
    with torch.no_grad():
        estimated = model(ids, logits_to_keep=1, return_expert_weights=True).expert_weights
        assert sum(read) == (4 if model.config.rule == "evidence" else 12)
        model.config.prompt_sample = None
        exact = model(ids, logits_to_keep=1, return_expert_weights=True).expert_weights
    assert (estimated - exact).abs().max() < 0.05


def test_chunked_normalisers(model, token_ids, monkeypatch):
    """Blocks of states and of the vocabulary add up to one ``logsumexp``, gradients included."""
    monkeypatch.setattr("frozen_glyph.model.head_frozen_glyph.BLOCK_STATES", 7)
    monkeypatch.setattr("frozen_glyph.model.head_frozen_glyph.BLOCK_TOKENS", 11)
    states = torch.randn(2, 9, 2 * 48, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = model.lm_head(states, normalisers=True)
    expected = torch.stack([own.logsumexp(-1) for own in model.lm_head(states, apart=True)], dim=-1)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each.square().sum(), states)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)
