"""Output heads, of one model and of experts side by side; on a CPU most of the work of a large vocabulary.

torch's float32 ``linear`` fills the logits with the bias and has MKL add the product; oneDNN, which torch holds too,
adds the bias on the way. eval/bench/head.py measures both.

Shapes: N experts, D hidden size, V vocabulary, R states and T tokens of the vocabulary at one time.
"""

import functools
import math
from collections.abc import Iterator, Sequence
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

Blocks = Sequence[tuple[torch.Tensor, torch.Tensor]]


def head_linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Logits [..., V] of ``states`` [..., D] by ``weight`` [V, D] and ``bias`` [V]; from oneDNN where it serves."""
    if onednn_serves(states, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(states.contiguous(), weight, bias, "none", [], "")
    return nn.functional.linear(states, weight, bias)


def onednn_serves(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Whether these are many states and plain float32 tensors on a CPU that neither autograd nor a tracer follows."""
    return bool(
        HAS_BOTH
        and torch.backends.mkldnn.enabled
        and weight.is_contiguous()  # else it takes seconds
        and states.shape[:-1].numel() >= LEAST_STATES
        and is_plain(states, weight, bias)
        and states.dtype == torch.float32
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
    log_sums = rounded_log_sums if is_rounded(states, weight, bias) else plain_log_sums
    parts = states.flatten(0, -2).split(BLOCK_STATES)
    sums = [functools.reduce(torch.logaddexp, log_sums(own_RD, blocks)) for own_RD in parts]
    return torch.cat(sums).view(states.shape[:-1])


def plain_log_sums(states_RD: torch.Tensor, blocks: Blocks) -> list[torch.Tensor]:
    """``logsumexp`` [R] of the logits in each of ``blocks``, weights [T, D] and biases [T]."""
    return [nn.functional.linear(states_RD, *block).float().logsumexp(-1) for block in blocks]


def rounded_log_sums(states_RD: torch.Tensor, blocks: Blocks) -> Iterator[torch.Tensor]:
    """The same through two pieces of memory that stay in a processor's cache; products alone are rounded.

    torch's float32 powers of 2 take a third of the time of its exponentials.
    """
    size = len(states_RD) * len(blocks[0][0])
    product, logits = states_RD.new_empty(size), states_RD.new_empty(size, dtype=torch.float32)
    for weight_TD, bias_T in blocks:
        product_RT, logits_RT = (
            memory[: len(states_RD) * len(bias_T)].view(len(states_RD), -1) for memory in (product, logits)
        )
        torch.mm(states_RD, weight_TD.T, out=product_RT)
        logits_RT.copy_(product_RT).add_(bias_T.float())
        largest_R1 = logits_RT.amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).min)  # all may be -inf
        powers_RT = logits_RT.sub_(largest_R1).mul_(math.log2(math.e)).exp2_()
        yield powers_RT.sum(-1).log_().add_(largest_R1.squeeze(-1))


def is_rounded(*tensors: torch.Tensor) -> bool:
    """Whether all are plain tensors of one type of two bytes on a CPU that neither autograd nor a tracer follows."""
    return is_plain(*tensors) and tensors[0].dtype in (torch.bfloat16, torch.float16)


def is_plain(*tensors: torch.Tensor) -> bool:
    """Whether all are plain tensors of one type on a CPU that neither autograd nor a tracer follows."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or traced) and all(
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == tensors[0].dtype
        for tensor in tensors
    )


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
