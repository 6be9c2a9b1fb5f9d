"""The composition study: its rules are those of merged checkpoints, its windows those of the text loss; its report."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eval.studies.common.windows import score_windows
from eval.studies.composition.measure import average, mixture
from eval.studies.composition.report import as_markdown, summarise
from eval.studies.composition.rules import RULES, all_tokens, fixed_share, log_probs_of
from eval.studies.composition.runs import SMOKE
from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
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


@pytest.mark.parametrize("rule", ["mean", "probability", "posterior", "evidence"])
def test_rule_is_that_of_a_merged_checkpoint(models, experts, tmp_path, rule):
    folder = merge_experts(experts, tmp_path / "merged", rule=rule)
    merged = FrozenGlyphMoEForCausalLM.from_pretrained(folder, evidence_window=16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = text_loss(merged, tokenizer, TEXT, CONTEXT)
    nats, characters = nats_of_windows(models, tokenizer, RULES[rule])
    np.testing.assert_allclose(nats, expected.nats, rtol=1e-4)
    assert characters == expected.characters.tolist()


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


def test_report_tells_a_better_rule_from_a_worse_one():
    """Losses made up so that ``posterior`` is better than the best expert by 0.1 and ``mean`` worse by 0.2."""
    generator = np.random.default_rng(0)
    characters = [10.0] * 50
    base = generator.uniform(8, 12, 50)
    groups = {"single/en": 0, "single/ru": 1, "single/zh": 2, "single/union": -0.2, "single/average": 3}
    groups |= {f"{name}/mean": 0.2 for name in ("two", "three", "six", "twins")}
    groups |= {f"{name}/{rule}": -0.1 for name in ("two", "three", "six", "twins") for rule in RULES if rule != "mean"}
    nats = {key: (base + 10 * shift).tolist() for key, shift in groups.items()}
    cost = {"flops": 1e12, "tokens": 1, "seconds": 1.0, "parameters": 1}
    results = {
        ("measure", 0): {"en": {"characters": characters, "documents": list(range(50)), "nats": nats}},
        ("union", 0): cost,
    }
    report = summarise(results, SMOKE, seeds=1)
    found = report["losses"]["en"]["three/posterior"]
    assert found["minus_expert"]["en"]["difference"] == pytest.approx(-0.1)
    assert found["minus_expert"]["en"]["high"] < 0
    assert found["minus_rival"]["union"]["difference"] == pytest.approx(0.1)
    assert "; +0.200 (text +0.200 to +0.200; seeds 3 seeds needed, 1 run)" in as_markdown(report)
