"""The faster lm-eval model gives what lm-eval's own gives, and computes fewer logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from frozen_glyph.evaluation.tasks.lm import ScoredLogitsLM, kept_positions, scored_spans

PROMPTS = ["The old man went to the sea", "Who?", "A long question with many words in it, so that padding differs much"]
CHOICES = [" A", " B", " the whole answer", " 0", " x\x00"]


@pytest.fixture(scope="module")
def requests() -> list[Instance]:
    arguments = [(prompt, choice) for prompt in PROMPTS for choice in CHOICES]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(arguments)]


@pytest.mark.parametrize("batch_size", [1, 4, 15])
def test_scores_equal_those_of_lm_eval(
    model_folders: list[Path], requests: list[Instance], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"pretrained": str(model_folders[0]), "batch_size": batch_size, "device": "cpu"}
    plain, ours = HFLM(**options), ScoredLogitsLM(**options)
    computed = {"plain": 0, "ours": 0}
    for name, lm in (("plain", plain), ("ours", ours)):
        head = lm.model.get_output_embeddings()

        def count(module: Any, inputs: Any, logits: torch.Tensor, name: str = name) -> None:
            computed[name] += logits.shape[0] * logits.shape[1]

        head.register_forward_hook(count)
    expected, found = plain.loglikelihood(requests, disable_tqdm=True), ours.loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert computed["ours"] < computed["plain"]
    rolling = [Instance("loglikelihood_rolling", {}, (prompt * 20,), 0) for prompt in PROMPTS]
    assert ours.loglikelihood_rolling(rolling, disable_tqdm=True) == pytest.approx(
        plain.loglikelihood_rolling(rolling, disable_tqdm=True), abs=1e-2
    )


def test_spans_are_where_continuations_are_predicted() -> None:
    requests = [(None, [5, 6, 7], [8]), (None, [5, 6], [7, 8]), (None, [5] * 9, [6, 7])]
    assert scored_spans(requests, max_length=20) == {3: (1, 3), 10: (8, 10)}
    assert scored_spans(requests, max_length=4) == {3: (1, 3), 4: (2, 4)}  # cut on the left
    zeros = [(None, [5, 6, 7], [0, 0, 8]), (None, [5, 6], [7, 8]), (None, [0], [0])]
    assert scored_spans(zeros, max_length=20) == {3: (1, 5), 0: (0, 1)}


def test_only_scored_positions_are_kept() -> None:
    tokens_BP = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7], [5, 6, 7, 0, 0, 0, 0, 0]])
    assert kept_positions(tokens_BP, {8: (7, 8), 3: (1, 3)}).tolist() == [1, 2, 7]
    assert kept_positions(tokens_BP, {8: (1, 8), 3: (0, 3)}).tolist() == list(range(8))
    assert kept_positions(tokens_BP[1:, :4], {3: (1, 6)}).tolist() == [1, 2, 3]
