"""What may stand in the place of a block's Linears: the additive layer, which must fail, AdderNet's, and remedies.

``config.linear_kinds`` says which, as pairs of a pattern of module names (``layers.*``, ``*.mlp.*``) and a kind; where
several patterns match, the last pair decides.

    matmul     ``nn.Linear``
    additive   y_j = sum_i (x_i + W_ji): every output is the sum of the inputs plus a constant of its own
    adder      y_j = -sum_i |x_i - W_ji|, normalised (AdderNet, arXiv 1912.13200)
    low_rank   two Linears through a quarter of the features
    compiled   ``nn.Linear`` through ``torch.compile``
    fused      ``nn.Linear``, but query, key and value in one product
    quantized  weights rounded to 8 bits in the forward pass; their gradients pass straight through (arXiv 1712.05877)

``matmul``, ``compiled`` and ``fused`` compute the same from the same tensors.

Shapes: N tokens, I input features, O output features, R rank.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from transformers import initialization as init

RANK_SHARE = 4  # a low-rank layer passes through 1 / 4 of the smaller number of features
ADDER_RATE = 0.2  # the paper's code: the gradient of an adder's weights has the norm 0.2 * sqrt(their number)
ADDER_ELEMENTS = 1 << 20  # of the differences [N, O, I] that exist at one time
SAME_INPUT = ("q_proj", "k_proj", "v_proj")


def additive_naive(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The additive layer as it is defined: x [..., I] and ``weight`` [O, I] -> [..., O], all sums [..., O, I] made."""
    return (x.unsqueeze(-2) + weight).sum(-1)


class AdditiveLinear(nn.Module):
    """The same in O(I + O) a token: the sum of the inputs, plus the row sums of the weights. No bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(-1, keepdim=True) + self.weight.sum(-1).to(x.dtype)

    def initialise(self, std: float) -> None:
        init.normal_(self.weight, mean=0.0, std=std)


class AdderDistance(torch.autograd.Function):
    """x [N, I], weight [O, I] -> -sum_i |x_i - W_ji| [N, O], with the paper's gradients in place of signs:
    x - W for the weights (equation 5), W - x cut to [-1, 1] for the inputs (equation 6)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return -torch.cdist(x, weight, p=1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            tokens = max(1, ADDER_ELEMENTS // weight.numel())
            pieces = zip(x.split(tokens), grad.split(tokens), strict=True)
            grad_x = torch.cat([
                torch.bmm(g.unsqueeze(1), (weight - piece.unsqueeze(1)).clamp_(-1, 1)).squeeze(1) for piece, g in pieces
            ])  # fmt: skip
        if ctx.needs_input_grad[1]:
            grad_weight = grad.T @ x - grad.sum(0).unsqueeze(1) * weight
        return grad_x, grad_weight


class AdaptiveRate(torch.autograd.Function):
    """The weights as they are; their gradient scaled to a norm that depends on their number alone (equation 9)."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * (ADDER_RATE * math.sqrt(grad.numel()) / grad.norm().clamp(min=1e-12))


class AdderLinear(nn.Module):
    """Negative L1 distance between input and weights, normalised over the outputs.

    The paper normalises over a batch; a language model normalises each token, as everywhere else in the block. In
    training the weights have the paper's adaptive learning rate.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", None)
        self.norm = nn.LayerNorm(out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = AdaptiveRate.apply(self.weight) if self.training else self.weight
        with torch.autocast(x.device.type, enabled=False):
            distance = AdderDistance.apply(x.reshape(-1, self.in_features).float(), weight.float())
        return self.norm(distance.to(x.dtype)).reshape(*x.shape[:-1], self.out_features)

    def initialise(self, std: float) -> None:
        """Weights of the inputs' scale, as in the paper; outputs of the scale that a Linear of ``std`` has."""
        init.normal_(self.weight, mean=0.0, std=1.0)
        init.constant_(self.norm.weight, std * math.sqrt(self.in_features))
        init.zeros_(self.norm.bias)


class Factor(nn.Linear):
    """One of the two matrices whose product stands for a weight matrix."""

    def initialise(self, std: float) -> None:
        """Such values in both that their product has entries of ``std``."""
        rank = min(self.in_features, self.out_features)
        init.normal_(self.weight, mean=0.0, std=math.sqrt(std / math.sqrt(rank)))


class LowRankLinear(nn.Module):
    """x [..., I] -> ``up(down(x))`` [..., O] through R = min(I, O) / 4 features."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        rank = max(1, min(in_features, out_features) // RANK_SHARE)
        self.down = Factor(in_features, rank, bias=False)
        self.up = Factor(rank, out_features, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))


@functools.cache
def compiled_linear() -> Callable:
    return torch.compile(nn.functional.linear, dynamic=True)


class CompiledLinear(nn.Linear):
    """``nn.Linear`` through ``torch.compile``, which needs a C++ compiler at its first call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return compiled_linear()(x, self.weight, self.bias)


class FusedLinear(nn.Linear):
    """``nn.Linear``; the first of a ``group`` that reads one input computes the outputs of all, in one product."""

    group: tuple["FusedLinear", ...] = ()
    ready: tuple[torch.Tensor, torch.Tensor] | None = None  # input, and the output that the first computed for it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.group and self is self.group[0]:
            weight = torch.cat([member.weight for member in self.group])
            outputs = nn.functional.linear(x, weight).split([member.out_features for member in self.group], dim=-1)
            for member, output in zip(self.group[1:], outputs[1:], strict=True):
                member.ready = (x, output)
            return outputs[0]
        ready, self.ready = self.ready, None
        return ready[1] if ready is not None and ready[0] is x else super().forward(x)


class QuantizedLinear(nn.Linear):
    """``nn.Linear`` whose weights are rounded to 8 bits, one scale an output; stored and trained in full precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, round_straight_through(self.weight), self.bias)


def round_straight_through(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` [O, I] at the nearest of 255 levels of its row; the gradient takes it for the identity."""
    with torch.no_grad():
        scale = weight.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127
        error = (weight / scale).round() * scale - weight
    return weight + error


LINEAR_CLASSES: dict[str, type[nn.Module]] = {
    "matmul": nn.Linear,
    "additive": AdditiveLinear,
    "adder": AdderLinear,
    "low_rank": LowRankLinear,
    "compiled": CompiledLinear,
    "fused": FusedLinear,
    "quantized": QuantizedLinear,
}
WITHOUT_BIAS = ("additive", "adder")  # nothing else may help the one; the other's norm has a bias


def make_linear(kind: str, in_features: int, out_features: int, bias: bool) -> nn.Module:
    """A layer of ``kind`` between as many features; ``bias`` where the kind has one."""
    options: dict[str, Any] = {} if kind in WITHOUT_BIAS else {"bias": bias}
    return LINEAR_CLASSES[kind](in_features, out_features, **options)


def kind_of(name: str, linear_kinds: Sequence[Sequence[str]] | None) -> str:
    """The kind of the Linear ``name``: that of the last pattern that matches."""
    return next((kind for pattern, kind in reversed(linear_kinds or []) if fnmatchcase(name, pattern)), "matmul")


def apply_linear_kinds(model: nn.Module, linear_kinds: Sequence[Sequence[str]]) -> None:
    """Put layers of the kinds that ``linear_kinds`` says, without values yet, in the place of ``model``'s Linears."""
    linears = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, old in linears:
        kind = kind_of(name, linear_kinds)
        if kind != "matmul":
            model.set_submodule(name, make_linear(kind, old.in_features, old.out_features, old.bias is not None))
    fuse(model)


def fuse(model: nn.Module) -> None:
    """Tell each fused layer of ``model`` which siblings read its input; the others stay on their own."""
    for parent in model.modules():
        group = tuple(child for name in SAME_INPUT if isinstance(child := getattr(parent, name, None), FusedLinear))
        for member in group:
            member.group = group if len(group) > 1 else ()


def initialise_linear(module: nn.Module, std: float) -> None:
    """Initial values of a layer whose outputs shall have the scale of a Linear with weights of ``std``."""
    if isinstance(module, AdditiveLinear | AdderLinear | Factor):
        module.initialise(std)


@torch.no_grad()
def silence(layer: Any) -> None:
    """Let ``layer`` put out zeros, from which it can be trained; ``ValueError`` for an additive one, which cannot."""
    if isinstance(layer, AdditiveLinear):
        raise ValueError(
            "an additive layer always puts out the sum of its inputs, so its block cannot start as the identity; "
            "grow it with init 'random' or 'copy'"
        )
    last = {AdderLinear: "norm", LowRankLinear: "up"}.get(type(layer))
    for parameter in (getattr(layer, last) if last else layer).parameters():
        parameter.zero_()


__all__ = [
    "LINEAR_CLASSES",
    "additive_naive",
    "apply_linear_kinds",
    "fuse",
    "initialise_linear",
    "kind_of",
    "make_linear",
    "silence",
]
