"""What passes through every block and Linear when a model reads examples and the loss's gradient flows back.

No gradient of any weight is computed, and what was frozen stays frozen: the gradient starts at the state that enters
the lowest block that is asked for.

Shapes: N examples, T tokens, D hidden size, I input features, O output features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

AT_ONCE = 8  # examples
BLOCK = "FrozenGlyphBlock"  # by name: in a model of remote code the class is another object


@dataclass
class LinearTrace:
    """Inputs [N, T, I] of a layer and the loss's gradients at its outputs [N, T, O], in pieces of examples."""

    layer: Any
    inputs: list[torch.Tensor] = field(default_factory=list)
    grads: list[torch.Tensor] = field(default_factory=list)


@dataclass
class BlockTrace:
    """A block's input states and outputs [N, T, D], its other arguments, and its Linears by name."""

    block: Any
    linears: dict[str, LinearTrace]
    states: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a single or merged model by name, lowest first."""
    return {name: module for name, module in model.named_modules() if type(module).__name__ == BLOCK}


def linears_of(block: nn.Module) -> dict[str, nn.Module]:
    """The layers of ``block`` that have a weight matrix, by name."""
    return {
        name: module
        for name, module in block.named_modules()
        if isinstance(weight := getattr(module, "weight", None), torch.Tensor) and weight.dim() == 2
    }


def capture(model: Any, ids_NT: torch.Tensor, names: Sequence[str]) -> tuple[dict[str, BlockTrace], float]:
    """Let ``model`` read ``ids_NT``: a trace of each block in ``names``, and the loss in nats per token.

    The gradients are those of the sum of the examples' losses, each the mean over its tokens.
    """
    blocks = blocks_of(model)
    traces = {
        name: BlockTrace(blocks[name], {key: LinearTrace(layer) for key, layer in linears_of(blocks[name]).items()})
        for name in names
    }
    loss_sum = 0.0
    with nothing_trains(model), hooks(traces), torch.enable_grad():
        for ids in ids_NT.split(AT_ONCE):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
            loss = loss / logits.shape[1]
            entries = [trace.states[-1] for trace in traces.values() if trace.states[-1].is_leaf]
            loss.backward(inputs=entries)
            loss_sum += loss.item()
            for trace in traces.values():
                trace.states[-1] = trace.states[-1].detach()
    return traces, loss_sum / len(ids_NT)


@contextmanager
def hooks(traces: dict[str, BlockTrace]) -> Iterator[None]:
    """Fill ``traces`` while the model runs."""
    handles = []
    for trace in traces.values():
        handles += [
            trace.block.register_forward_pre_hook(enter(trace), with_kwargs=True),
            trace.block.register_forward_hook(leave(trace)),
        ]
        handles += [linear.layer.register_forward_hook(pass_through(linear)) for linear in trace.linears.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def enter(trace: BlockTrace) -> Callable:
    """Before a block runs: keep its input, from which the gradient will be asked if nothing below asks for one."""

    def hook(block: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states = positional[0] if positional[0].requires_grad else positional[0].detach().requires_grad_()
        trace.states.append(states)
        trace.arguments = named
        return (states, *positional[1:]), named

    return hook


def leave(trace: BlockTrace) -> Callable:
    """After a block: keep its output."""
    return lambda block, positional, output: trace.outputs.append(output.detach())


def pass_through(trace: LinearTrace) -> Callable:
    """After a layer: keep its input, and the gradient at its output once it comes."""

    def hook(layer: nn.Module, positional: tuple[Any, ...], output: torch.Tensor) -> None:
        trace.inputs.append(positional[0].detach())
        output.register_hook(lambda grad: trace.grads.append(grad.detach()))

    return hook


@contextmanager
def nothing_trains(model: nn.Module) -> Iterator[None]:
    """No parameter requires gradients, and no dropout."""
    training, flags = model.training, {name: each.requires_grad for name, each in model.named_parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
