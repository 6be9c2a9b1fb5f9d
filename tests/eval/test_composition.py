"""The composition study: its rules are those of merged checkpoints, its windows those of the text loss; its report."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eval.studies.common.arms import rates_of
from eval.studies.common.tables import circumstances
from eval.studies.common.windows import score_windows
from eval.studies.composition import sparse
from eval.studies.composition.costs import SETTINGS
from eval.studies.composition.measure import FIRST, SECOND, SETS, average, entropies_of, mixture
from eval.studies.composition.picture import draw
from eval.studies.composition.report import as_markdown, on_front, summarise
from eval.studies.composition.rules import RATES, RULES, SPARSE, all_tokens, fixed_share, log_probs_of
from eval.studies.composition.runs import SMOKE
from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.model import scheduling_frozen_glyph
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.text.loss import text_loss

TEXT = "The cat sat on the mat.\nКот сидел на окне.\n\n猫坐在垫子上。另一只猫也坐在那里。 The hat is on the cat. " * 3
CONTEXT = 24


@pytest.fixture(scope="module")
def models(experts):
    return [FrozenGlyphForCausalLM.from_pretrained(folder).eval() for folder in experts]


def nats_of_windows(models, tokenizer, rule):
    """Nats and characters of each window of ``TEXT`` under ``rule``."""
    nats, characters = [], []
    for logits, targets, scored, batch in score_windows(models, tokenizer, TEXT, CONTEXT, batch_size=3):
        nats += (rule.nats(logits, log_probs_of(logits, targets), targets) * scored).sum(-1).tolist()
        characters += [window.characters for window in batch]
    return nats, characters


@pytest.mark.parametrize(
    "name",
    ["mean", "probability", "posterior", "fixed_share 0.01", "fixed_share 0.03", "fixed_share, learnt", "evidence 16"],
)
def test_rule_is_that_of_a_merged_checkpoint(models, experts, tmp_path, name):
    rule, _, option = name.replace(",", "").partition(" ")
    rates = list(RATES) if option == "learnt" else [float(option or 0.01)] if rule == "fixed_share" else [0.01]
    folder = merge_experts(experts, tmp_path / "merged", rule=rule)
    merged = FrozenGlyphMoEForCausalLM.from_pretrained(folder, evidence_window=16, switching_rates=rates).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = text_loss(merged, tokenizer, TEXT, CONTEXT)
    nats, characters = nats_of_windows(models, tokenizer, RULES[name])
    np.testing.assert_allclose(nats, expected.nats, rtol=1e-4)
    assert characters == expected.characters.tolist()


@torch.no_grad()
def test_sparse_reading_is_that_of_a_merged_checkpoint(models, experts, tmp_path, monkeypatch):
    """Token by token: one expert's text, then another's, with a catch-up in each."""
    for module in (sparse, scheduling_frozen_glyph):
        monkeypatch.setattr(module, "CATCH_UP_TOKENS", 6)
    monkeypatch.setattr(sparse, "PROMPT_TOKENS", 4)
    torch.manual_seed(0)
    written = [model.generate(torch.tensor([[5, 6]]), max_new_tokens=14, do_sample=True)[0, 2:] for model in models]
    ids = torch.cat(written)[None]
    merged = FrozenGlyphMoEForCausalLM.from_pretrained(
        merge_experts(experts, tmp_path / "merged", rule="fixed_share"), active_experts=1
    ).eval()
    output = merged(ids[:, :4], use_cache=True)
    found = [output.logits[0]]
    for column in range(4, ids.shape[1] - 1):
        output = merged(ids[:, column : column + 1], use_cache=True, **{CACHE: output[CACHE]})
        found.append(output.logits[0])
    expected = torch.nn.functional.cross_entropy(torch.cat(found), ids[0, 1:], reduction="none")
    logits = torch.stack([model(ids[:, :-1]).logits for model in models])
    log_probs = log_probs_of(logits, ids[:, 1:])
    log_weights = fixed_share(log_probs.double(), 0.01).float()
    entropies = torch.stack([entropies_of(own) for own in logits])
    nats = sparse.sparse_nats(log_probs, entropies, log_weights, 1, logits.shape[-1])[0]
    torch.testing.assert_close(nats, expected, atol=1e-3, rtol=1e-3)
    dense = RULES["fixed_share 0.01"].nats(logits, log_probs, ids[:, 1:])[0]
    assert 8 < int((nats - dense).abs().gt(1e-6).sum()) < len(nats) - 4  # some tokens are read by one, others by all


def test_the_prompt_decides_for_good():
    """As PackLLM: experts count by their perplexity of the first tokens, from the token after them on."""
    log_probs = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(0))
    found = RULES["prompt 0.1"].log_weights(log_probs)
    assert found[..., :32].eq(0).all()
    expected = (log_probs[..., :32].mean(-1) / 0.1).unsqueeze(-1).expand(-1, -1, 8)
    torch.testing.assert_close(found[..., 32:], expected)


def test_fixed_share_without_sharing_is_the_posterior():
    log_probs = torch.randn(3, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = fixed_share(log_probs, share=0.0), all_tokens(log_probs)
    torch.testing.assert_close(found, expected.log_softmax(0))


def test_average_is_the_mean_of_the_weights(models):
    averaged = average(models).state_dict()
    first, second = (model.state_dict() for model in models)
    assert torch.equal(averaged["lm_head.weight"], (first["lm_head.weight"] + second["lm_head.weight"]) / 2)
    bits = "model.embed_tokens.packed_bits"
    assert torch.equal(averaged[bits], first[bits])


def test_mixture_holds_every_paragraph_once():
    texts = ["a 1\na 2\n\na 3\n", "b 1\n\nb 2\n"]
    assert sorted(line for line in mixture(texts).splitlines() if line) == ["a 1", "a 2", "a 3", "b 1", "b 2"]


def made_up(shifts):
    """A seed's measurement of one text, each model's loss off the same base by so many nats per character."""
    base = np.random.default_rng(0).uniform(8, 12, 50)
    groups = {f"single/{name}": shift for name, shift in shifts.items()}
    for name in SETS:
        groups |= {f"{name}/{rule}": 0.2 if rule == "mean" else -0.1 for rule in (*RULES, *SPARSE)}
        groups |= {f"{name}/evidence 4": -0.15}
    nats = {key: (base + 10 * shift).tolist() for key, shift in groups.items()}
    text = {"characters": [10.0] * 50, "documents": list(range(50)), "nats": nats, "tokens": 500.0}
    text |= {"switches": {f"{name}/{rule}": 5.0 for name in SETS for rule in RULES}}
    costs = {name: dict.fromkeys(SETTINGS, float(number)) for number, name in enumerate(("two", "three", "six"), 2)}
    return {"development": {"en": text, "mixed": text}, "reported": {"en": text, "mixed": text}, "costs": costs}


def test_report_compares_with_the_best_member_of_each_seed(tmp_path):
    """``posterior`` is better than the best member by 0.1 and ``mean`` worse by 0.2; which member is best differs."""
    worse = dict.fromkeys((*FIRST, *SECOND), 1.0) | {"union": -0.2, "average": 3.0}
    results = {("measure", seed): made_up(worse | {best: 0.0}) for seed, best in enumerate(("en", "en'", "en"))}
    cost = {"development": 1.0, "flops": 1e12, "tokens": 1, "seconds": 1.0}
    results |= {("union", rate, 0): cost for rate in rates_of(SMOKE)}
    report = summarise(results, SMOKE, range(3))
    found = report["losses"]["en"]["six/posterior"]
    assert found["best_member"] == ["en", "en'", "en"]
    assert found["minus_best"]["difference"] == pytest.approx(-0.1) and found["minus_best"]["high"] < 0
    assert found["minus_best"]["by_seed"] == pytest.approx([-0.1] * 3)
    assert found["minus_rival"]["union"]["difference"] == pytest.approx(0.1)
    assert report["losses"]["en"]["three/posterior"]["minus_best"]["by_seed"] == pytest.approx([-0.1, -1.1, -0.1])
    # The window is the best on the development text, and stands as the rule `evidence`.
    assert report["chosen"]["evidence"] == 4 and "three/evidence 4" not in report["losses"]["en"]
    assert report["losses"]["en"]["three/evidence"]["minus_best"]["by_seed"][0] == pytest.approx(-0.15)
    found = {(point["set"], point["rule"]): point for point in report["points"]}
    assert found["six", "mean"]["cost"] == 4.0 and found["single", "union"]["cost"] == 1.0
    assert found["two", "fixed_share"]["switches"] == 10.0 and found["two", "fixed_share, 1 run"]["switches"] is None
    union, evidence, costlier = found["single", "union"], found["two", "evidence"], found["six", "evidence"]
    assert [on_front(point, report["points"], "mixed") for point in (union, evidence, costlier)] == [True, False, False]
    report |= circumstances([]) | {"picture": "study.png"}
    draw(report, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 10_000
    written = as_markdown(report)
    assert "+0.200 (text +0.200 to +0.200; seeds +0.200 to +0.200)" in written and "](study.png)" in written
    with pytest.raises(SystemExit, match="2 of 3 seeds"):
        summarise({key: value for key, value in results.items() if key != ("measure", 2)}, SMOKE, range(3))


def test_families_of_seeds_are_disjoint():
    """No expert serves two seeds: each seed has a first and a second family of its own."""
    seeds = 3
    families = [seed + family * seeds for seed in range(seeds) for family in (0, 1)]
    assert len(set(families)) == 2 * seeds
    assert all(set(members) <= set(FIRST + SECOND) for members in SETS.values())
