"""What the gradients of a layer's weights say: their effective rank, how much all examples agree, the size of a step.

The gradient of one example with respect to a Linear's weights is a sum of outer products, g_n = sum_t G_nt A_nt^T, of
what came in (A) and the gradient of what went out (G). Norms and inner products follow from A and G alone ("ghost
norms": Goodfellow, arXiv 1510.01799; for sequences Li et al., arXiv 2110.05679, section 4), so no g_n is ever made.
Other layers have their g_n made, one after the other.

Shapes: N examples, T tokens, I input features, O output features.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

SKETCH = 256  # a matrix whose smaller side is longer is projected on as many random orthonormal directions
Z_95 = 1.96


def effective_rank(matrix: torch.Tensor) -> float:
    """exp of the entropy of the singular values of ``matrix`` [O, I], taken as shares of their sum; 0 for zeros.

    Between 1 (one direction) and min(O, I) (all alike). Source: Roy and Vetterli 2007 (EUSIPCO), "The effective rank".
    Of a matrix whose smaller side exceeds ``SKETCH``, that of a projection of this side: at most ``SKETCH``.
    """
    matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
    if matrix.shape[0] > SKETCH:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(matrix.shape[0], SKETCH, generator=generator, dtype=torch.float64)
        matrix = torch.linalg.qr(directions).Q.T.to(matrix.device) @ matrix
    values = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0).sqrt()
    if not values.sum() > 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


class ExampleGradients(NamedTuple):
    """Of a weight matrix: the sum of the examples' gradients [O, I], their norms [N], their products with the sum."""

    total: torch.Tensor
    norms: torch.Tensor
    products: torch.Tensor


def example_gradients(layer: Any, inputs_NTI: torch.Tensor, grads_NTO: torch.Tensor) -> ExampleGradients:
    """The gradients of ``layer.weight`` from what went into the layer and the loss's gradients at what came out."""
    if not isinstance(layer, nn.Linear):
        each = torch.stack(list(made_gradients(layer, inputs_NTI, grads_NTO)))
        total = each.sum(0)
        return ExampleGradients(total, each.flatten(1).norm(dim=1).double(), (each * total).sum((1, 2)).double())
    inputs_NTI, grads_NTO = inputs_NTI.float(), grads_NTO.float()
    total = grads_NTO.flatten(0, 1).T @ inputs_NTI.flatten(0, 1)
    products_NTT = (inputs_NTI @ inputs_NTI.mT) * (grads_NTO @ grads_NTO.mT)
    squares = products_NTT.sum((1, 2), dtype=torch.float64).clamp(min=0)
    products = ((inputs_NTI @ total.T) * grads_NTO).sum((1, 2), dtype=torch.float64)
    return ExampleGradients(total, squares.sqrt(), products)


def made_gradients(layer: Any, inputs_NTI: torch.Tensor, grads_NTO: torch.Tensor) -> Iterator[torch.Tensor]:
    """The gradient [O, I] of each example in turn, by the layer's own backward pass."""
    rest = {name: tensor.detach() for name, tensor in layer.named_parameters()}
    weight = rest["weight"].clone().requires_grad_()
    for inputs, grads in zip(inputs_NTI, grads_NTO, strict=True):
        with torch.enable_grad():
            output = torch.func.functional_call(layer, rest | {"weight": weight}, (inputs,))
        yield torch.autograd.grad(output, weight, grads.to(output.dtype))[0].float()


class Constancy(NamedTuple):
    """How much of the gradient is the same for every example, with its 95% interval; 0: nothing, 1: all of it."""

    value: float
    low: float
    high: float


def constancy(gradients: ExampleGradients) -> Constancy:
    """Norm of the mean gradient over the mean norm, both of the examples' population, not of this sample.

    The squared norm of a sample's mean exceeds that of the population by the noise that N examples leave; the products
    of different examples estimate it without. So the number does not fall with N. The interval is the jackknife's
    (Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462) of the square, cut to 0..1. Needs 3 examples.
    """
    norms, products, count = gradients.norms, gradients.products, len(gradients.norms)
    squares = norms.square()
    between = products.sum() - squares.sum()  # sum over all pairs of different examples

    def ratio(between: torch.Tensor, norms: torch.Tensor, count: int) -> torch.Tensor:
        return between / (count * (count - 1)) / (norms / count).square().clamp(min=1e-300)

    value = float(ratio(between, norms.sum(), count))
    without = ratio(between - 2 * (products - squares), norms.sum() - norms, count - 1)
    error = math.sqrt((count - 1) / count * float((without - without.mean()).square().sum()))
    bounds = (value, value - Z_95 * error, value + Z_95 * error)
    return Constancy(*(math.sqrt(min(max(each, 0.0), 1.0)) for each in bounds))


def update_ratio(gradient: torch.Tensor, weight: torch.Tensor, learning_rate: float) -> float:
    """Norm of one AdamW step from rest (arXiv 1711.05101, without decay) over the norm of the weights; at most 1000."""
    step = gradient / (gradient.abs() + 1e-8)
    return min(1e3, float(learning_rate * step.norm() / weight.detach().float().norm().clamp(min=1e-30)))
