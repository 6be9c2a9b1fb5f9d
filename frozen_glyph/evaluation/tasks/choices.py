"""Multiple-choice scoring: the log-likelihood of every choice as a continuation of its prompt, in batches.

Method of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness): prompt + choice are tokenised
together, what follows the prompt's tokens is the choice, and the highest summed log-probability wins.

Shapes: B sequences of a batch, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from frozen_glyph.errors import FrozenGlyphError


class ChoiceQuestion(Protocol):
    """A question to score: the choices follow the prompt literally, ``answer`` is the index of the right one."""

    @property
    def prompt(self) -> str: ...
    @property
    def choices(self) -> Sequence[str]: ...
    @property
    def answer(self) -> int: ...


@dataclass(frozen=True)
class ChoiceResult:
    """What a model chose for one question."""

    chosen: int
    answer: int
    log_likelihoods: tuple[float, ...]

    @property
    def correct(self) -> bool:
        return self.chosen == self.answer

    @property
    def chance(self) -> float:
        return 1 / len(self.log_likelihoods)


@dataclass(frozen=True)
class _Continuation:
    token_ids: list[int]
    length: int  # how many of the last tokens are the continuation


def _encode(tokenizer: Any, prompt: str, choice: str) -> _Continuation:
    # As in lm-eval, spaces that end the prompt belong to the choice: words carry their leading space.
    bare_prompt = prompt.rstrip()
    if not bare_prompt:
        raise FrozenGlyphError(f"prompt {prompt!r} is blank; a question needs some text before its choices")
    prompt_ids = tokenizer.encode(bare_prompt, add_special_tokens=False)
    token_ids = tokenizer.encode(prompt + choice, add_special_tokens=False)
    if len(token_ids) <= len(prompt_ids):
        raise FrozenGlyphError(f"choice {choice!r} adds no token to the prompt {prompt!r}; a choice must not be empty")
    return _Continuation(token_ids, len(token_ids) - len(prompt_ids))


@torch.inference_mode()
def _score_batch(model: Any, batch: list[_Continuation], context_length: int) -> list[float]:
    # A sequence that is too long loses its beginning; the last token is only predicted, never read.
    kept = [continuation.token_ids[-(context_length + 1) :] for continuation in batch]
    width = max(len(token_ids) for token_ids in kept) - 1
    inputs_BT = torch.zeros(len(batch), width, dtype=torch.long)
    mask_BT = torch.zeros(len(batch), width, dtype=torch.long)
    for row, token_ids in enumerate(kept):
        inputs_BT[row, : len(token_ids) - 1] = torch.tensor(token_ids[:-1])
        mask_BT[row, : len(token_ids) - 1] = 1
    logits_BTV: Tensor = model(
        input_ids=inputs_BT.to(model.device), attention_mask=mask_BT.to(model.device), use_cache=False
    ).logits
    scores = []
    for row, (token_ids, continuation) in enumerate(zip(kept, batch, strict=True)):
        end = len(token_ids) - 1
        start = end - min(continuation.length, end)
        targets_T = torch.tensor(token_ids[start + 1 :], device=logits_BTV.device)
        log_probabilities_TV = logits_BTV[row, start:end].float().log_softmax(dim=-1)
        scores.append(float(log_probabilities_TV.gather(1, targets_T[:, None]).sum()))
    return scores


def _score_all(model: Any, tokenizer: Any, questions: Sequence[ChoiceQuestion], batch_size: int) -> list[float]:
    """Return the log-likelihood of every choice of every question, in order."""
    encoded = [_encode(tokenizer, question.prompt, choice) for question in questions for choice in question.choices]
    context_length = getattr(model.config, "max_position_embeddings", None) or 1_000_000
    # Neighbours in length share a batch, so little is padding.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].token_ids), reverse=True)
    scores = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch_scores = _score_batch(model, [encoded[index] for index in chosen], context_length)
        for index, score in zip(chosen, batch_scores, strict=True):
            scores[index] = score
    return scores


def score_questions(
    model: Any, tokenizer: Any, questions: Sequence[ChoiceQuestion], batch_size: int = 32
) -> list[ChoiceResult]:
    """Return, for each question, the most likely choice and the log-likelihood of all; ties go to the first.

    ``model`` is any causal language model whose forward returns ``.logits``; it is scored in evaluation mode.
    """
    was_training = model.training
    model.eval()
    try:
        scores = _score_all(model, tokenizer, questions, batch_size)
    finally:
        model.train(was_training)
    results, position = [], 0
    for question in questions:
        own = tuple(scores[position : position + len(question.choices)])
        position += len(own)
        results.append(ChoiceResult(max(range(len(own)), key=own.__getitem__), question.answer, own))
    return results
