"""lm-evaluation-harness's model for transformers, but only the logits that are scored are computed.

A choice is a few tokens after a long prompt; lm-eval asks the model for the logits of every position all the same.
Here the head sees only the positions at which some sequence of the batch is scored (``logits_to_keep``): the same
scores, without most of the work of a large vocabulary. https://github.com/EleutherAI/lm-evaluation-harness

Shapes: B sequences of a batch, padded on the right with zeros to P tokens; K positions that are kept.
"""

import inspect
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

Span = tuple[int, int]  # first position and the one after the last


def scored_spans(requests: list[Any], max_length: int) -> dict[int, Span]:
    """Where lm-eval's ``requests`` are scored, by the length of their tokens without zeros at the end.

    In a padded batch a token with id 0 at the end cannot be told from padding: a span covers all requests of its
    length, with such tokens or without.
    """
    spans: dict[int, Span] = {}
    for _, context, continuation in requests:
        tokens = (context + continuation)[-(max_length + 1) : -1]
        stop = end = len(tokens)
        while end and tokens[end - 1] == 0:
            end -= 1
        first, last = spans.get(end, (stop, stop))
        spans[end] = min(first, stop - len(continuation)), max(last, stop)
    return spans


def kept_positions(tokens_BP: Tensor, spans: dict[int, Span]) -> Tensor:
    """Positions [K], ascending and on the CPU, at which some sequence of the batch is scored."""
    length = tokens_BP.shape[1]
    positions = torch.arange(1, length + 1, device=tokens_BP.device)
    ends = (positions * (tokens_BP != 0)).amax(dim=1).tolist()
    kept = {position for end in ends for position in range(*spans[end])}
    return torch.tensor(sorted(position for position in kept if position < length))


class ScoredLogitsLM(HFLM):
    """``HFLM`` whose model computes logits at the scored positions of a batch."""

    _spans: dict[int, Span] | None = None
    _kept: Tensor
    _length: int  # of the batch that _kept is about

    @property
    def max_gen_toks(self) -> int:
        """New tokens of tasks that set no limit: lm-eval's 256 would leave a short context no room for the prompt."""
        return max(1, min(super().max_gen_toks, self.max_length // 4))

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            self._spans = scored_spans(requests, self.max_length)
        try:
            return super()._loglikelihood_tokens(requests, *arguments, **options)
        finally:
            self._spans = None

    def _model_call(self, inps: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if self._spans is None:
            return super()._model_call(inps, *arguments, **options)
        self._kept, self._length = kept_positions(inps, self._spans), inps.shape[1]
        with (
            torch.no_grad(),
            torch.autocast(
                self.device.type, self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None
            ),
        ):
            return self.model(inps, logits_to_keep=self._kept, use_cache=False).logits

    def _select_cont_toks(self, logits: Tensor, contlen: int | None = None, inplen: int | None = None) -> Tensor:
        if self._spans is None or contlen is None or inplen is None:
            return super()._select_cont_toks(logits, contlen, inplen)
        # lm-eval counts as if the logits were those of the last positions.
        stop = inplen + self._length - len(self._kept)
        first = int(torch.searchsorted(self._kept, stop - contlen))
        return logits[first : first + contlen]
