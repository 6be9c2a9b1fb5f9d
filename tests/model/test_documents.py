"""Documents packed into a row, whose position ids restart, are as alone: under every rule, every cache and mask."""

import itertools

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers import DynamicCache, StaticCache

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.documents_frozen_glyph import continues_rows, first_columns, real_tokens
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.model.rules_frozen_glyph import RULES

LENGTHS = [[3, 1, 8], [7, 5], [12], [1, 1, 10]]  # of the documents in each row
TEXT = sum(LENGTHS[0])


@pytest.fixture(scope="module", params=["single", *RULES])
def model(request, experts, merged_folder):
    if request.param == "single":
        return FrozenGlyphForCausalLM.from_pretrained(experts[1]).eval()
    return FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=request.param, evidence_window=4).eval()


@pytest.fixture
def packed(token_ids):
    """Ids and position ids, both [B, T]."""
    return token_ids(len(LENGTHS), TEXT, seed=70), torch.stack(
        [torch.cat([*map(torch.arange, row)]) for row in LENGTHS]
    )


@torch.no_grad()
def separately(model, ids):
    """Logits [B, T, V] of each document run alone."""
    rows = zip(ids, LENGTHS, strict=True)
    return torch.stack([torch.cat([model(part[None]).logits[0] for part in row.split(cut)]) for row, cut in rows])


def new_cache(model, kind):
    return StaticCache(config=model.config, max_cache_len=20) if kind is StaticCache else DynamicCache()


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_packed_documents_are_as_alone(model, packed, implementation):
    """In one call: without a cache, with one that the call makes, with an empty one; with and without a mask."""
    ids, position_ids = packed
    expected = separately(model, ids)
    model.set_attn_implementation(implementation)
    for mask in (None, torch.ones_like(ids)):
        for options in (
            {"use_cache": False},
            {"use_cache": True},
            {CACHE: new_cache(model, DynamicCache)},
            {CACHE: new_cache(model, StaticCache)},
        ):
            found = model(ids, attention_mask=mask, position_ids=position_ids, **options).logits
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    model.set_attn_implementation("sdpa")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "padding", "cuts"),
    [
        (DynamicCache, 0, range(1, TEXT)),
        (DynamicCache, 2, (3, 7)),
        (StaticCache, 0, (4,)),
        (StaticCache, 2, range(1, TEXT)),
    ],
    ids=["dynamic", "dynamic-padded", "static", "static-padded"],
)
def test_packed_documents_read_in_parts(model, packed, kind, padding, cuts):
    """A cut at the border of documents, inside of them, and after every token; behind padding on the left too."""
    ids, position_ids = packed
    expected = separately(model, ids)
    rows = {"input_ids": ids, "position_ids": position_ids, "attention_mask": torch.ones_like(ids)}
    rows = {name: torch.nn.functional.pad(row, (padding, 0)) for name, row in rows.items()}
    cache, found = new_cache(model, kind), []
    cuts = [0, *(cut + padding for cut in cuts), TEXT + padding]
    for begin, end in itertools.pairwise(cuts):
        part = {name: row[:, 0 if name == "attention_mask" else begin : end] for name, row in rows.items()}
        if not padding:
            del part["attention_mask"]
        found.append(model(**part, **{CACHE: cache}).logits)
    torch.testing.assert_close(torch.cat(found, 1)[:, padding:], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_of_four_dimensions_says_what_is_packed(model, packed, dtype):
    """It alone: the position ids say nothing here that it does not."""
    ids, position_ids = packed
    documents = (position_ids == 0).cumsum(-1)
    mask = (documents.unsqueeze(1) == documents.unsqueeze(2)).tril().unsqueeze(1)
    if dtype is torch.float32:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(dtype).min)
    found = model(ids, attention_mask=mask, position_ids=position_ids).logits
    torch.testing.assert_close(found, separately(model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}, {"num_beams": 3}])
def test_generation_goes_on_with_the_last_document(model, packed, options):
    """Position ids of a prompt may be given to ``generate``."""
    ids, position_ids = packed
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, **options}
    found = model.generate(ids, position_ids=position_ids, **options)[:, TEXT:]
    for row, lengths, new in zip(ids, LENGTHS, found, strict=True):
        assert torch.equal(new, model.generate(row[None, -lengths[-1] :], **options)[0, lengths[-1] :])


@pytest.mark.parametrize("padded", [True, False])
def test_a_pad_id_inside_a_text_is_text(model, token_ids, padded):
    """Where pad = eos, as is usual, the mask says what is padding: with a static cache, whose mask is prepared, too."""
    ids = token_ids(6, 9, seed=71)
    ids[:, 4] = ids[::2, 6] = model.config.pad_token_id
    mask = torch.ones_like(ids)
    if padded:
        for row in range(6):
            mask[row, : row % 3], ids[row, : row % 3] = 0, model.config.pad_token_id
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    dynamic, static = (model.generate(ids, **options, **more) for more in ({}, {"cache_implementation": "static"}))
    assert torch.equal(static.sequences, dynamic.sequences)
    torch.testing.assert_close(torch.stack(static.logits), torch.stack(dynamic.logits), atol=1e-4, rtol=1e-4)
    for row in range(6):
        text = ids[row : row + 1, mask[row].argmax() :]
        alone = model.generate(text, **options | {"attention_mask": torch.ones_like(text)})
        torch.testing.assert_close(alone.logits[0][0], dynamic.logits[0][row], atol=1e-4, rtol=1e-4)


def positions(*rows):
    return torch.tensor(rows)


@pytest.mark.parametrize(
    ("mask", "position_ids", "past", "expected"),
    [
        (None, positions([0, 1, 2, 3]), 0, [[0, 0, 0, 0]]),
        (None, positions([7, 8, 9, 10]), 0, [[0, 0, 0, 0]]),  # a text need not begin at position 0
        (None, positions([0, 1, 0, 0]), 0, [[0, 0, 2, 3]]),
        (None, positions([0, 1, 5, 6]), 0, [[0, 0, 2, 2]]),  # as transformers' mask: whatever does not count on
        (None, positions([5, 6, 0, 1]), 5, [[0, 0, 7, 7]]),
        (None, positions([2, 3, 4, 0]), 5, [[3, 3, 3, 8]]),  # two of the five in the cache are of this document
        ([[0, 0, 1, 1]], positions([0, 0, 0, 1]), 0, [[0, 0, 0, 0]]),  # as generate numbers a padded row
        ([[0, 0, 1, 1]], positions([0, 1, 2, 3]), 0, [[0, 0, 0, 0]]),  # or the whole row is
        ([[1, 1, 0, 0, 1, 1]], positions([0, 1, 0, 0, 2, 3]), 0, [[0] * 6]),  # padding inside
        ([[1, 1, 0, 0, 1, 1]], positions([0, 1, 2, 3, 4, 5]), 0, [[0] * 6]),
        ([[0, 1, 1, 1, 1, 1]], positions([0, 0, 1, 0, 1, 2]), 0, [[0, 0, 0, 3, 3, 3]]),
        ([[0, 1, 1, 1, 1]], positions([2, 3]), 3, [[0, 0]]),
        ([[0, 1, 1, 1, 1]], positions([1, 2]), 3, [[2, 2]]),
        ([[0, 1, 1, 1, 1, 0, 0]], positions([0, 1]), 3, [[3, 3]]),  # a mask as long as a static cache
    ],
)
def test_where_documents_begin(mask, position_ids, past, expected):
    mask = None if mask is None else torch.tensor(mask)
    for before in (past, torch.tensor(past)):  # the length of a static cache is a tensor
        assert first_columns(mask, position_ids, before, position_ids).tolist() == expected


def test_a_step_is_told_apart_as_by_first_columns():
    """The short question that every step of generation asks, beside the long one, over padding and positions."""
    generator = torch.Generator().manual_seed(0)
    answers = set()
    for past in range(6):
        for _ in range(20):
            mask = None if past % 3 == 2 else torch.randint(2, (2, past + 1), generator=generator)
            position_ids = torch.randint(7, (2, 1), generator=generator)
            answer = not first_columns(mask, position_ids, past, position_ids).any()
            assert continues_rows(mask, position_ids, past) == continues_rows(mask, position_ids, torch.tensor(past))
            assert continues_rows(mask, position_ids, past) == answer
            answers.add(answer)
    assert answers == {True, False}
    assert not continues_rows(None, torch.arange(2)[None], 0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_a_prepared_mask_of_every_kind_says_the_same(implementation):
    """That of each kind of attention: what is padding, and where documents begin."""
    ids, packed, padding = torch.zeros(1, 6), positions([0, 0, 1, 2, 0, 1]), torch.tensor([[0, 1, 1, 1, 1, 1]])
    if implementation == "flex_attention":
        first = torch.tensor([[0, 1, 1, 1, 4, 4]])
        mask = create_block_mask(lambda b, h, q, k: (k <= q) & (k >= first[b, q]) & (k > 0), 1, 1, 6, 6, device="cpu")
    else:
        config = FrozenGlyphConfig(vocab_size=64, hidden_size=8, num_attention_heads=2, substrate_bits=8)
        config._attn_implementation = implementation
        prepare = FrozenGlyphForCausalLM.create_masks_for_generate
        mask = prepare(config, torch.zeros(1, 6, 8), padding, packed, **{CACHE: None})
    assert real_tokens(mask, 0, ids).tolist() == [[False] + [True] * 5]
    assert first_columns(mask, None, 0, ids)[0, 1:].tolist() == [1, 1, 1, 4, 4]
