"""Output heads, of one model and of experts side by side; on a CPU most of the work of a large vocabulary.

torch's float32 ``linear`` fills the logits with the bias and has MKL add the product; oneDNN, which torch holds too,
adds the bias on the way. eval/bench/head.py measures both.

Shapes: N experts, D hidden size, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .rules_frozen_glyph import RULES, rules_with

HAS_BOTH = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # no public name: this file meets the torch of its users
)
# Fewer, as in generation, stay with linear: oneDNN cannot take the columns of one expert in a merged model's head, and
# the rules that need each expert's logits are to keep pace with the experts.
LEAST_STATES = 64
BLOCK_STATES, BLOCK_TOKENS = 256, 2048  # states and tokens of the vocabulary whose logits exist at one time


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


def on_device(numbers: Sequence[float], device: torch.device) -> torch.Tensor:
    """A tensor [N] that is made where it is needed: a copy from the host would wait for the device at every step."""
    return torch.stack([torch.full((), float(number), device=device) for number in numbers])


def log_sum(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``logsumexp`` [...] over the logits of ``states`` [..., D], float32, of which only a block exists at a time."""
    blocks = list(zip(weight.split(BLOCK_TOKENS), bias.split(BLOCK_TOKENS), strict=True))
    sums = []
    for own in states.flatten(0, -2).split(BLOCK_STATES):
        parts = [nn.functional.linear(own, *block).float().logsumexp(-1) for block in blocks]
        sums.append(functools.reduce(torch.logaddexp, parts))
    return torch.cat(sums).view(states.shape[:-1])


class ExpertHead(nn.Module):
    """The output heads of all experts: ``weight`` [V, N * D] holds them side by side, ``biases`` [N, V] in rows.

    It reads the rule and the experts' weights from ``config``. Under a rule that is no sum of logits it is no
    ``nn.Linear`` and has no ``bias``: libraries that multiply states by a head's weight would compute another model.
    """

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.config, self.num_experts = config, len(config.experts)
        self.in_features, self.out_features = self.num_experts * config.hidden_size, config.vocab_size
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features))
        self.biases = nn.Parameter(torch.zeros(self.num_experts, self.out_features))

    @property
    def bias(self) -> torch.Tensor:
        """The bias [V] of all experts together; an ``AttributeError`` under a rule that is no sum of their logits."""
        if not RULES[self.config.rule].one_head:
            raise AttributeError("bias")  # python asks __getattr__ then
        return on_device(self.config.logit_weights, self.biases.device).to(self.biases.dtype) @ self.biases

    def __getattr__(self, name: str) -> Any:
        if name == "bias":
            raise AttributeError(
                f"rule={self.config.rule!r} combines each expert's own logits, so that no weight and bias of lm_head "
                "make the loss: call the model with labels, as transformers' Trainer does (trl: subclass its trainer "
                "with compute_loss = transformers.Trainer.compute_loss), or use "
                f"rule={' or '.join(map(repr, rules_with(one_head=True)))}"
            )
        return super().__getattr__(name)

    def forward(
        self,
        states: torch.Tensor,
        tokens: torch.Tensor | None = None,
        apart: bool = False,
        normalisers: bool = False,
        experts: list[int] | None = None,
    ) -> Any:
        """From states [..., N * D] make, all in this one method, which is where offloaded weights are at hand:

        the logits [..., V] of all experts together, by whose weights the states were scaled already;
        with ``tokens`` [...]: the logits of these tokens alone, float32, under each expert [..., N];
        ``apart``: the logits of each expert, N of [..., V]; with ``experts`` of these alone, as the states are;
        ``normalisers``: the logarithms of the sums of their exponentials, float32 [..., N], without whole logits.
        """
        if tokens is not None:
            products = states.float() * self.weight[tokens].float()
            return products.unflatten(-1, (self.num_experts, -1)).sum(-1) + self.biases.T[tokens].float()
        if not (apart or normalisers):
            return head_linear(states, self.weight, self.bias)
        experts = list(range(self.num_experts)) if experts is None else experts
        own, weights = states.chunk(len(experts), -1), self.weight.chunk(self.num_experts, 1)
        parts = [(own[place], weights[expert], self.biases[expert]) for place, expert in enumerate(experts)]
        if normalisers:
            return torch.stack([log_sum(*part) for part in parts], -1)
        return [nn.functional.linear(*part) for part in parts]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Files call the biases what a Linear calls its bias."""
        if prefix + "bias" in state_dict:
            state_dict[prefix + "biases"] = state_dict.pop(prefix + "bias")
        super()._load_from_state_dict(state_dict, prefix, *args)


class JointHead(ExpertHead, nn.Linear):  # type: ignore[misc]  # the bias is computed
    """That head under a rule that sums the experts' logits: an ``nn.Linear`` over their states side by side."""


def head_of_experts(config: Any) -> ExpertHead:
    """The head for the rule in ``config``."""
    return JointHead(config) if RULES[config.rule].one_head else ExpertHead(config)
