"""Which columns of the cache each new token may know of: no padding, and nothing before its own document.

A row may hold several documents, whose position ids restart. transformers' causal mask tells them apart only where
there is neither padding nor a cache, and state outside attention has no mask at all; both ask here.

Shapes: B batch, T new tokens, K columns: those in the cache, then the new ones.
"""

from typing import Any

import torch
from torch import nn


def is_prepared(attention_mask: Any) -> bool:
    """Whether the mask has four dimensions, and so says of each new token what it sees."""
    return attention_mask is not None and len(attention_mask.shape) == 4


def real_tokens(attention_mask: Any, past: int | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Which of the new tokens, as many as in ``like`` [B, T, ...], are text, not padding: bool [B, T].

    ``attention_mask`` [B, K], which is zero for what it leaves out, or a prepared one of four dimensions, in which what
    does not see itself is padding; ``past`` columns are in the cache already.
    """
    batch, length = like.shape[:2]
    columns = torch.arange(length, device=like.device) + past
    if attention_mask is None:
        return torch.ones(batch, length, dtype=torch.bool, device=like.device)
    if not is_prepared(attention_mask):
        return take(attention_mask.to(like.device).bool(), columns)
    seen_BTK = seen_columns(attention_mask, length).to(like.device)
    return seen_BTK.gather(2, columns.view(1, -1, 1).expand(len(seen_BTK), -1, 1)).squeeze(2).expand(batch, -1)


def first_columns(
    attention_mask: Any, position_ids: torch.Tensor | None, past: int | torch.Tensor, like: torch.Tensor
) -> torch.Tensor | None:
    """The column in which the document of each new token begins, [B, T]; None where nothing can say that.

    A document begins where position ids neither count on from the real token before nor keep their distance in columns.
    What goes on from the cache is told by its position: so many real tokens before it are of its document.
    See ``real_tokens`` for the arguments.
    """
    batch, length = like.shape[:2]
    if is_prepared(attention_mask):
        return seen_columns(attention_mask, length).to(like.device).byte().argmax(-1).expand(batch, -1)
    if position_ids is None:
        return None
    positions = position_ids.to(like.device).expand(batch, -1)
    numbers = torch.arange(length, device=like.device)
    columns = numbers + past
    if attention_mask is None:
        before = columns - positions  # real tokens that are of other documents
        carried = before.clamp_min(0)
    else:
        counts = attention_mask.to(like.device).bool().long().cumsum(-1)
        before = take(counts, columns) - 1 - positions
        carried = torch.searchsorted(counts, before + 1).masked_fill(before <= 0, 0)
    if length == 1:  # as in every step of generation
        return carried
    real = real_tokens(attention_mask, past, like)
    last = nn.functional.pad(numbers.where(real, -1).cummax(-1).values, (1, 0), value=-1)[:, :-1]
    step = positions - positions.gather(1, last.clamp_min(0))
    begins = (step != 1) & (step != numbers - last)
    firsts = torch.where(last < 0, carried, columns * begins).masked_fill(~real, 0)
    return firsts.cummax(-1).values


def continues_rows(attention_mask: Any, position_ids: torch.Tensor, past: int | torch.Tensor) -> bool:
    """Whether each row has one new token, of the document that it begins with: no more to ask in a step of generation.

    See ``real_tokens`` for the arguments; the mask is none of four dimensions.
    """
    if position_ids.shape[-1] > 1:
        return False
    known: Any = past + 1
    if attention_mask is not None:
        known = attention_mask[:, :known].to(position_ids.device).bool().sum(-1, keepdim=True)
    return bool((known <= position_ids + 1).all())


def take(rows_BK: torch.Tensor, columns_T: torch.Tensor) -> torch.Tensor:
    """``columns_T`` of each row, [B, T]; zero for those behind its end."""
    return nn.functional.pad(rows_BK, (0, 1)).index_select(1, columns_T.clamp_max(rows_BK.shape[1]))


def seen_columns(mask: Any, length: int) -> torch.Tensor:
    """Which columns the ``length`` new tokens see: bool [B or 1, T, K], of a prepared mask of four dimensions.

    It is true or zero where a token sees a column, else false or very negative; or it is flex attention's block mask.
    """
    if not isinstance(mask, torch.Tensor):
        from torch.nn.attention.flex_attention import create_mask  # seldom, and slow to import

        batch, _, _, columns = mask.shape
        mask = create_mask(mask.mask_mod, batch, 1, length, columns, device=mask.kv_indices.device)
    mask = mask[:, 0]
    return mask > torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else mask.bool()


__all__ = ["continues_rows", "first_columns", "is_prepared", "real_tokens"]
