"""Cross entropy of a linear head without its logits: they exist for a few tokens at a time, and once.

The gradients are computed together with the loss, chunk by chunk, while a chunk's logits exist (as Liger does, arXiv
2410.10989, section 3.2); the backward pass only scales them. Inside a chunk the products go through blocks of the
vocabulary, so that no rounded copy of the weight is whole, and the softmax through rows that stay in a processor's
cache. PyTorch's own ``linear_cross_entropy`` (2.13) takes more time and rounds the loss itself to bfloat16
(eval/bench/loss.py compares).

Shapes: N tokens, C tokens of a chunk, R of these at once, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .head_frozen_glyph import is_rounded, log_sum

CHUNK_BYTES = 32 << 20  # of a chunk's logits, in the type of the product
ROUNDED_CHUNK_BYTES = 64 << 20  # of rounded ones on a CPU, whose fast products make each pass over the weight dear
ROW_BYTES = 2 << 20  # of those that are float32 at one time
ON_A_DEVICE = 8  # times CHUNK_BYTES, ROW_BYTES and BLOCK_IDS: its kernels are large
LEAST_TOKENS = 64  # of a chunk: every chunk adds to the whole gradient of the weight
READ_CHUNKS = 2  # so many at once where there are no gradients: the weight is read once for all
MANY_IDS = 1 << 17  # of a head that does not say
BLOCK_IDS = 2048  # of the vocabulary, in one product
CHECKPOINTED_TOKENS = 256


def budget(size: int, device: torch.device) -> int:
    return size if device.type == "cpu" else size * ON_A_DEVICE


def chunk_tokens(vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens whose logits exist at one time."""
    rounded = device.type == "cpu" and dtype.itemsize < 4
    size = ROUNDED_CHUNK_BYTES if rounded else budget(CHUNK_BYTES, device)
    return max(LEAST_TOKENS, size // (vocab_size * dtype.itemsize))


def label_losses(
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    ignore_index: int = -100,
    with_gradients: bool = False,
    bias_grad: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropies [C], float32, of the labels; zero for one that is ``ignore_index``.

    ``with_gradients``: the logits become the gradients of their loss, which are also added to ``bias_grad`` [V].
    """
    rows = max(1, budget(ROW_BYTES, logits_CV.device) // (4 * logits_CV.shape[1]))
    losses = []
    for logits_RV, labels_R in zip(logits_CV.split(rows), labels_C.split(rows), strict=True):
        counts_R1 = (labels_R != ignore_index).unsqueeze(1)
        labels_R1 = labels_R.unsqueeze(1) * counts_R1
        shares_RV = logits_RV.softmax(-1, dtype=torch.float32)
        # From the largest, whose share is never too small for its logarithm: so one exponential serves both.
        log_sum_R1 = logits_RV.amax(-1, keepdim=True).float() - shares_RV.amax(-1, keepdim=True).log()
        losses.append(((log_sum_R1 - logits_RV.gather(1, labels_R1)) * counts_R1).squeeze(1))
        if with_gradients:  # softmax minus one at the label
            shares_RV.scatter_add_(1, labels_R1, -counts_R1.float()).mul_(counts_R1)
            logits_RV.copy_(shares_RV)
            if bias_grad is not None:
                bias_grad += shares_RV.sum(0)
    return torch.cat(losses)


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add ``left @ right`` to ``total``, which may be float32 beside rounded factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


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
        device, kind = states.device, states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        width = budget(BLOCK_IDS, device)
        blocks = [slice(begin, begin + width) for begin in range(0, len(weight), width)]
        size, total = chunk_tokens(len(weight), dtype, device), torch.zeros((), device=device)
        logits = torch.empty(min(size, len(states)), len(weight), dtype=dtype, device=device)
        with torch.autocast(kind, enabled=False):
            for begin in range(0, len(states), size):
                chunk = slice(begin, begin + size)
                states_CD = states[chunk].to(dtype)
                logits_CV = logits[: len(states_CD)]
                for block in blocks:
                    own_bias = None if bias is None else bias[block].to(dtype)
                    logits_CV[:, block] = nn.functional.linear(states_CD, weight[block].to(dtype), own_bias)
                total += label_losses(logits_CV, labels[chunk], ignore_index, any(needs), grads[2]).sum()
                for block in blocks:
                    if needs[0]:
                        add_product(grads[0][chunk], logits_CV[:, block], weight[block].to(dtype))
                    if needs[1]:
                        add_product(grads[1][block], logits_CV[:, block].T, states_CD)
        ctx.grads = [grad if grad is None else grad.to(part.dtype) for grad, part in zip(grads, parts, strict=True)]
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        return *(grad if grad is None else grad.mul_(scale) for grad in grads), None, None, None


def rounded_losses(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Cross entropies [N], float32, of ``labels`` [N]; of the logits only those of the labels are ever kept.

    A label's product is rounded as those of the sum are, or a likely token's loss would fall below zero; where the
    order of additions still tells them apart, by one rounding, it is held there.
    """
    products = (states.float() * weight[labels].float()).sum(-1).to(states.dtype)
    return (log_sum(states, weight, bias) - products.float() - bias[labels].float()).clamp_(min=0)


@torch.no_grad()
def losses_by_token(
    states: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor], labels: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """Cross entropies [N], float32: zero, and no logits made, where the label is ``ignore_index``."""
    losses = torch.zeros(len(states), device=states.device)
    size = READ_CHUNKS * chunk_tokens(getattr(head, "out_features", MANY_IDS), states.dtype, states.device)
    for places in labels.ne(ignore_index).nonzero().squeeze(1).split(size):
        if isinstance(head, nn.Linear) and head.bias is not None and is_rounded(states, head.weight, head.bias):
            losses[places] = rounded_losses(states[places], head.weight, head.bias, labels[places])
        else:
            losses[places] = label_losses(head(states[places]), labels[places], ignore_index)
    return losses


def cross_entropies(
    head: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, labels: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """The same sum for any head that makes logits of states; its logits are computed again in the backward pass."""
    total = torch.zeros((), device=states.device)
    chunks = (tensor.split(CHECKPOINTED_TOKENS) for tensor in (states, labels))
    for states_CD, labels_C in zip(*chunks, strict=True):

        def of_chunk(states_CD: torch.Tensor, labels_C: torch.Tensor) -> torch.Tensor:
            logits_CV = head(states_CD).float()
            return nn.functional.cross_entropy(logits_CV, labels_C, ignore_index=ignore_index, reduction="sum")

        total = total + checkpoint(of_chunk, states_CD, labels_C, use_reentrant=False)
    return total


def chunked_causal_loss(
    states: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    **kwargs: Any,
) -> torch.Tensor:
    """transformers' ``ForCausalLMLoss`` of ``head(states)``: states [B, T, D], labels [B, T], shifted inside.

    The mean over the labels, or their sum over ``num_items_in_batch``. A head that is no Linear, for example one in an
    adapter, is called, and called again in the backward pass. ``reduction="none"``: the loss of each label but the
    first [B, T - 1], without gradients.
    """
    if reduction == "none":
        losses = losses_by_token(states[:, :-1].flatten(0, 1), head, labels[:, 1:].flatten(), ignore_index)
        return losses.view(len(labels), -1)
    labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:].flatten()
    states = states.flatten(0, -2)
    if isinstance(head, nn.Linear):
        total = ChunkedCrossEntropy.apply(states, head.weight, head.bias, labels, ignore_index, torch.is_grad_enabled())
    else:
        total = cross_entropies(head, states, labels, ignore_index)
    return total / (labels.ne(ignore_index).sum() if num_items_in_batch is None else num_items_in_batch)


__all__ = ["chunked_causal_loss"]
