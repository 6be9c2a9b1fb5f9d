"""Generation with every cache equals taking the best token of a full forward pass again and again.

Each test runs for a single model and for experts merged under each rule that differs in what it caches.
"""

import inspect

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.model import drafting_frozen_glyph
from frozen_glyph.model.generation_frozen_glyph import CACHE

NEW_TOKENS = 7


@pytest.fixture(scope="module", params=["single", "mean", "probability", "posterior", "evidence", "fixed_share"])
def model(request, experts, merged_folder):
    if request.param == "single":
        model = FrozenGlyphForCausalLM.from_pretrained(experts[1])
    else:
        model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=request.param, evidence_window=4)
    model.generation_config.eos_token_id = None  # no row stops early
    return model.eval()


@torch.no_grad()
def greedy(model, ids):
    """Ids [1, T] -> the next ``NEW_TOKENS`` ids and the logits that chose them, without any cache."""
    chosen, logits = [], []
    for _ in range(NEW_TOKENS):
        logits.append(model(ids, use_cache=False).logits[0, -1])
        chosen.append(int(logits[-1].argmax()))
        ids = torch.cat([ids, torch.tensor([chosen[-1:]])], dim=1)
    return chosen, torch.stack(logits)


def generate(model, ids, **arguments):
    """New ids [B, NEW_TOKENS] of ``model.generate``."""
    output = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, **arguments)
    return output[:, ids.shape[1] :]


@pytest.mark.parametrize(
    "arguments", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=["dynamic", "no", "static"]
)
def test_greedy_with_every_cache(model, token_ids, arguments):
    ids = token_ids(3, 9, seed=5)
    expected = [greedy(model, row[None])[0] for row in ids]
    assert generate(model, ids, **arguments).tolist() == expected


@pytest.mark.parametrize("arguments", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_left_padding_changes_nothing(model, token_ids, arguments):
    rows = [token_ids(1, length, seed=length)[0] for length in (3, 10, 6)]
    ids = torch.full((3, 10), model.config.pad_token_id)
    for row, text in zip(ids, rows, strict=True):
        row[10 - len(text) :] = text
    mask = (ids != model.config.pad_token_id).long()
    output = model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True,
        return_dict_in_generate=True, **arguments,
    )  # fmt: skip
    for number, text in enumerate(rows):
        chosen, logits = greedy(model, text[None])
        assert output.sequences[number, 10:].tolist() == chosen
        torch.testing.assert_close(torch.stack([step[number] for step in output.logits]), logits, atol=1e-4, rtol=1e-4)


def test_left_padded_forward_equals_single_rows(model, token_ids):
    text = token_ids(1, 6)
    ids = torch.cat([torch.full((1, 4), model.config.pad_token_id), text], dim=1)
    mask = (ids != model.config.pad_token_id).long()
    padded = model(ids, attention_mask=mask).logits[:, 4:]
    torch.testing.assert_close(padded, model(text).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_beam_search_with_and_without_cache(model, token_ids, arguments):
    ids = token_ids(6, 6, seed=8)
    uncached = generate(model, ids, num_beams=4, use_cache=False)
    assert torch.equal(generate(model, ids, num_beams=4, **arguments), uncached)
    assert not torch.equal(uncached, generate(model, ids))  # beams were really compared


def test_prompt_lookup_and_assistant(model, token_ids, build_model):
    """Both propose tokens and crop the cache where the model disagrees."""
    ids = token_ids(1, 5, seed=9).repeat(1, 3)
    expected = greedy(model, ids)[0]
    assert generate(model, ids, prompt_lookup_num_tokens=3)[0].tolist() == expected
    assistant = build_model(seed=20, num_hidden_layers=1)
    assert generate(model, ids, assistant_model=assistant)[0].tolist() == expected


STATIC = pytest.param(
    {"cache_implementation": "static"},
    marks=pytest.mark.skipif(CACHE != "cache", reason="transformers drafts over a static cache from 5.24 on"),
    id="static",
)


@pytest.mark.parametrize("arguments", [pytest.param({}, id="dynamic"), STATIC])
def test_a_models_own_shallow_exit_drafts_for_it(model, token_ids, arguments, monkeypatch):
    """The last norm and head on block k propose, all blocks decide; experts end together and have no such exit.

    Whole drafts, and drafts among a short list of tokens that most right ones are not on.
    """
    ids = token_ids(1, 9, seed=5)
    if not hasattr(model.model, "layers"):
        with pytest.raises(ValueError, match=r"assistant_early_exit=1 of FrozenGlyphMoE\w+ must be left out"):
            generate(model, ids, assistant_early_exit=1)
        with pytest.raises(ValueError, match=r"draft_stage=1 of FrozenGlyphMoE\w+ must be left out"):
            generate(model, ids, draft_stage=1)
        return
    expected, blocks, depths = greedy(model, ids)[0], len(model.model.layers), []
    hook = model.model.register_forward_pre_hook(lambda module, inputs: depths.append(module.config.num_hidden_layers))
    padded = torch.cat([torch.zeros_like(ids[:, :3]), ids], dim=1)
    for early in range(1, blocks + 1):
        for size in (4096, 16):
            monkeypatch.setattr(drafting_frozen_glyph, "SHORT_LIST", size)
            depths.clear()
            assert generate(model, ids, assistant_early_exit=early, **arguments)[0].tolist() == expected
            assert set(depths) == {early, blocks}
        mask = (padded != 0).long()
        assert generate(model, padded, attention_mask=mask, assistant_early_exit=early)[0].tolist() == expected
    depths.clear()
    assert generate(model, ids, draft_stage=1, **arguments)[0].tolist() == expected
    assert set(depths) == {1, blocks}
    hook.remove()
    for early in (-1, 0, blocks + 1):
        with pytest.raises(ValueError, match=f"assistant_early_exit={early} .* must be from 1 to {blocks}"):
            generate(model, ids, assistant_early_exit=early)
    with pytest.raises(ValueError, match=r"growth_stage=3 does not exist; stages here: 1..2"):
        generate(model, ids, draft_stage=3)


def test_the_leading_expert_drafts_for_all(model, token_ids):
    """It runs alone between checks of all, over padding too; refused where nobody leads or the cache cannot lag."""
    ids = token_ids(1, 9, seed=5)
    if getattr(model.config, "rule", "mean") in ("mean", "probability"):
        with pytest.raises(ValueError, match="draft_expert=True needs a merged model whose rule is one of posterior,"):
            generate(model, ids, draft_expert=True)
        return
    expected, runs = greedy(model, ids)[0], [0] * len(model.model.experts)

    def count(expert):
        def hook(module, inputs):
            runs[expert] += 1

        return hook

    hooks = [own.layers[0].register_forward_pre_hook(count(at)) for at, own in enumerate(model.model.experts)]
    assert generate(model, ids, draft_expert=True)[0].tolist() == expected
    assert max(runs) > min(runs)
    for hook in hooks:
        hook.remove()
    padded = torch.cat([torch.zeros_like(ids[:, :3]), ids], dim=1)
    found = generate(model, padded, attention_mask=(padded != 0).long(), draft_expert=True)
    assert found[0].tolist() == expected
    beams = generate(model, ids, num_beams=2)
    assert generate(model, ids, num_beams=2, draft_expert=True).tolist() == beams.tolist()  # nobody drafts
    with pytest.raises(ValueError):
        generate(model, ids, draft_expert=True, cache_implementation="static")
    with pytest.raises(ValueError, match="batch_size"):
        generate(model, token_ids(2, 9, seed=5), draft_expert=True)


def test_drafts_of_all_blocks_are_taken_whole(build_model, token_ids):
    """What drafts is on the model's own cache, in the right positions: what all blocks draft, they also choose."""
    model = build_model(seed=4, num_hidden_layers=2)
    model.generation_config.eos_token_id, reads = None, []
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so sure that no draft ends early
    model.model.register_forward_pre_hook(
        lambda module, inputs, options: reads.append(options.get("input_ids", *inputs).shape[1]), with_kwargs=True
    )
    ids = token_ids(1, 9, seed=5)
    expected = generate(model, ids).tolist()
    reads.clear()
    assert generate(model, ids, assistant_early_exit=2).tolist() == expected
    assert reads == [9] + [1] * (NEW_TOKENS - 2) + [NEW_TOKENS - 1]  # the prompt, one draft, and its check


@pytest.mark.skipif(CACHE != "cache", reason="the name before transformers 5.24")
def test_the_old_name_of_the_cache_is_warned_of(model, token_ids):
    """As transformers' own models do."""
    ids = token_ids(1, 9, seed=5)
    for called in (model, model.model):
        first = called(ids[:, :5], use_cache=True)
        with pytest.warns(FutureWarning, match="`past_key_values` is deprecated"):
            called(ids[:, 5:], past_key_values=first.cache)


def test_a_signature_is_worked_out_once(model):
    """``generate`` asks for it at every token."""
    for called in (model, model.model):
        forward = type(called).forward
        assert forward.__signature__ == inspect.signature(inspect.unwrap(forward))
        assert list(inspect.signature(called.forward).parameters) == list(forward.__signature__.parameters)[1:]


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(1, 2, 3, 4), (5,), (4, 5)])
def test_a_text_read_in_parts(model, token_ids, cuts):
    ids, cache, parts = token_ids(2, 10, seed=11), None, []
    for begin, end in zip((0, *cuts), (*cuts, 10), strict=True):
        output = model(ids[:, begin:end], use_cache=True, **{CACHE: cache})
        cache = output[CACHE]
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids, use_cache=False).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_cropped_cache_forgets(model, token_ids):
    ids, other = token_ids(2, 10, seed=12), token_ids(2, 4, seed=13)
    cache = model(ids, use_cache=True)[CACHE]
    cache.crop(-4)
    continued = model(other, **{CACHE: cache}).logits
    whole = torch.cat([ids[:, :6], other], dim=1)
    torch.testing.assert_close(continued, model(whole, use_cache=False).logits[:, 6:], atol=1e-4, rtol=1e-4)


def test_sampling_follows_the_seed(model, token_ids):
    ids, drawn = token_ids(1, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=True).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
@torch.no_grad()
def test_compiled_equals_eager(model, token_ids):
    ids = token_ids(2, 9)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits, atol=1e-5, rtol=1e-5
    )
