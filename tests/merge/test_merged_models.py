"""Merged logits against separately run experts: every rule by its definition, in plain Python."""

import math

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.model import reading_frozen_glyph
from frozen_glyph.model.rules_frozen_glyph import RULES

MIXTURES = ("probability", "posterior", "fixed_share")  # rules whose logits are log-probabilities


@pytest.fixture(scope="module")
def three_experts(experts, write_expert):
    return [*experts, write_expert("en", [1], seed=3, num_attention_heads=3)]


@pytest.fixture(scope="module")
def merge(three_experts, tmp_path_factory):
    """``merge(numbers, weights, **fields)``: merge some of the three experts, load the result with config fields."""

    def merge(numbers, weights=None, **fields) -> FrozenGlyphMoEForCausalLM:
        out = tmp_path_factory.mktemp("merge") / "merged"
        rule = "weighted" if weights else "mean"
        folder = merge_experts([three_experts[number] for number in numbers], out, rule, weights)
        return FrozenGlyphMoEForCausalLM.from_pretrained(folder, **fields).eval()

    return merge


@torch.no_grad()
def logits_of(folders, ids, mask=None):
    """Each expert run alone: [N, B, T, V]."""
    experts = [FrozenGlyphForCausalLM.from_pretrained(folder).eval() for folder in folders]
    return torch.stack([expert(ids, attention_mask=mask).logits for expert in experts])


def by_definition(rule, logits, ids, weights, real=None, window=None):
    """One sequence, in Python numbers: logits [N, T, V], ids [T] -> log-probabilities (mixtures) or logits [T, V].

    A token is evidence when it and the token before it are real, that is no padding.
    """
    real = real or [1] * len(ids)
    log_probs = logits.double().log_softmax(-1).tolist()
    prior = [math.log(share) if share else -math.inf for share in weights]
    earned, combined, shared = [[] for _ in prior], [], list(weights)
    for position in range(len(ids)):
        if position and real[position] and real[position - 1]:
            for known, expert in zip(earned, log_probs, strict=True):
                known.append(expert[position - 1][ids[position]])
            told = [share * math.exp(known[-1]) for share, known in zip(shared, earned, strict=True)]
            shared = [0.8 * own / sum(told) + 0.2 * share for own, share in zip(told, weights, strict=True)]
        shares = shared if rule == "fixed_share" else weights
        if rule in ("posterior", "evidence"):
            total = [sum(known[-window:] if window else known) for known in earned]
            total = [own + share for own, share in zip(total, prior, strict=True)]
            shares = [math.exp(known - max(total)) for known in total]
            shares = [share / sum(shares) for share in shares]
        if rule == "evidence":
            combined.append(sum(share * own for share, own in zip(shares, logits[:, position], strict=True)).tolist())
            continue
        per_token = zip(*(expert[position] for expert in log_probs), strict=True)
        combined.append(
            [math.log(sum(map(math.prod, zip(shares, map(math.exp, token), strict=True)))) for token in per_token]
        )
    return torch.tensor(combined)


def window_of(rule):
    return 3 if rule == "evidence" else None


def total_loss(logits, ids):
    """Nats of all tokens but the first, [B]."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").sum(-1)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0, 2)])
def test_mean_of_logits(merge, three_experts, token_ids, numbers):
    """Experts of different depth and number of heads; the order of experts does not matter to the mean."""
    ids = token_ids(3, 12)
    expected = logits_of([three_experts[number] for number in numbers], ids).mean(0)
    torch.testing.assert_close(merge(numbers)(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_weighted_logits_are_the_weighted_sum_of_the_experts_logits(merge, three_experts, token_ids):
    ids = token_ids(2, 10)
    first, second, third = logits_of(three_experts, ids)
    merged = merge((0, 1, 2), weights=[3, 0, 1], rule="weighted")
    torch.testing.assert_close(merged(ids).logits, 0.75 * first + 0.25 * third, atol=1e-5, rtol=1e-5)
    assert merged.config.expert_weights == [0.75, 0.0, 0.25]
    assert (merged(ids).logits - second).abs().max() > 1
    merged.config.rule = "mean"  # equal, whatever the weights
    torch.testing.assert_close(merged(ids).logits, (first + second + third) / 3, atol=1e-5, rtol=1e-5)
    merged.config.rule, merged.config.expert_weights = "weighted", [2.0, -0.5, 0.25]  # they need not be shares
    expected = 2 * first - 0.5 * second + 0.25 * third
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_an_expert_merged_with_itself(merge, three_experts, token_ids, rule):
    ids = token_ids(2, 12)
    alone = logits_of([three_experts[1]], ids)[0]
    merged = merge((1, 1), rule=rule)(ids).logits
    torch.testing.assert_close(merged.log_softmax(-1), alone.log_softmax(-1), atol=1e-5, rtol=1e-5)
    if rule not in MIXTURES:
        torch.testing.assert_close(merged, alone, atol=1e-5, rtol=1e-5)


CASES = [
    (rule, piece_tokens, numbers, weights)
    for rule in ("probability", "posterior", "evidence")
    for piece_tokens in (6, 1000)
    for numbers, weights in [((0, 1), None), ((0, 1, 2), None), ((0, 1), [0.9, 0.1]), ((0, 1), [1, 0])]
]


@pytest.mark.parametrize(
    ("rule", "piece_tokens", "numbers", "weights"),
    [*CASES, ("fixed_share", 6, (0, 1, 2), None), ("fixed_share", 1000, (0, 1), [1, 0])],
)
def test_rules_by_definition(merge, three_experts, token_ids, monkeypatch, rule, piece_tokens, numbers, weights):
    monkeypatch.setattr(reading_frozen_glyph, "PIECE_TOKENS", piece_tokens)
    ids = token_ids(2, 9, seed=50)
    merged = merge(numbers, weights, rule=rule, evidence_window=3, switching_rates=[0.2])
    logits = logits_of([three_experts[number] for number in numbers], ids)
    found = merged(ids).logits
    if rule in MIXTURES:  # they are log-probabilities
        torch.testing.assert_close(found.logsumexp(-1), torch.zeros(2, 9), atol=1e-4, rtol=0)
    for row in range(2):
        expected = by_definition(
            rule, logits[:, row], ids[row].tolist(), merged.config.expert_weights, window=window_of(rule)
        )
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", ["posterior", "evidence", "fixed_share"])
@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 1]])
def test_padding_is_no_evidence(merge, three_experts, token_ids, rule, mask):
    """On the left, on the right, and between a padded prompt and what was generated after it."""
    mask = torch.tensor([mask])
    ids = token_ids(1, 8, seed=51) * mask  # the pad id is 0
    logits = logits_of(three_experts[:2], ids, mask)[:, 0]
    expected = by_definition(rule, logits, ids[0].tolist(), [0.5, 0.5], mask[0].tolist(), window_of(rule))
    found = merge((0, 1), rule=rule, evidence_window=3, switching_rates=[0.2])(ids, attention_mask=mask).logits[0]
    torch.testing.assert_close(found[mask[0].bool()], expected[mask[0].bool()], atol=1e-4, rtol=1e-4)


def test_evidence_of_everything_is_a_log_pool_with_posterior_weights(merge, three_experts, token_ids):
    """A window as long as the text forgets nothing; a shorter one does."""
    ids = token_ids(1, 9, seed=50)
    logits = logits_of(three_experts, ids)
    expected = by_definition("evidence", logits[:, 0], ids[0].tolist(), [1 / 3] * 3)
    merged = merge((0, 1, 2), rule="evidence", evidence_window=8)
    torch.testing.assert_close(merged(ids).logits[0], expected, atol=1e-4, rtol=1e-4)
    merged.config.evidence_window = 2
    assert (merged(ids).logits[0] - expected).abs().max() > 1


def test_an_expert_wins_when_the_window_has_passed_into_its_text(merge, three_experts, token_ids):
    """What ``evidence`` forgets, ``posterior`` remembers: text of one expert after a longer text of another."""
    texts = []
    for folder, length in ((three_experts[0], 30), (three_experts[1], 12)):
        writer = FrozenGlyphForCausalLM.from_pretrained(folder)
        writer.generation_config.eos_token_id = None
        texts.append(writer.generate(token_ids(1, 2, seed=53), max_new_tokens=length, do_sample=False))
    ids = torch.cat(texts, dim=1)
    own = logits_of(three_experts[1:2], ids)[0]
    after = {
        rule: merge((0, 1), rule=rule, evidence_window=8)(ids).logits.log_softmax(-1)
        for rule in ("posterior", "evidence")
    }
    distance = {rule: (found - own.log_softmax(-1))[0, -1].abs().max() for rule, found in after.items()}
    assert distance["evidence"] < 0.1 < distance["posterior"]


@torch.no_grad()
def test_posterior_loses_little_to_the_best_expert(merge, three_experts, token_ids):
    """At most log N nats of a whole sequence, for text that any of the experts wrote and for noise."""
    merged, texts = merge((0, 1, 2), rule="posterior"), [token_ids(2, 30, seed=52)]
    for folder in three_experts:
        writer = FrozenGlyphForCausalLM.from_pretrained(folder)
        writer.generation_config.eos_token_id = None
        texts.append(writer.generate(token_ids(2, 2, seed=53), max_new_tokens=28, do_sample=False))
    ids = torch.cat(texts)
    losses = torch.stack([total_loss(logits, ids) for logits in logits_of(three_experts, ids)])
    mixed, mean = total_loss(merged(ids).logits, ids), total_loss(logits_of(three_experts, ids).mean(0), ids)
    assert (mixed <= losses.amin(0) + math.log(3) + 1e-3).all()
    assert set(losses.argmin(0).tolist()) == {0, 1, 2}  # each expert is the best of some text
    assert (mixed < mean).any()


@torch.no_grad()
@pytest.mark.parametrize("language", ["en", "ru", "zh"])
def test_posterior_is_never_far_from_the_best_expert_on_real_text(merge, three_experts, tokenizer, real_data, language):
    text = (real_data / "text" / f"{language}.valid.txt").read_text("utf-8")[:2000]
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:1024]).view(16, 64)
    losses = torch.stack([total_loss(logits, ids) for logits in logits_of(three_experts, ids)])
    mixed = total_loss(merge([0, 1, 2], rule="posterior")(ids).logits, ids)
    assert (mixed <= losses.amin(0) + math.log(3) + 1e-2).all()


def test_loss_under_every_rule(merged_folder, token_ids):
    ids = token_ids(2, 9)
    for rule in RULES:
        output = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)(ids, labels=ids)
        torch.testing.assert_close(output.loss, total_loss(output.logits, ids).sum() / 16)


def test_the_rule_can_be_chosen_at_loading(merged_folder, merge, token_ids):
    ids = token_ids(2, 9)
    chosen = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule="posterior")
    assert torch.equal(chosen(ids).logits, merge((0, 1), rule="posterior")(ids).logits)
    plain = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder)
    assert plain.config.rule == "mean"
    assert (plain(ids).logits - chosen(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_logits_to_keep_and_attention_implementations(merged_folder, token_ids, rule):
    model, ids = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule), token_ids(2, 9)
    full = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, full[:, -2:], atol=1e-5, rtol=1e-5)
    some = torch.tensor([1, 8, 3])
    seen = []
    hook = model.lm_head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0].shape[1]))
    torch.testing.assert_close(model(ids, logits_to_keep=some).logits, full[:, some], atol=1e-5, rtol=1e-5)
    hook.remove()
    assert RULES[rule].reads_tokens or seen == [3]  # the other rules need no head elsewhere
    model.set_attn_implementation("eager")
    output = model(ids, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(output.logits, full, atol=1e-4, rtol=1e-4)
    assert [weights.shape[1] for weights in output.attentions] == [4, 4, 2, 2, 2]  # heads of both experts' blocks
    # what enters each of those blocks, and the base model's result
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 9, 48)] * 5 + [(2, 9, 2 * 48)]


@pytest.mark.parametrize(("rule", "weights"), [("mean", [0.5, 0.5]), ("weighted", [1.5, -0.25])])
def test_one_head_over_the_concatenated_states_gives_the_logits(merged_folder, token_ids, rule, weights):
    """What an engine that runs only the base model and a Linear of its own computes."""
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule, expert_weights=weights)
    ids = token_ids(2, 9)
    states = model.model(ids).last_hidden_state
    assert states.shape == (2, 9, 2 * 48)
    logits = torch.nn.functional.linear(states, model.lm_head.weight, model.lm_head.bias)
    torch.testing.assert_close(logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", ["posterior", "evidence"])
def test_reading_needs_token_ids(merged_folder, token_ids, rule):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    with pytest.raises(ValueError, match="give input_ids, not inputs_embeds"):
        model(inputs_embeds=model.substrate(token_ids(1, 4)))


def test_bfloat16_keeps_the_substrate_and_stays_close(merged_folder, token_ids):
    ids = token_ids(2, 9)
    for rule in RULES:
        exact = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
        rough = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule, dtype=torch.bfloat16)
        assert torch.equal(rough.substrate(ids), exact.substrate(ids))
        distance = (rough(ids).logits.float().log_softmax(-1) - exact(ids).logits.log_softmax(-1)).abs().mean()
        assert distance < 0.1


@torch.no_grad()
def test_a_merged_model_survives_save_pretrained(merged_folder, token_ids, tmp_path):
    model, ids = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule="posterior"), token_ids(2, 9)
    model.save_pretrained(tmp_path)
    again = FrozenGlyphMoEForCausalLM.from_pretrained(tmp_path)
    assert again.config.rule == "posterior"
    assert torch.equal(again(ids).logits, model(ids).logits)
