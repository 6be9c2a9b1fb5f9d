"""Cross entropy of a linear head without its logits: they exist for a few tokens at a time, in both passes.

The gradients are computed together with the loss, chunk by chunk, while a chunk's logits exist (as Liger does, arXiv
2410.10989, section 3.2); the backward pass only scales them. PyTorch's own ``linear_cross_entropy`` (2.13) takes less
memory in float32 but more time, and rounds the loss itself to bfloat16 (eval/bench/loss.py compares).

Shapes: N tokens, C tokens of a chunk, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 1024


class ChunkedCrossEntropy(torch.autograd.Function):
    """states [N, D], weight [V, D], bias [V] or None, labels [N] -> sum of the labels' cross entropies, float32."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        ignore_index: int,
        with_gradients: bool,
    ) -> torch.Tensor:
        needs = [with_gradients and need for need in ctx.needs_input_grad[:3]]
        parts: list[Any] = [states, weight, bias]  # of which a bias may be missing
        grads: list[Any] = [
            torch.zeros_like(part, dtype=torch.float32) if need else None
            for part, need in zip(parts, needs, strict=True)
        ]
        dtypes = [None if part is None else part.dtype for part in parts]
        dtype = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled(states.device.type) else None
        if dtype is not None:
            states, weight, bias = parts = [part if part is None else part.to(dtype) for part in parts]
        total = torch.zeros((), device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            for begin in range(0, len(states), CHUNK_TOKENS):
                chunk = slice(begin, begin + CHUNK_TOKENS)
                logits_CV = nn.functional.linear(states[chunk], weight, bias).float()
                target_C = labels[chunk]
                counts_C1 = (target_C != ignore_index).unsqueeze(1)
                target_C1 = target_C.unsqueeze(1) * counts_C1
                log_sum_C1 = logits_CV.logsumexp(-1, keepdim=True)
                total += ((log_sum_C1 - logits_CV.gather(1, target_C1)) * counts_C1).sum()
                if not any(needs):
                    continue
                grad_CV = logits_CV.sub_(log_sum_C1).exp_()  # softmax minus one at the label
                grad_CV.scatter_add_(1, target_C1, -torch.ones_like(log_sum_C1))
                grad_CV.mul_(counts_C1)
                if needs[2]:
                    grads[2] += grad_CV.sum(0)
                grad_CV = grad_CV.to(states.dtype)
                if needs[0]:
                    grads[0][chunk] = grad_CV @ weight
                if needs[1]:
                    grads[1] += grad_CV.T @ states[chunk]
        ctx.grads = [grad if grad is None else grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True)]
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        return *(grad if grad is None else grad.mul_(scale) for grad in grads), None, None, None


def cross_entropies(
    head: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, labels: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """The same sum for any head that makes logits of states; its logits are computed again in the backward pass."""
    total = torch.zeros((), device=states.device)
    for states_CD, target_C in zip(states.split(CHUNK_TOKENS), labels.split(CHUNK_TOKENS), strict=True):

        def of_chunk(states_CD: torch.Tensor, target_C: torch.Tensor) -> torch.Tensor:
            logits_CV = head(states_CD).float()
            return nn.functional.cross_entropy(logits_CV, target_C, ignore_index=ignore_index, reduction="sum")

        total = total + checkpoint(of_chunk, states_CD, target_C, use_reentrant=False)
    return total


def chunked_causal_loss(
    states: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
    **kwargs: Any,
) -> torch.Tensor:
    """transformers' ``ForCausalLMLoss`` of ``head(states)``: states [B, T, D], labels [B, T], shifted inside.

    The mean over the labels, or their sum over ``num_items_in_batch``. A head that is no Linear, for example one in an
    adapter, is called, and called again in the backward pass.
    """
    labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:].flatten()
    states = states.flatten(0, -2)
    if isinstance(head, nn.Linear):
        total = ChunkedCrossEntropy.apply(states, head.weight, head.bias, labels, ignore_index, torch.is_grad_enabled())
    else:
        total = cross_entropies(head, states, labels, ignore_index)
    return total / (labels.ne(ignore_index).sum() if num_items_in_batch is None else num_items_in_batch)


__all__ = ["chunked_causal_loss"]
