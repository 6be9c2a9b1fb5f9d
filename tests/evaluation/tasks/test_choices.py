"""Batched choice scoring against one forward pass per choice and against lm-eval itself."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.tasks.choices import score_questions


@dataclass
class Question:
    prompt: str
    choices: list[str]
    answer: int


QUESTIONS = [
    Question("Where do fish live? Answer:", [" sea", " desert", " a very long answer"], 0),
    Question("One and one is ", ["two", "three"], 0),
    Question("Это рыба?\n", ["да", "нет", "кто знает", "?"], 1),
    Question("long " * 160 + "end:", [" yes", " no"], 1),  # longer than the context of 512 tokens
]


def slow_log_likelihood(model: Any, tokenizer: Any, prompt: str, choice: str) -> float:
    """The obvious way: one unpadded sequence, one token at a time."""
    prompt_length = len(tokenizer.encode(prompt.rstrip(), add_special_tokens=False))
    ids = tokenizer.encode(prompt + choice, add_special_tokens=False)
    scored = len(ids) - prompt_length
    ids = ids[-513:]
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0]
    positions = range(len(ids) - 1 - scored, len(ids) - 1)
    return sum(float(logits[at].log_softmax(-1)[ids[at + 1]]) for at in positions)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_equal_one_sequence_at_a_time(model: Any, byte_tokenizer: Any, batch_size: int) -> None:
    results = score_questions(model, byte_tokenizer, QUESTIONS, batch_size)
    for question, result in zip(QUESTIONS, results, strict=True):
        slow = [slow_log_likelihood(model, byte_tokenizer, question.prompt, choice) for choice in question.choices]
        assert result.log_likelihoods == pytest.approx(slow, abs=1e-4)
        assert result.chosen == max(range(len(slow)), key=slow.__getitem__)
        assert result.correct == (result.chosen == question.answer)
        assert result.chance == 1 / len(question.choices)


def test_scores_equal_lm_eval(model: Any, byte_tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, batch_size=4)
    pairs = [(question.prompt, choice) for question in QUESTIONS for choice in question.choices]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    expected = [log_likelihood for log_likelihood, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    scores = [score for result in score_questions(model, byte_tokenizer, QUESTIONS) for score in result.log_likelihoods]
    assert scores == pytest.approx(expected, abs=1e-4)


def test_mode_is_restored_and_dropout_is_off(model: Any, byte_tokenizer: Any) -> None:
    model.train()
    model.config.attention_dropout = model.model.layers[0].self_attn.attention_dropout = 0.5
    try:
        first, second = (score_questions(model, byte_tokenizer, QUESTIONS[:1]) for _ in range(2))
        assert first == second
        assert model.training
    finally:
        model.config.attention_dropout = model.model.layers[0].self_attn.attention_dropout = 0.0
        model.eval()


def test_no_questions_and_bad_questions(model: Any, byte_tokenizer: Any) -> None:
    assert score_questions(model, byte_tokenizer, []) == []
    with pytest.raises(FrozenGlyphError, match="adds no token"):
        score_questions(model, byte_tokenizer, [Question("Why?", ["", " so"], 0)])
    with pytest.raises(FrozenGlyphError, match="is blank"):
        score_questions(model, byte_tokenizer, [Question(" ", ["a", "b"], 0)])
