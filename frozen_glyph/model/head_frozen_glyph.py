"""The output head's product, on a CPU most of the work of a large vocabulary over small hidden states.

torch's float32 ``linear`` fills the logits with the bias and has MKL add the product; oneDNN, which torch holds too,
adds the bias on the way. eval/bench/head.py measures both.

Shapes: D hidden size, V vocabulary.
"""

import torch
from torch import nn

HAS_BOTH = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # no public name: this file meets the torch of its users
)
# Fewer, as in generation, stay with linear: oneDNN cannot take the columns of one expert in a merged model's head, and
# the rules that need each expert's logits are to keep pace with the experts.
LEAST_STATES = 64


def head_linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Logits [..., V] of ``states`` [..., D] by ``weight`` [V, D] and ``bias`` [V]; from oneDNN where it serves."""
    if onednn_serves(states, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(states.contiguous(), weight, bias, "none", [], "")
    return nn.functional.linear(states, weight, bias)


def onednn_serves(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Whether these are many states and plain float32 tensors on a CPU that neither autograd nor a tracer follows."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return bool(
        HAS_BOTH
        and torch.backends.mkldnn.enabled
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or traced)
        and weight.is_contiguous()  # else it takes seconds
        and states.shape[:-1].numel() >= LEAST_STATES
        and all(
            type(tensor) in (torch.Tensor, nn.Parameter)
            and tensor.device.type == "cpu"
            and tensor.dtype == torch.float32
            for tensor in (states, weight, bias)
        )
    )


class OutputHead(nn.Linear):
    """``nn.Linear`` that makes logits by ``head_linear``."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return head_linear(states, self.weight, self.bias)
