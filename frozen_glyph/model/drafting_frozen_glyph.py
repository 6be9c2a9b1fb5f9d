"""A grown model's own first blocks draft for all of them (self-speculative decoding, arXiv 2404.16710).

Drafts run on the model's cache, from which they are cropped before the model checks them: nothing is read twice and no
memory is added. A large head costs more than the blocks that draft, so that drafts choose among few tokens: those that
were likeliest when the model last said something else.

Shapes: T tokens, D hidden size, V vocabulary, S tokens of the short list.
"""

from typing import Any

import torch
from torch import nn
from transformers.generation.candidate_generator import CandidateGenerator

from .head_frozen_glyph import OutputHead

LEAST_CONFIDENCE = 0.1  # of a whole draft: the product of the probabilities of its tokens; eval/bench/draft.py
MOST_TOKENS = 20  # of one draft, where num_assistant_tokens says nothing
SHORT_LIST = 4096  # tokens


class BlocksDraft(CandidateGenerator):
    """Candidates of ``generate``: what the first ``blocks`` of ``model``, with the last norm and head, would write."""

    def __init__(self, model: Any, blocks: int, cache: Any, attention_mask: Any, generation_config: Any) -> None:
        self.model, self.blocks, self.cache, self.attention_mask = model, blocks, cache, attention_mask
        self.max_length = generation_config.max_length
        self.most = generation_config.num_assistant_tokens or MOST_TOKENS
        self.short: torch.Tensor | None = None  # ids [S]
        self.weight: Any = None  # their rows of the head, [S, D] and [S]
        self.bias: Any = None

    def get_candidates(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        """``input_ids`` [1, T] and the draft behind them; none while the cache has not read all but the last token."""
        length = input_ids.shape[1]
        room = min(self.most, self.max_length - length - 1)
        if int(self.cache.get_seq_length()) != length - 1 or room < 1:
            return input_ids, None
        config, ids, confidence, read = self.model.config, input_ids, 1.0, 0
        all_blocks, config.num_hidden_layers = config.num_hidden_layers, self.blocks
        try:
            while read < room and confidence >= LEAST_CONFIDENCE:
                states = self.model.base_model(ids[:, -1:], **self.reading(ids)).last_hidden_state
                read += 1
                probability, place = self.logits(states[:, -1]).softmax(-1).max(-1)
                token = place if self.short is None else self.short[place]
                ids = torch.cat([ids, token[:, None]], dim=1)
                confidence *= float(probability)
        finally:
            config.num_hidden_layers = all_blocks
            for layer in self.cache.layers[: self.blocks]:
                layer.crop(-read)
        return ids, None

    def reading(self, ids: torch.Tensor) -> dict[str, Any]:
        """How the last of ``ids`` [1, T] is read: behind what the cache holds, and which of them are padding."""
        arguments = {"cache": self.cache, "use_cache": True}
        if self.attention_mask is None or bool(self.attention_mask.all()):
            return arguments
        mask = nn.functional.pad(self.attention_mask, (0, ids.shape[1] - self.attention_mask.shape[1]), value=1)
        return arguments | {"attention_mask": mask, "position_ids": mask.sum(-1, keepdim=True) - 1}

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Of the short list [1, S], or of all tokens [1, V]."""
        if self.short is None:
            return self.model.lm_head(states).float()
        return nn.functional.linear(states, self.weight, self.bias).float()

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """Make the list anew where the token that the model has just chosen is not on it."""
        head, last = self.model.lm_head, input_ids[0, -1]
        if type(head) is not OutputHead or head.out_features <= 2 * SHORT_LIST:
            return
        if self.short is None or not bool((self.short == last).any()):
            self.short = scores[0, num_matches].topk(SHORT_LIST).indices
            self.weight, self.bias = head.weight[self.short], head.bias[self.short]


__all__ = ["BlocksDraft"]
