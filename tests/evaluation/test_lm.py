"""The faster lm-eval model gives what lm-eval's own gives, and computes fewer logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from frozen_glyph.evaluation.lm import ScoredLogitsLM, kept_positions

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
    # In one batch with the shortest prompt, nearly all of the longest sequence is kept.
    assert computed["ours"] < computed["plain"] if batch_size < 15 else computed["ours"] <= computed["plain"]
    rolling = [Instance("loglikelihood_rolling", {}, (prompt * 20,), 0) for prompt in PROMPTS]
    assert ours.loglikelihood_rolling(rolling, disable_tqdm=True) == pytest.approx(
        plain.loglikelihood_rolling(rolling, disable_tqdm=True), abs=1e-2
    )


def test_what_is_kept_covers_every_continuation() -> None:
    tokens_BP = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    assert kept_positions(tokens_BP, 1) == 3  # position 2 of the shorter sequence predicts its last token
    assert kept_positions(tokens_BP, 2) == 4
    assert kept_positions(tokens_BP, 9) == 5
    assert kept_positions(torch.tensor([[5, 6, 0, 0, 0], [0, 0, 0, 0, 0]]), 1) == 5  # nothing but zeros: keep all
