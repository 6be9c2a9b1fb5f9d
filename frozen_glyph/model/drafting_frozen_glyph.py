"""A part of a model drafts for the whole (self-speculative decoding, arXiv 2404.16710): a grown model's own first
blocks, or the expert of a merged model that leads (``leading_frozen_glyph.py``).

Drafts run on the model's cache, from which they are cropped before the model checks them: nothing is read twice and no
memory is added. A large head costs more than the blocks that draft, so that these choose among few tokens: those that
were likeliest when the model last said something else.

Shapes: T tokens, D hidden size, V vocabulary, S tokens of the short list.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from transformers.generation.candidate_generator import CandidateGenerator

from .head_frozen_glyph import OutputHead

LEAST_CONFIDENCE = 0.1  # of a whole draft: the product of the probabilities of its tokens; eval/bench/draft.py
MOST_TOKENS = 20  # of one draft, where num_assistant_tokens says nothing
SHORT_LIST = 4096  # tokens


class Draft(CandidateGenerator, ABC):
    """Candidates of ``generate``; a subclass says what writes them."""

    def __init__(self, model: Any, cache: Any, attention_mask: Any, generation_config: Any) -> None:
        self.model, self.cache, self.attention_mask = model, cache, attention_mask
        self.padded = attention_mask is not None and not bool(attention_mask.all())
        self.max_length = generation_config.max_length
        self.most = generation_config.num_assistant_tokens or MOST_TOKENS

    def get_candidates(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        """``input_ids`` [1, T] and the draft behind them; none while the cache has not read all but the last token."""
        length = input_ids.shape[1]
        room = min(self.most, self.max_length - length - 1)
        if int(self.cache.get_seq_length()) != length - 1 or room < 1:
            return input_ids, None
        ids, confidence, read = input_ids, 1.0, 0
        self.begin()
        try:
            while read < room and confidence >= LEAST_CONFIDENCE:
                logits = self.logits(ids)
                read += 1
                probability, place = logits.softmax(-1).max(-1)
                ids = torch.cat([ids, self.token(place)[:, None]], dim=1)
                confidence *= float(probability)
        finally:
            self.end(read)
        return ids, None

    @abstractmethod
    def begin(self) -> None:
        """Let the part run alone."""

    @abstractmethod
    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Of what follows ``ids`` [1, T], the last of which is read: [1, S], float32."""

    def token(self, place: torch.Tensor) -> torch.Tensor:
        """The id of the token at ``place`` of the logits."""
        return place

    @abstractmethod
    def end(self, read: int) -> None:
        """Let all run again, and crop the cache of the ``read`` tokens."""

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """What the model has taken of the draft changes nothing."""

    def reading(self, ids: torch.Tensor) -> dict[str, Any]:
        """How the last of ``ids`` [1, T] is read: behind what the cache holds, and which of them are padding."""
        arguments = {"cache": self.cache, "use_cache": True}
        if not self.padded:
            return arguments
        mask = nn.functional.pad(self.attention_mask, (0, ids.shape[1] - self.attention_mask.shape[1]), value=1)
        return arguments | {"attention_mask": mask, "position_ids": mask.sum(-1, keepdim=True) - 1}


class BlocksDraft(Draft):
    """What the first ``blocks`` of ``model``, with the last norm and head, would write."""

    def __init__(self, model: Any, blocks: int, *inputs: Any) -> None:
        super().__init__(model, *inputs)
        self.blocks, self.all_blocks = blocks, model.config.num_hidden_layers
        self.short: torch.Tensor | None = None  # ids [S]
        self.weight: Any = None  # their rows of the head, [S, D] and [S]
        self.bias: Any = None

    def begin(self) -> None:
        self.model.config.num_hidden_layers = self.blocks

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.model.base_model(ids[:, -1:], **self.reading(ids)).last_hidden_state[:, -1]
        if self.short is None:
            return self.model.lm_head(states).float()
        return nn.functional.linear(states, self.weight, self.bias).float()

    def token(self, place: torch.Tensor) -> torch.Tensor:
        return place if self.short is None else self.short[place]

    def end(self, read: int) -> None:
        self.model.config.num_hidden_layers = self.all_blocks
        for layer in self.cache.layers[: self.blocks]:
            layer.crop(-read)

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """Make the list anew where the token that the model has just chosen is not on it."""
        head, last = self.model.lm_head, input_ids[0, -1]
        if type(head) is not OutputHead or head.out_features <= 2 * SHORT_LIST:
            return
        if self.short is None or not bool((self.short == last).any()):
            self.short = scores[0, num_matches].topk(SHORT_LIST).indices
            self.weight, self.bias = head.weight[self.short], head.bias[self.short]


__all__ = ["BlocksDraft", "Draft"]
