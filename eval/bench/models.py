"""Models of no training that benchmarks measure: on random substrate bits, and transformers' of the same shape."""

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.substrate.codes import random_code


def build_model(arguments: argparse.Namespace, layers: int, frozen: int = 0) -> FrozenGlyphForCausalLM:
    """A model of ``layers`` blocks of which the first ``frozen`` do not train; ``arguments`` say its shape."""
    torch.manual_seed(0)
    config = FrozenGlyphConfig(
        vocab_size=arguments.vocab,
        hidden_size=arguments.width,
        substrate_bits=arguments.width,
        num_hidden_layers=layers,
        num_frozen_layers=frozen,
        num_attention_heads=arguments.heads or arguments.width // 32,
        max_position_embeddings=arguments.context,
        use_cache=False,  # as transformers' Trainer sets it
    )
    model = FrozenGlyphForCausalLM(config)
    fill_substrate(model)
    return model.to(arguments.device).train()


def fill_substrate(model: FrozenGlyphForCausalLM) -> None:
    """Random bits for every token."""
    embedding = model.get_input_embeddings()
    bits = random_code(embedding.num_embeddings, model.config.substrate_bits, seed=0)
    embedding.packed_bits.copy_(torch.from_numpy(bits))
    embedding.center.fill_(8)


def llama_config(arguments: argparse.Namespace, layers: int, tied: bool = True) -> LlamaConfig:
    """Llama's gated MLP has three matrices, so it is 8/3 instead of 4 wide."""
    return LlamaConfig(
        vocab_size=arguments.vocab,
        hidden_size=arguments.width,
        intermediate_size=round(8 / 3 * arguments.width / 8) * 8,
        num_hidden_layers=layers,
        num_attention_heads=arguments.heads or arguments.width // 32,
        max_position_embeddings=arguments.context,
        tie_word_embeddings=tied,
    )


def build_llama(arguments: argparse.Namespace, layers: int, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config(arguments, layers, tied))
