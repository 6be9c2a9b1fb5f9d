"""Who is heard in a text while it is written equals what reading the whole text afterwards tells."""

import pytest
import torch

from frozen_glyph.evaluation.attribution import depths_in, exits
from frozen_glyph.talk.listening import listening
from frozen_glyph.talk.speaking import Sampling, prompt_ids, speak

BEST = Sampling(tokens=9, temperature=0)


def heard_and_answer(speaker, listen=True):
    speaker.model.generation_config.eos_token_id = None
    pieces = []
    answer = speak(speaker, prompt_ids(speaker.tokenizer, "The cat sat"), BEST, pieces.append, listen)
    return pieces, answer


@torch.no_grad()
@pytest.mark.parametrize("rule", ["mean", "posterior", "fixed_share"])
def test_experts_count_as_in_a_whole_reading(merged, rule):
    merged.set_rule(rule)
    pieces, answer = heard_and_answer(merged)
    ids = torch.tensor([answer.read + answer.ids])
    expected = merged.model(ids, return_expert_weights=True).expert_weights[0, len(answer.read) - 1 : -1]
    last, heard = 0, []
    for piece in pieces:
        last += len(piece.ids)
        heard.append(expected[last - 1])
        assert (piece.heard.pieces, piece.heard.names) == ([piece.text], ["ru", "zh"])
    found = torch.tensor([piece.heard.shares[0] for piece in pieces])
    torch.testing.assert_close(found, torch.stack(heard), atol=1e-4, rtol=1e-4)
    assert heard_and_answer(merged, listen=False)[1] == answer


@torch.no_grad()
def test_stages_settle_as_in_a_whole_reading(grown):
    pieces, answer = heard_and_answer(grown)
    ids = torch.tensor([answer.read + answer.ids])
    expected = depths_in(grown.model, ids, exits(grown.model.config))[len(answer.read) - 1 : -1].tolist()
    last = 0
    for piece in pieces:
        last += len(piece.ids)
        assert piece.heard.shares[0] == expected[last - 1]
    hooks = grown.model.model.layers[0]._forward_hooks
    before = list(hooks)  # transformers' own
    with listening(grown):
        assert list(hooks) != before
    assert list(hooks) == before, "nobody listens any more"
    assert heard_and_answer(grown, listen=False)[1] == answer
