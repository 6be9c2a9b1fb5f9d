"""Single layers of every kind on random inputs: time of both passes, gradients, rank, and what holds exactly."""

import statistics
import time
from typing import Any

import torch

from eval.studies.additive.runs import Scale
from frozen_glyph.health.gradients import constancy, effective_rank, example_gradients
from frozen_glyph.health.mixing import probe
from frozen_glyph.model.configuration_frozen_glyph import LINEAR_KINDS
from frozen_glyph.model.linear_frozen_glyph import SAME_INPUT, additive_naive, fuse, initialise_linear, make_linear


def study_layers(scale: Scale) -> dict[str, Any]:
    """Facts of one layer of each kind on standard normal inputs."""
    generator = torch.Generator().manual_seed(0)
    width, tokens = scale.layer_features, scale.layer_tokens
    x = torch.randn(tokens, width, generator=generator)
    grads = torch.randn(tokens, 4 * width, generator=generator)
    kinds: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    for kind in LINEAR_KINDS:
        torch.manual_seed(0)
        layer: Any = make_linear(kind, width, 4 * width, bias=False)
        layer.apply(lambda module: initialise_linear(module, 0.02))
        layers[kind] = layer
        part = layer.up if kind == "low_rank" else layer
        inputs = (layer.down(x) if kind == "low_rank" else x).detach()
        few = slice(0, 64)
        of_output = example_gradients(part, inputs[few, None], torch.ones_like(grads[few, None]))
        of_loss = example_gradients(part, inputs[few, None], grads[few, None])
        with torch.no_grad():
            outputs = layer(x)
        kinds[kind] = {
            "constancy_of_output": constancy(of_output).value,
            "constancy_of_loss": constancy(of_loss).value,
            "gradient_rank": effective_rank(of_loss.total),
            "mixing_rank": probe(layer, x[0]).rank,
            "output_rank": effective_rank(outputs - outputs.mean(0)),
        }
    kinds |= {"additive, as defined": {}, "three of matmul": {}}

    class Naive(torch.nn.Module):
        weight = layers["additive"].weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([additive_naive(piece, self.weight) for piece in x.split(64)])

    layers["additive, as defined"] = Naive()
    layers["three of matmul"], layers["fused"] = (three_of(kind, width) for kind in ("matmul", "fused"))
    times = time_passes(layers, x, grads, scale.repeats)
    for kind, entry in kinds.items():
        rival = "three of matmul" if kind == "fused" else "matmul"  # fused layers are fused with their siblings
        for name in ("forward", "backward"):
            ratios = [mine / base for mine, base in zip(times[kind][name], times[rival][name], strict=True)]
            entry[f"{name}_ratio"] = min(times[kind][name]) / min(times[rival][name])  # the turns without other work
            entry[f"{name}_ratio_median"] = statistics.median(ratios)
            entry[f"{name}_seconds"] = min(times[kind][name])
    return {"kinds": kinds, "additive": additive_facts(layers["additive"], x, grads)}


def three_of(kind: str, width: int) -> torch.nn.Module:
    """Query, key and value projections of ``kind``, which read one input; their outputs side by side, and a fourth."""

    class Three(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = [self.get_submodule(name)(x) for name in SAME_INPUT]
            return torch.cat([*outputs, outputs[0]], dim=-1)

    layers = Three()
    for name in SAME_INPUT:
        layers.add_module(name, make_linear(kind, width, width, bias=False))
    fuse(layers)
    return layers


def time_passes(layers: dict[str, Any], x: torch.Tensor, grads: torch.Tensor, repeats: int) -> dict[str, Any]:
    """Seconds of the forward and the backward pass of every layer, in turns, after a first one that does not count."""
    times: dict[str, Any] = {kind: {"forward": [], "backward": []} for kind in layers}
    for turn in range(repeats + 1):
        for kind, layer in layers.items():
            inputs = x.clone().requires_grad_()
            begin = time.perf_counter()
            output = layer(inputs)
            middle = time.perf_counter()
            output.backward(grads)
            end = time.perf_counter()
            if turn:
                times[kind]["forward"].append(middle - begin)
                times[kind]["backward"].append(end - middle)
    return times


def additive_facts(layer: Any, x: torch.Tensor, grads: torch.Tensor) -> dict[str, float]:
    """What holds for the additive layer exactly, as largest deviations relative to the size of the numbers."""
    few = x[:64]
    with torch.no_grad():
        fast, naive = layer(few), additive_naive(few, layer.weight)
        units = layer(x) - layer.weight.sum(-1)  # what is left of an output without its constant
    weight = layer.weight.detach().clone().requires_grad_()
    (of_output,) = torch.autograd.grad(additive_naive(few[:1], weight)[0, 0], weight)
    (of_loss,) = torch.autograd.grad(additive_naive(few, weight), weight, grads[:64])
    norms = torch.nn.functional.layer_norm(x, x.shape[-1:])
    centred = layer(norms).detach()
    return {
        "fast_against_naive": float((fast - naive).abs().max() / naive.abs().max()),
        "units_differ_by": float((units - units[:, :1]).abs().max() / units.abs().max()),
        "gradient_of_output_at_its_weights": float(of_output[0].mean()),
        "gradient_of_output_at_other_weights": float(of_output[1:].abs().max()),
        "gradient_of_loss_mean": float(of_loss.mean()),
        "gradient_of_loss_std": float(of_loss.std()),
        "gradient_of_loss_differs_between_inputs": float((of_loss - of_loss[:, :1]).abs().max() / of_loss.abs().max()),
        "after_layer_norm_outputs_vary_by": float(centred.std(0).max() / x.sum(-1).std()),
    }
