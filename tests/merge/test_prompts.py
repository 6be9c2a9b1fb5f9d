"""peft's methods that put learnt positions before the text: prompts and P-tuning in vectors, prefixes in the cache."""

import pytest
import torch
from transformers import DynamicCache

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.modeling_frozen_glyph import CACHE
from frozen_glyph.model.rules_frozen_glyph import RULES

VIRTUAL = 3
peft = pytest.importorskip("peft")


def prompted(model, kind, **options):
    torch.manual_seed(0)
    return peft.get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL, **options)).eval()


@pytest.mark.parametrize("name", ["single", "mean", "weighted", "probability"])
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
def test_prompts_stand_before_the_vectors_of_the_text(experts, merged_folder, token_ids, name, kind):
    if name == "single":
        model = FrozenGlyphForCausalLM.from_pretrained(experts[0])
    else:
        model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=name)
    ids, adapted = token_ids(2, 9), prompted(model, getattr(peft, kind))
    output = adapted(ids, labels=ids, attention_mask=torch.ones_like(ids))
    vectors = torch.cat([adapted.get_prompt(batch_size=2), model.substrate(ids)], dim=1)
    torch.testing.assert_close(output.logits, model(inputs_embeds=vectors).logits, atol=1e-5, rtol=1e-5)
    output.loss.backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained and all("prompt_encoder" in name for name in trained)


@pytest.mark.parametrize("rule", ["posterior", "evidence"])
def test_rules_that_read_tokens_refuse_prompts(merged_folder, token_ids, rule):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    with pytest.raises(ValueError, match="give input_ids, not inputs_embeds"):
        prompted(model, peft.PromptTuningConfig)(token_ids(1, 4))


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # peft's name of the cache
@pytest.mark.parametrize("rule", RULES)
def test_prefixes_of_experts_with_different_heads(experts, merged_folder, token_ids, rule):
    """Each expert sees the keys and values of its own blocks; evidence is that of the text alone."""
    model = FrozenGlyphMoEForCausalLM.from_pretrained(
        merged_folder, rule=rule, evidence_window=100, switching_rates=[0]
    )
    ids, adapted = token_ids(2, 6), prompted(model, peft.PrefixTuningConfig)
    found = adapted(ids, labels=ids, attention_mask=torch.ones_like(ids))
    prefix, logits, first = adapted.get_prompt(batch_size=2), [], 0
    for folder in experts:
        expert = FrozenGlyphForCausalLM.from_pretrained(folder)
        cache, heads = DynamicCache(), expert.config.num_attention_heads
        for number, layer in enumerate(prefix.layers[first : first + expert.config.num_hidden_layers]):
            both = torch.stack([layer.keys, layer.values]).transpose(2, 3).reshape(2, 2, VIRTUAL, heads, -1)
            cache.update(*both.transpose(2, 3), number)
        first += expert.config.num_hidden_layers
        logits.append(expert(ids, **{CACHE: cache}).logits)
    log_probs = torch.stack(logits).log_softmax(-1)
    weights = torch.zeros(2, 2, 6)
    if RULES[rule].reads_tokens:
        read = log_probs[:, :, :-1].gather(-1, ids[:, 1:].expand(2, -1, -1).unsqueeze(-1)).squeeze(-1)
        weights[:, :, 1:] = read.cumsum(-1)
    weights = weights.log_softmax(0).unsqueeze(-1)
    if rule in ("probability", "posterior", "fixed_share"):
        expected = (log_probs + weights).logsumexp(0)
    else:
        expected = (torch.stack(logits) * weights.exp()).sum(0)
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    found.loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in adapted.parameters() if p.requires_grad)


@pytest.mark.skipif(CACHE != "cache", reason="transformers chooses them from 5.24 on")
def test_chosen_hidden_states(merged_folder, token_ids):
    """As many as blocks run, and the base model's result; chosen by number, from the end too."""
    model, ids = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder), token_ids(2, 5)
    every = model(ids, output_hidden_states=True).hidden_states
    assert len(every) == model.config.evidence_layer + 1
    assert torch.equal(every[-1], model.model(ids).last_hidden_state)
    for chosen in ([-1], [0, -2], [1]):
        found = model(ids, output_hidden_states=chosen).hidden_states
        assert len(found) == len(every)
        for number, (own, one) in enumerate(zip(found, every, strict=True)):
            if number in [choice % len(every) for choice in chosen]:
                assert torch.equal(own, one)
            else:
                assert own is None
