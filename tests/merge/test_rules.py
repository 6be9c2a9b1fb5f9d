"""The list of merge rules: adding a rule is adding one entry to it and one function, and everything takes the rule."""

import functools
import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, merge_experts
from frozen_glyph.cli import main
from frozen_glyph.model.rules_frozen_glyph import RULES, MergeRule


def maximum(logits_NBTV, log_weights_BTN):
    """The largest of the experts' log-probabilities of each token, lowered by the log of the expert's weight."""
    log_weights_NBT1 = log_weights_BTN.unsqueeze(-1).movedim(-2, 0)
    scores = [own.log_softmax(-1) + weight for own, weight in zip(logits_NBTV, log_weights_NBT1, strict=True)]
    return functools.reduce(torch.maximum, scores)


@pytest.fixture
def new_rule(monkeypatch):
    rule = MergeRule("maximum", "the boldest expert decides. It may be wrong.", source="a test", combine=maximum)
    monkeypatch.setitem(RULES, rule.name, rule)
    return rule


@pytest.fixture
def frozen_glyph(monkeypatch, capsys):
    """``frozen_glyph("merge", ...)``: what the command prints; it must succeed."""

    def run(*words) -> str:
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert not end.value.code, captured.err
        return captured.out

    return run


@torch.no_grad()
def test_the_model_computes_a_new_rule(new_rule, experts, merged_folder, token_ids):
    """Chosen at loading: logits by definition, with a cache and without, and greedy text."""
    model, ids = AutoModelForCausalLM.from_pretrained(merged_folder, rule="maximum").eval(), token_ids(2, 9)
    model.config.expert_weights = [0.75, 0.25]
    alone = [FrozenGlyphForCausalLM.from_pretrained(folder).eval()(ids).logits for folder in experts]
    weights = torch.tensor([0.75, 0.25]).log()
    expected = torch.maximum(alone[0].log_softmax(-1) + weights[0], alone[1].log_softmax(-1) + weights[1])
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    texts = [model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*texts) and texts[0][0, 9] == expected[0, -1].argmax()


def test_commands_take_a_new_rule(new_rule, frozen_glyph, experts, tmp_path):
    """Merging and reweighing by its name, with weights as prior; report, card and inspection say what it costs."""
    out = tmp_path / "merged"
    said = frozen_glyph("merge", *experts, "-o", out, "--rule", "maximum", "--weights", "3,1", "--json")
    assert json.loads(said)["costs"] == new_rule.costs
    config = FrozenGlyphMoEConfig.from_pretrained(out)
    assert (config.rule, config.expert_weights) == ("maximum", [0.75, 0.25])
    assert f"`maximum`: {new_rule.costs}" in (out / "README.md").read_text("utf-8")
    assert f"maximum: {new_rule.costs}" in frozen_glyph("inspect", out)
    frozen_glyph("reweigh", out, "--rule", "mean")
    frozen_glyph("reweigh", out, "--rule", "maximum", "--weights", "1,3")
    assert FrozenGlyphMoEConfig.from_pretrained(out).expert_weights == [0.25, 0.75]


def test_a_new_rule_is_refused_where_one_head_is_needed(new_rule, merged_folder, token_ids):
    """That it needs each expert's own logits follows from its having a function."""
    model, ids = AutoModelForCausalLM.from_pretrained(merged_folder, rule="maximum"), token_ids(2, 9)
    with pytest.raises(ValueError, match="skip_logits=True needs one of the rules mean, weighted"):
        model(ids, labels=ids, skip_logits=True)
    with pytest.raises(ValueError, match="rule='maximum' is no sum of logits"):
        model.to_one_head()
    with pytest.raises(ValueError, match="must be non-negative and sum to 1 under rule='maximum'"):
        AutoModelForCausalLM.from_pretrained(merged_folder, rule="maximum", expert_weights=[2.0, -1.0])


def test_a_new_rule_may_read_tokens(monkeypatch, merged_folder, token_ids):
    """What each expert counts then changes with the text, and sums to 1 at each token."""
    seen = []

    def spy(logits_NBTV, log_weights_BTN):
        seen.append(log_weights_BTN)
        return maximum(logits_NBTV, log_weights_BTN)

    rule = MergeRule("bold reader", "a test.", source="a test", combine=spy, reads_tokens=True)
    monkeypatch.setitem(RULES, rule.name, rule)
    AutoModelForCausalLM.from_pretrained(merged_folder, rule="bold reader")(token_ids(2, 9))
    (log_weights,) = seen
    torch.testing.assert_close(log_weights.exp().sum(-1), torch.ones(2, 9))
    assert (log_weights[:, -1] - log_weights[:, 0]).abs().max() > 1


def test_only_sums_of_logits_take_any_weights():
    """Every other rule takes their logarithms."""
    assert all(rule.one_head for rule in RULES.values() if rule.weights == "any")


def test_help_names_every_rule(frozen_glyph, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = frozen_glyph("merge", "--help")
    assert all(name in said for name in RULES)


def test_a_merge_of_merges_keeps_its_rule(new_rule, experts, tmp_path):
    """Weights of one rule multiply; under another rule the merged expert would mean something else."""
    inner = merge_experts(experts, tmp_path / "inner", "maximum", [3, 1])
    config = FrozenGlyphMoEConfig.from_pretrained(merge_experts([inner, experts[0]], tmp_path / "outer", "maximum"))
    assert config.expert_weights == [0.375, 0.125, 0.5]
    with pytest.raises(ValueError, match="is merged by rule 'maximum', this merge by 'posterior'"):
        merge_experts([inner, experts[0]], tmp_path / "other", "posterior")
