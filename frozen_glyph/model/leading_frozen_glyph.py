"""The expert of a merged model that leads drafts for all of them; its head is its share of the model's.

Shapes: T tokens, V vocabulary.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from .drafting_frozen_glyph import Draft
from .evidence_frozen_glyph import weights_in
from .scheduling_frozen_glyph import rest


class ExpertDraft(Draft):
    """What the expert of ``model`` that leads when the draft begins would write."""

    def __init__(self, model: Any, *inputs: Any) -> None:
        super().__init__(model, *inputs)
        if not isinstance(self.cache, DynamicCache):
            raise ValueError(
                f"draft_expert=True needs a cache that grows, not {type(self.cache).__name__}: leave "
                "cache_implementation out"
            )
        self.experts: list[int] = []

    def begin(self) -> None:
        config, layers = self.model.config, self.cache.layers
        keys = layers[config.evidence_layer].keys
        last = torch.full((1,), keys.shape[2] - 1, device=keys.device)
        self.experts = weights_in(config, keys, last)[0, -1].argmax(keepdim=True).tolist()

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        reading = self.reading(ids) | {"running_experts": self.experts}
        states = self.model.base_model(ids[:, -1:], **reading).last_hidden_state
        rest(self.model.config, self.cache, self.experts)
        return self.model.lm_head(states[:, -1], apart=True, experts=self.experts)[0].float()

    def end(self, read: int) -> None:
        self.cache.crop(-read)


__all__ = ["ExpertDraft"]
