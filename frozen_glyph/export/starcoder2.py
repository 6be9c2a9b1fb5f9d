"""A grown model as a StarCoder2, a class of transformers' own that vLLM, llama.cpp and others know: the same logits.

In both a block is LayerNorm, rotary attention (pairs half a head apart), LayerNorm and two Linears around an activation
(arXiv 2402.19173). StarCoder2's attention has biases too, which are zero here, and its head has none: see
``head_without_bias``.

Shapes: D hidden size, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch

from frozen_glyph.checkpoint.config import GROWN
from frozen_glyph.checkpoint.files import CheckpointError

NAMES = {"mlp.fc_in.": "mlp.c_fc.", "mlp.fc_out.": "mlp.c_proj."}
SAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rope_parameters",
    "attention_dropout",
    "tie_word_embeddings",
)


def check_starcoder2(folder: Path, config: dict[str, Any]) -> None:
    """Raise ``CheckpointError`` where the model in ``folder``, with this ``config.json``, cannot be a StarCoder2."""
    if config["model_type"] != GROWN:
        raise CheckpointError(
            f"{str(folder)!r} holds {len(config.get('experts', []))} merged experts, each with LayerNorms of its own, "
            "which StarCoder2 has not; export the experts one by one"
        )
    if config.get("linear_kinds"):
        raise CheckpointError(
            f"{str(folder)!r} has linear_kinds={config['linear_kinds']}; StarCoder2 has Linears alone, so it must stay "
            "what it is"
        )


def to_starcoder2(model: Any) -> Any:
    """The ``Starcoder2ForCausalLM`` that computes what ``model``, a ``FrozenGlyphForCausalLM``, does.

    Logits differ by rounding alone: final norm and head are written anew. Nothing of it is frozen.
    """
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    config = model.config
    stock = Starcoder2Config(
        **{name: getattr(config, name) for name in SAME_FIELDS},
        num_key_value_heads=config.num_attention_heads,
        norm_epsilon=config.layer_norm_eps,
        use_bias=True,
        sliding_window=None,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        dtype=model.dtype,
    )
    return Starcoder2ForCausalLM.from_pretrained(
        None, config=stock, state_dict=stock_tensors(model), dtype=model.dtype
    ).eval()


@torch.no_grad()
def stock_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of ``model`` under StarCoder2's names, with its substrate as a table."""
    tensors = {"model.embed_tokens.weight": model.substrate.weight.to(model.dtype)}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.layers."):
            for ours, theirs in NAMES.items():
                name = name.replace(ours, theirs)
            tensors[name] = tensor
            if ".self_attn." in name:
                tensors[name.removesuffix("weight") + "bias"] = tensor.new_zeros(len(tensor))
    norm, head = model.model.norm, model.lm_head
    ones = torch.ones_like(norm.weight)
    tensors |= {"model.norm.weight": ones, "model.norm.bias": ones.clone()}
    return tensors | {"lm_head.weight": head_without_bias(norm, head).to(head.weight.dtype)}


def head_without_bias(norm: Any, head: Any) -> torch.Tensor:
    """Weight [V, D], float64, that makes of a LayerNorm with weights and biases of one what ``norm`` and ``head`` make.

    What a LayerNorm scales, n, has a mean of zero, so that a number c added to a whole row of the head changes nothing,
    until one is added to n. With weights g and biases b of the norm, weights W and biases h of the head, for each row
    (W g) n + W b + h = (W g + c) (n + 1), where c = (W b + h - W g 1) / D.
    """
    weight_VD, gain_D = head.weight.double(), norm.weight.double()
    scaled_VD = weight_VD * gain_D
    missing_V1 = weight_VD @ norm.bias.double().unsqueeze(-1) - scaled_VD.sum(-1, keepdim=True)
    if head.bias is not None:
        missing_V1 += head.bias.double().unsqueeze(-1)
    return scaled_VD + missing_V1 / scaled_VD.shape[1]
