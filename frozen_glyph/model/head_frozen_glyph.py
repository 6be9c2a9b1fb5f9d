"""Output heads, of one model and of experts side by side; on a CPU most of the work of a large vocabulary.

torch's float32 ``linear`` fills the logits with the bias and has MKL add the product; oneDNN, which torch holds too,
adds the bias on the way. eval/bench/head.py measures both.

Shapes: N experts, D hidden size, V vocabulary.
"""

from typing import Any

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


class ExpertHead(nn.Linear):
    """One output head for all experts: ``weight`` [V, N * D] holds their heads side by side, ``bias`` [N, V]."""

    def __init__(self, num_experts: int, hidden_size: int, vocab_size: int) -> None:
        super().__init__(num_experts * hidden_size, vocab_size, bias=False)
        self.num_experts = num_experts
        self.bias = nn.Parameter(torch.zeros(num_experts, vocab_size))

    def joint_bias(self, expert_weights: torch.Tensor) -> torch.Tensor:
        """The bias [V] of all experts together."""
        return expert_weights.to(self.bias.dtype) @ self.bias

    def forward(
        self,
        hidden_states: torch.Tensor,
        expert_weights: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> Any:
        """From states [..., N * D] make, all in this one method, which is where offloaded weights are at hand:

        with ``expert_weights`` [N], by which the states were already scaled: logits [..., V];
        with ``tokens`` [...]: the logits of these tokens alone, float32, under each expert [..., N];
        with neither: the logits of each expert, N of [..., V].
        """
        if expert_weights is not None:
            return head_linear(hidden_states, self.weight, self.joint_bias(expert_weights))
        if tokens is not None:
            products = hidden_states.float() * self.weight[tokens].float()
            return products.unflatten(-1, (self.num_experts, -1)).sum(-1) + self.bias.T[tokens].float()
        parts = hidden_states.chunk(self.num_experts, -1), self.weight.chunk(self.num_experts, 1), self.bias
        return [nn.functional.linear(states, weight, bias) for states, weight, bias in zip(*parts, strict=True)]
