"""Fixed share by its definition, a sum over all sequences of writers, and by its guarantee against each of them."""

import itertools
import math

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.model.switching_frozen_glyph import fixed_share, initial_weights

PRIORS = {"equal": [1 / 3] * 3, "any": [0.7, 0.2, 0.1]}


def text_of_switching_experts(length, seed):
    """Log-probabilities [1, T, N] that three experts give to a text: a good one here, another there, and noise."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = -5 * torch.rand(1, length, 3, generator=generator)
    for start in range(0, length, 7):
        log_probs[:, start : start + 7, int(torch.randint(3, (), generator=generator))] *= 0.1
    return log_probs


def losses(log_probs, prior, rates):
    """Nats [T] of each token under the rule."""
    prior, rates = torch.tensor(prior).log(), torch.tensor(rates)
    initial = initial_weights(prior, rates)[None]
    after = fixed_share(log_probs, torch.ones(log_probs.shape[:2]), None, initial, prior, rates)
    before = torch.cat([initial[:, None], after[:, :-1]], dim=1).logsumexp(2)
    return -(before + log_probs).logsumexp(-1)[0].double()


def of_sequence(writers, log_probs, prior, rate):
    """The probability that ``writers`` wrote, in turn, and the log-probability of the text under them."""
    chance = prior[writers[0]]
    for last, writer in itertools.pairwise(writers):
        chance *= rate * prior[writer] + (1 - rate) * (last == writer)
    return chance, sum(float(log_probs[0, step, writer]) for step, writer in enumerate(writers))


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_fixed_share_is_the_sum_over_all_sequences_of_writers(prior, rate):
    log_probs = text_of_switching_experts(6, seed=1)
    sequences = itertools.product(range(3), repeat=6)
    terms = [of_sequence(writers, log_probs, prior, rate) for writers in sequences]
    expected = -math.log(sum(chance * math.exp(log_prob) for chance, log_prob in terms))
    assert float(losses(log_probs, prior, [rate]).sum()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.3, 0.01])
def test_guarantee_against_every_sequence_of_experts(seed, rate):
    """``log N + S log(N / rate) + (T - 1 - S) log(1 / (1 - rate))``: the best sequence of each number of switches."""
    length = 60
    log_probs = text_of_switching_experts(length, seed)
    best = log_probs[0, 0, :, None].double()  # [N, S]: of sequences that end with an expert, by their switches so far
    for step in range(1, length):
        stays, others = best, torch.stack([best[torch.arange(3) != own].amax(0) for own in range(3)])
        gone = torch.full((3, 1), -math.inf, dtype=torch.float64)
        best = torch.maximum(torch.cat([stays, gone], 1), torch.cat([gone, others], 1))
        best += log_probs[0, step, :, None]
    found = float(losses(log_probs, PRIORS["equal"], [rate]).sum())
    switches = torch.arange(length)
    excess = math.log(3) + switches * math.log(3 / rate) - (length - 1 - switches) * math.log(1 - rate)
    assert (found <= -best.amax(0) + excess + 1e-3).all()
    assert found < -best.amax(0)[0]  # and it beats the best single expert


def test_a_rate_that_is_learnt_costs_little():
    """At most log R more than the best of R rates; rate 0 is a Bayesian mixture, rate 1 knows nothing of the past."""
    for seed in range(5):
        log_probs = text_of_switching_experts(80, seed)
        each = [float(losses(log_probs, PRIORS["any"], [rate]).sum()) for rate in (0.0, 0.001, 0.03, 1.0)]
        learnt = float(losses(log_probs, PRIORS["any"], [0.0, 0.001, 0.03, 1.0]).sum())
        assert min(each) - 1e-3 <= learnt <= min(each) + math.log(4) + 1e-3
        totals = log_probs[0].double().sum(0) + torch.tensor(PRIORS["any"]).log()
        assert each[0] == pytest.approx(-float(totals.logsumexp(0)), abs=1e-3)


def test_an_expert_without_weight_never_speaks():
    """Were the others ever so bad; and nothing becomes no number, gradients included."""
    log_probs = torch.tensor([[[-500.0, -400.0, 0.0]] * 4], requires_grad=True)
    found = losses(log_probs, [0.5, 0.5, 0.0], [0.1])
    assert (found > 399).all()
    found.sum().backward()
    assert log_probs.grad.isfinite().all() and not log_probs.grad[..., 2].any()


@pytest.mark.parametrize("rates", [[0.05], [0.0, 0.2]], ids=["one", "two"])
def test_blocks_are_as_token_by_token(rates):
    """With tokens that do not count and documents that begin, from weights that are not the first."""
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.cat([text_of_switching_experts(75, seed) for seed in range(4)])
    counted = (torch.rand(4, 75, generator=generator) > 0.2).float()
    begins = torch.rand(4, 75, generator=generator) > 0.95
    prior, rates = torch.tensor([0.6, 0.4, 0.0]).log(), torch.tensor(rates)
    before = initial_weights(prior, rates).repeat(4, 1, 1)
    before = fixed_share(log_probs[:, :1], counted[:, :1], None, before, prior, rates)[:, 0]
    expected = [before]
    for step in range(75):
        part = slice(step, step + 1)
        told = fixed_share(log_probs[:, part], counted[:, part], begins[:, part], expected[-1], prior, rates)
        expected.append(told[:, 0])
    found = fixed_share(log_probs, counted, begins, before, prior, rates)
    torch.testing.assert_close(found[..., :2].exp(), torch.stack(expected[1:], 1)[..., :2].exp(), atol=1e-5, rtol=1e-4)
    assert not found[..., 2].exp().any()


@torch.no_grad()
def test_guarantee_on_a_text_of_several_languages(experts, tokenizer, real_data, tmp_path):
    """Of real paragraphs in turns: against the experts that are best paragraph by paragraph."""
    folder = merge_experts(experts, tmp_path / "merged", "fixed_share")
    merged = FrozenGlyphMoEForCausalLM.from_pretrained(folder).eval()
    texts = [(real_data / "text" / f"{name}.valid.txt").read_text("utf-8")[:2000] for name in ("en", "ru", "zh")]
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = torch.tensor([token for start in range(0, 80, 20) for part in parts for token in part[start : start + 20]])
    nats = [
        torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        for model in [merged, *(FrozenGlyphForCausalLM.from_pretrained(folder).eval() for folder in experts)]
    ]
    pieces = torch.stack(nats[1:]).split(20, dim=-1)
    best = [int(piece.sum(-1).argmin()) for piece in pieces]
    switches = sum(last != own for last, own in itertools.pairwise(best))
    rate, steps = merged.config.switching_rates[0], len(ids) - 2
    allowed = math.log(2) + switches * math.log(2 / rate) - (steps - switches) * math.log(1 - rate)
    assert nats[0].sum() <= sum(piece[own].sum() for piece, own in zip(pieces, best, strict=True)) + allowed + 1e-2
