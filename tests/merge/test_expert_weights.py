"""What a merged model says of how much each expert counts: it explains the logits, and every cache knows the same."""

import pytest
import torch
from transformers import DynamicCache
from transformers.generation.streamers import BaseStreamer

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.model.rules_frozen_glyph import RULES, weighted_sum


@pytest.fixture(scope="module", params=RULES)
def model(request, merged_folder):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=request.param, evidence_window=4).eval()
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
@pytest.mark.parametrize("kept", [0, 3, torch.tensor([1, 5])], ids=["all", "last", "chosen"])
def test_the_weights_make_the_logits_of_the_experts_own(model, experts, token_ids, kept):
    ids = token_ids(2, 9, seed=3)
    positions = kept if isinstance(kept, torch.Tensor) else torch.arange(9)[-kept:]
    own = [FrozenGlyphForCausalLM.from_pretrained(folder).eval()(ids).logits[:, positions] for folder in experts]
    output = model(ids, logits_to_keep=kept, return_expert_weights=True)
    assert output.expert_weights.shape == (*output.logits.shape[:2], 2)
    combine = RULES[model.config.rule].combine or weighted_sum
    torch.testing.assert_close(combine(own, output.expert_weights.log()), output.logits, atol=1e-4, rtol=1e-4)
    assert "expert_weights" not in model(ids)


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments",
    [{}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}],
    ids=["dynamic", "static", "assisted"],
)
def test_generation_tells_the_weights_of_what_it_wrote(model, token_ids, arguments):
    ids = token_ids(1, 5, seed=9).repeat(1, 2)
    output = model.generate(
        ids,
        max_new_tokens=6,
        do_sample=False,
        return_dict_in_generate=True,
        return_expert_weights=True,
        **arguments,
    )
    again = model(output.sequences, return_expert_weights=True).expert_weights[:, :-1]
    torch.testing.assert_close(output.expert_weights, again, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_streamer_can_ask_the_cache(model, token_ids):
    """While the text is written; the last weights are those under which the token was chosen."""
    ids, cache, heard = token_ids(1, 5, seed=9), DynamicCache(config=model.config), []

    class Listener(BaseStreamer):
        def put(self, value):
            if len(heard) or value.numel() == 1:
                heard.append(model.expert_weights(cache)[0, -1])

        def end(self):
            pass

    written = model.generate(ids, max_new_tokens=4, do_sample=False, streamer=Listener(), **{CACHE: cache})
    expected = model(written, return_expert_weights=True).expert_weights[0, 4:-1]
    torch.testing.assert_close(torch.stack(heard), expected, atol=1e-4, rtol=1e-4)


def test_beams_and_texts_without_a_cache_are_refused(model, token_ids):
    """Their cache is of other beams than those returned, or there is none."""
    for arguments in ({"num_beams": 2, "return_dict_in_generate": True}, {}, {"use_cache": False}):
        with pytest.raises(ValueError, match=r"return_expert_weights=True of generate needs .* num_beams=1"):
            model.generate(token_ids(1, 4), max_new_tokens=2, return_expert_weights=True, **arguments)
