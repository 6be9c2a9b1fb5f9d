"""The models that go through the suites of others: each class and rule of ours, and a stock Llama as the control.

Tiny and random, on a substrate whose pictures are the binary codes of the ids: a model made from a bare configuration
has no pictures, and every token would be the same to it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    PreTrainedConfig,
)

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.model.rules_frozen_glyph import RULES

VOCABULARY, RESERVED, WIDTH = 340, 32, 32
AUTOS = (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
)
CHOICE = "FROZEN_GLYPH_VARIANT"
SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LORA = {"rank": 2, "alpha": 4, "targets": ["self_attn.q_proj", "mlp.fc_in"]}


@dataclass(frozen=True)
class Variant:
    """A model to test: ``config()`` makes a new configuration, ``blocks`` says through how many it runs a token."""

    config: Callable[[], PreTrainedConfig]
    blocks: int = 2
    experts: int = 1

    def write(self, folder: Path, tokenizer: Any) -> None:
        """A checkpoint with random weights, and the tokenizer beside it."""
        torch.manual_seed(0)
        config = self.config()
        config.initializer_range = 0.2  # so large that an adapter, however small, is seen in the logits
        self.model_classes()[1](config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def model_classes(self) -> list[type]:
        """The classes for the configuration: base model, causal language model, and further ones where there are any.

        The suites look up by its name what a class is for, in tables that ``register`` does not reach.
        """
        config = self.config()
        mappings = [auto._model_mapping for auto in AUTOS if type(config) in auto._model_mapping]
        for mapping in mappings:
            mapping._model_mapping[config.model_type] = mapping[type(config)].__name__
        return [mapping[type(config)] for mapping in mappings]


def llama() -> PreTrainedConfig:
    return LlamaConfig(num_hidden_layers=2, intermediate_size=37, **SHARED)


def grown() -> PreTrainedConfig:
    """Two stages: the first block is frozen."""
    return FrozenGlyphConfig(
        num_hidden_layers=2, num_frozen_layers=1, ladder=[1, 2], intermediate_size=37, substrate_bits=WIDTH, **SHARED
    )


def merged(rule: str, shared_layers: int = 0, adapters: list[dict | None] | None = None) -> PreTrainedConfig:
    """Two experts of one own block each."""
    own = {name: getattr(grown(), name) for name in FrozenGlyphMoEConfig.EXPERT_FIELDS} | {"num_hidden_layers": 1}
    experts = [own | ({"lora": lora} if lora else {}) for lora in adapters or [None, None]]
    weights = {} if RULES[rule].weights == "none" else {"expert_weights": [0.7, 0.3]}
    return FrozenGlyphMoEConfig(
        experts=experts, rule=rule, num_shared_layers=shared_layers, substrate_bits=WIDTH, **weights, **SHARED
    )


VARIANTS = {
    "llama": Variant(llama),
    "grown": Variant(grown),
    "trunk": Variant(lambda: merged("mean", shared_layers=1, adapters=[None, LORA]), blocks=4, experts=2),
    **{rule: Variant(lambda rule=rule: merged(rule), experts=2) for rule in RULES},
}

# Those on a substrate of ours, those of several experts, those whose rule is no sum of logits, and those whose experts
# count by the tokens read.
OURS = tuple(name for name in VARIANTS if name != "llama")
MERGED = ("trunk", *RULES)
APART = tuple(name for name, rule in RULES.items() if not rule.one_head)
READING = tuple(name for name, rule in RULES.items() if rule.reads_tokens)


def chosen() -> Variant:
    """The variant that the environment names: one process tests one."""
    return VARIANTS[os.environ[CHOICE]]


def draw_pictures(substrate: FrozenGlyphEmbedding) -> None:
    """Give each token its id, in binary, as its picture, repeated as far as the bits reach; the last one says 1."""
    ids = torch.arange(substrate.num_embeddings, device=substrate.packed_bits.device)
    shifts = torch.arange(substrate.packed_bits.shape[1] * 8, device=ids.device)
    bits = (ids[:, None] >> (shifts % 16)) & 1
    bits[:, -1] = 1  # no token is blank
    weights = 2 ** torch.arange(7, -1, -1, device=ids.device)
    substrate.center.zero_()
    substrate.packed_bits.copy_((bits.unflatten(1, (-1, 8)) * weights).sum(-1).to(torch.uint8))
