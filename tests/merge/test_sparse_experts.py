"""Experts that do not run catch up: what is sparse equals the dense model wherever all have read, and stays near it."""

import math

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.merge.plan import plan_merge
from frozen_glyph.merge.recipe import MergeRecipe
from frozen_glyph.model import scheduling_frozen_glyph
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.model.rules_frozen_glyph import rules_with
from frozen_glyph.recipes.errors import RecipeError


@pytest.fixture(scope="module")
def folders(experts, write_expert):
    return [*experts, write_expert("en", [1], seed=3, num_attention_heads=3)]


@pytest.fixture(scope="module")
def load(folders, tmp_path_factory):
    """``load(**fields)``: three experts merged under a rule that follows the text."""
    folder = merge_experts(folders, tmp_path_factory.mktemp("sparse") / "merged", "fixed_share")

    def load(**fields):
        model = FrozenGlyphMoEForCausalLM.from_pretrained(folder, **fields).eval()
        model.generation_config.eos_token_id = None
        return model

    return load


@pytest.fixture(scope="module")
def texts(folders, token_ids):
    """What each expert writes, [3, 24]: the others do not know it."""
    torch.manual_seed(0)
    written = []
    for folder in folders:
        expert = FrozenGlyphForCausalLM.from_pretrained(folder).eval()
        expert.generation_config.eos_token_id = None
        written.append(expert.generate(token_ids(1, 4, seed=1), max_new_tokens=20, do_sample=True))
    return torch.cat(written)


def run_of(model):
    """The numbers of tokens that each expert reads from now on, call by call."""
    reads = [[] for _ in model.model.experts]
    for expert, own in zip(model.model.experts, reads, strict=True):
        expert.layers[0].register_forward_pre_hook(lambda module, inputs, own=own: own.append(inputs[0].shape[1]))
    return reads


@torch.no_grad()
def step_by_step(model, ids, read=8):
    """Logits after each of ``ids`` from the ``read``-th on, and the cache."""
    output = model(ids[:, :read], use_cache=True)
    logits = [output.logits[:, -1]]
    for column in range(read, ids.shape[1]):
        output = model(ids[:, column : column + 1], use_cache=True, **{CACHE: output[CACHE]})
        logits.append(output.logits[:, -1])
    return torch.stack(logits, dim=1), output[CACHE]


@torch.no_grad()
@pytest.mark.parametrize("rows", [[0], [2], [1, 0]], ids=["first", "last", "rows differ"])
def test_who_does_not_run_catches_up(load, texts, folders, token_ids, rows, monkeypatch):
    """Few steps of all; between them the logits are of who runs; then, also behind a crop, those of the dense model."""
    monkeypatch.setattr(scheduling_frozen_glyph, "CATCH_UP_TOKENS", 6)
    dense, sparse, ids = load(), load(active_experts=1), texts[rows]
    reads = run_of(sparse)
    logits, cache = step_by_step(sparse, ids)
    steps = ids.shape[1] - 8
    for expert, own in enumerate(reads):
        assert sum(own) >= ids.shape[1] - 6  # sooner or later each read nearly all
        assert (len(own) == 1 + steps) == (expert in rows)
    alone = [FrozenGlyphForCausalLM.from_pretrained(folders[row]).eval()(text[None]).logits[0, 7:].log_softmax(-1)
             for row, text in zip(rows, ids, strict=True)]  # fmt: skip
    whole = dense(ids).logits[:, 7:]
    for row, own in enumerate(alone):
        near = [
            min((found.exp() - expected.exp()).abs().max() for expected in (own[place], whole[row, place]))
            for place, found in enumerate(logits[row])
        ]
        assert max(near) < sparse.config.active_threshold
    for removed in (1, 9):
        cache.crop(-removed)
        ids = ids[:, :-removed]
        more = token_ids(len(rows), 3, seed=removed)
        found = sparse(more, **{CACHE: cache}).logits
        ids = torch.cat([ids, more], dim=1)
        torch.testing.assert_close(found, dense(ids).logits[:, -3:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_every_layer_counts_every_token(load, texts, monkeypatch):
    """Who rests, and the rule, miss the tokens of sparse steps and nothing else is put in their place."""
    monkeypatch.setattr(scheduling_frozen_glyph, "CATCH_UP_TOKENS", 4)
    model, held = load(active_experts=1), []
    output = model(texts[:1, :8], use_cache=True)
    for column in range(8, 20):
        output = model(texts[:1, column : column + 1], use_cache=True, **{CACHE: output[CACHE]})
        assert {layer.get_seq_length() for layer in output[CACHE].layers} == {column + 1}
        held.append(output[CACHE].layers[model.config.evidence_layer].keys.shape[-2])
    assert len(held) > len(set(held)) > 2  # it stands still between the steps of all


def test_another_writer_is_noticed_at_once(load, texts):
    """The first tokens of another expert's text surprise, whoever has caught up: a switch costs a few tokens."""
    ids = torch.cat([texts[:1], texts[1:2, 4:]], dim=1)
    losses = [
        torch.nn.functional.cross_entropy(
            step_by_step(model, ids[:, :-1])[0].flatten(0, 1), ids[0, 8:], reduction="none"
        )
        for model in (load(), load(active_experts=1))
    ]
    excess = losses[1] - losses[0]
    assert losses[1].max() < math.log(340 / 0.005)  # the size of the vocabulary over the share that a switch has
    assert excess[:16].abs().max() < 0.06  # one writer: less than the threshold
    assert excess[20:].abs().max() < 0.06  # another, four tokens later


@pytest.mark.parametrize(
    "arguments", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=["greedy", "beams", "assisted"]
)
def test_generation_writes_what_the_dense_model_writes(load, texts, arguments):
    ids, settings = texts[:1, :12], {"max_new_tokens": 16, "do_sample": False} | arguments
    sparse = load(active_experts=1)
    reads = run_of(sparse)
    assert sparse.generate(ids, **settings).tolist() == load().generate(ids, **settings).tolist()
    assert arguments or len(reads[1]) < len(reads[0]) / 2


class Waits(TorchFunctionMode):
    """Counts what a GPU would be waited for: its numbers asked for, and tensors made of the host's."""

    NAMES = {"tolist", "item", "numpy", "cpu", "nonzero", "tensor", "as_tensor"}
    NAMES |= {"__bool__", "__int__", "__float__", "__index__"}
    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("__getitem__", "__setitem__"):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.count += any(
                isinstance(place, list) or getattr(place, "dtype", None) == torch.bool for place in places
            )
        self.count += name in self.NAMES
        return function(*args, **(kwargs or {}))


def waits_a_step(model, ids):
    """Those of one step of greedy generation, the prompt's and the first step's apart."""
    counts = []
    for new in (3, 7):
        with Waits() as waits:
            model.generate(ids, max_new_tokens=new, do_sample=False, pad_token_id=0)
        counts.append(waits.count)
    return (counts[1] - counts[0]) / 4


def test_a_step_waits_for_no_device_but_to_ask_who_runs(load, texts):
    """Beside what ``generate`` itself asks, of transformers' own model: nothing; and once where experts may rest."""
    ids = texts[:1, :12]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=400, num_key_value_heads=1, eos_token_id=None, **sizes))
    own = waits_a_step(llama, ids)
    assert own > 0  # it asks whether all rows have ended: counting works
    assert waits_a_step(load(rule="mean"), ids) == own
    model = load()
    for rule in rules_with(one_head=False):
        model.config.rule = rule
        assert waits_a_step(model, ids) == own, rule
    model.config.update({"rule": "fixed_share", "active_experts": 1})
    reads = run_of(model)
    assert waits_a_step(model, ids) == own + 1
    assert len(reads[1]) < len(reads[0])  # some did rest


def test_padded_rows(load, texts):
    """What was missed is read again with its positions and its padding."""
    ids = torch.nn.functional.pad(texts[:1, :14], (3, 0))
    mask, settings = (torch.arange(17) > 2).long()[None], {"max_new_tokens": 16, "do_sample": False}
    expected = load().generate(texts[:1, :14], **settings)[0, 14:].tolist()
    assert load(active_experts=1).generate(ids, attention_mask=mask, **settings)[0, 17:].tolist() == expected


def test_what_cannot_be_sparse_is_refused(load, texts):
    with pytest.raises(ValueError, match="active_experts=1 needs a cache that grows, not StaticCache"):
        load(active_experts=1).generate(texts[:1], max_new_tokens=2, cache_implementation="static")
    for fields, said in (
        ({"active_experts": 0}, r"active_experts=0 must lie in 1\.\.3"),
        ({"active_experts": 4}, r"active_experts=4 must lie in 1\.\.3"),
        ({"active_experts": 1, "active_threshold": 1.0}, "active_threshold=1.0 must be a share"),
    ):
        with pytest.raises(ValueError, match=said):
            load(**fields)
    with pytest.raises(ValueError, match="active_experts"):
        FrozenGlyphMoEConfig(active_experts=True)
    model = load(active_experts=1)
    _, cache = step_by_step(model, texts[:1])
    with pytest.raises(ValueError, match="tokens to catch up with, which needs input_ids"):
        model(inputs_embeds=model.substrate(texts[:1, :1]), **{CACHE: cache})


def test_other_rules_run_all(load, texts):
    """Like every option it says nothing where the rule does not take it, so that rules change freely."""
    sparse = load(active_experts=1, rule="evidence")
    reads = run_of(sparse)
    found, _ = step_by_step(sparse, texts[:1, :12])
    torch.testing.assert_close(found, step_by_step(load(rule="evidence"), texts[:1, :12])[0])
    assert [len(own) for own in reads] == [5, 5, 5]


def test_recipes_say_who_runs(folders):
    def config(**fields):
        return plan_merge(MergeRecipe([str(folder) for folder in folders], **fields)).config()

    kept = config(rule="fixed_share", active_experts=2, active_threshold=0)
    assert (kept["active_experts"], kept["active_threshold"]) == (2, 0)
    assert (config()["active_experts"], config()["active_threshold"]) == (None, 0.05)
    for fields, said in (
        ({"active_experts": 1}, "active_experts=1 is not allowed: it must be left out, .* rule=fixed_share"),
        ({"rule": "fixed_share", "active_experts": True}, "active_experts=True"),
        ({"rule": "fixed_share", "active_experts": 0}, "active_experts=0"),
        ({"rule": "fixed_share", "active_experts": 4}, "active_experts=4 is not allowed: it must be from 1 to 3"),
        ({"rule": "fixed_share", "active_threshold": 1}, "active_threshold=1"),
    ):
        with pytest.raises(RecipeError, match=said):
            config(**fields)


def test_a_layer_that_lags_counts_what_it_misses():
    """Cropping takes first what is not there."""
    cache = DynamicCache()
    cache.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2), 0)
    for _ in range(3):
        scheduling_frozen_glyph.fall_behind(cache, [0])
    assert cache.get_seq_length() == 8
    for removed, length, held in ((2, 6, 5), (2, 4, 4), (9, 0, 0)):
        cache.crop(-removed)
        assert (cache.get_seq_length(), cache.layers[0].keys.shape[-2]) == (length, held)
    assert FrozenGlyphMoEConfig().active_experts is None
