"""lm-evaluation-harness's model for transformers, but only the logits that are scored are computed.

A choice is a few tokens after a long prompt; lm-eval asks the model for the logits of every position all the same.
Here the head sees only the end of each batch (``logits_to_keep``): the same scores, without most of the work of a
large vocabulary. https://github.com/EleutherAI/lm-evaluation-harness

Shapes: B sequences of a batch, padded on the right with zeros to P tokens; K positions from the end that are kept.
"""

import inspect
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor


def kept_positions(tokens_BP: Tensor, continuation: int) -> int:
    """Return K: so many last positions of the batch hold the last ``continuation`` tokens of every sequence.

    A token with id 0 at the end of a sequence counts as padding: then more is kept than needed, never less.
    """
    length = tokens_BP.shape[1]
    positions = torch.arange(1, length + 1, device=tokens_BP.device)
    shortest = int((positions * (tokens_BP != 0)).amax(dim=1).min())
    return min(length, length - shortest + continuation)


class ScoredLogitsLM(HFLM):
    """``HFLM`` whose model computes logits from the first scored position of a batch on."""

    _longest_continuation: int | None = None

    @property
    def max_gen_toks(self) -> int:
        """New tokens of tasks that set no limit: lm-eval's 256 would leave a short context no room for the prompt."""
        return min(super().max_gen_toks, self.max_length // 4)

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        if requests and "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            self._longest_continuation = max(len(continuation) for _, _, continuation in requests)
        try:
            return super()._loglikelihood_tokens(requests, *arguments, **options)
        finally:
            self._longest_continuation = None

    def _model_call(self, inps: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if self._longest_continuation is None:
            return super()._model_call(inps, *arguments, **options)
        kept = kept_positions(inps, self._longest_continuation)
        with (
            torch.no_grad(),
            torch.autocast(
                self.device.type, self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None
            ),
        ):
            return self.model(inps, logits_to_keep=kept, use_cache=False).logits
