"""The health of every block of a model and of every Linear in it, from a few examples.

Metrics, with their sources: ``gradients.py``, ``mixing.py``; the plain ones are here. ``METRICS`` says of each what it
means, its unit, and where a layer stops being healthy.
The numbers do not depend on the order of the examples, nor on how they are divided into batches.

Shapes: N examples, T tokens, D hidden size, I input features.
"""

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.health.capture import BlockTrace, LinearTrace, blocks_of, capture, linears_of
from frozen_glyph.health.gradients import constancy, effective_rank, example_gradients, update_ratio
from frozen_glyph.health.mixing import Mixing, probe, probe_block

PROBED_EXAMPLES = 2
PROBED_TOKENS = 32
DEAD = 1e-4  # a unit is dead if it varies by less than this share of what the layer's liveliest unit varies by
LEAST_EXAMPLES = 3


@dataclass(frozen=True)
class Metric:
    """``low`` and ``high``: values beyond them are flagged. ``complaint`` says what that means."""

    title: str
    unit: str
    complaint: str
    low: float = float("-inf")
    high: float = float("inf")

    def flags(self, value: float | None) -> bool:
        return value is not None and not self.low <= value <= self.high


# The first three are of a block, ``mixing_rank`` of blocks and Linears, the rest of Linears.
METRICS = {
    "move": Metric("move", "of the state's norm", "adds next to nothing to the residual stream", low=1e-3),
    "off_diagonal": Metric("off-diag", "share", "does not mix features", low=0.5),
    "distance": Metric("distance", "of the weights' norm", "is a copy of another block", low=0.05),
    "mixing_rank": Metric("mixing", "directions", "follows one direction of its input", low=1.1),
    "gradient_rank": Metric("grad rank", "directions", "its gradient has one direction", low=1.1),
    "constancy": Metric("constancy", "share", "its gradient does not depend on the input", high=0.999),
    "update_ratio": Metric("update", "of the weights' norm", "its weights do not move, or do not last", 1e-5, 1.0),
    "dead_inputs": Metric("dead", "share", "most of the units that it reads never change", high=0.5),
}


def flags(values: dict[str, float | None]) -> list[str]:
    """Sentences that say which of ``values`` are beyond their thresholds."""
    return [
        f"{metric.complaint} ({metric.title} {values[key]:.3g})"
        for key, metric in METRICS.items()
        if key in values and metric.flags(values[key])
    ]


class BlockHealth(TypedDict):
    """Metrics of a block and, by name, of its Linears; ``flags`` are sentences that say what is wrong."""

    name: str
    metrics: dict[str, float | None]
    linears: dict[str, dict[str, float | None]]
    flags: list[str]


class HealthReport(TypedDict):
    """``examples`` of so many ``tokens``, their loss in nats per token; ``collapsed``: names of the flagged blocks."""

    examples: int
    tokens: int
    loss: float
    collapsed: list[str]
    blocks: list[BlockHealth]
    seconds: NotRequired[float]


def model_health(
    model: Any, batches: Iterable[torch.Tensor], blocks: Sequence[str] | None = None, learning_rate: float = 1e-3
) -> HealthReport:
    """Measure a single or merged model on ``batches`` of token ids, each [B, T]; it is left as it was.

    ``blocks`` names the blocks to look at (see ``blocks_of``); default: all. ``learning_rate`` is for
    ``update_ratio``.

    Raises:
        FrozenGlyphError: fewer than 3 examples, examples of different length, or an unknown block.
    """
    begin = time.perf_counter()
    ids_NT = examples(batches).to(model.device)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        model = copy.deepcopy(model).float()
    if not (names := list(blocks_of(model))):
        raise FrozenGlyphError(
            f"{type(model).__name__} has none of the blocks that health knows; name a grown or merged model"
        )
    if unknown := set(blocks or []) - set(names):
        raise FrozenGlyphError(f"blocks={sorted(unknown)} do not exist; this model has {', '.join(names)}")
    names = [name for name in names if blocks is None or name in blocks]
    traces, loss = capture(model, ids_NT, names)
    distances = nearest_distances(blocks_of(model), names)
    found = [block_report(name, traces.pop(name), distances[name], learning_rate) for name in names]
    return {
        "examples": ids_NT.shape[0],
        "tokens": ids_NT.shape[1],
        "loss": loss,
        "collapsed": [entry["name"] for entry in found if entry["flags"]],
        "blocks": found,
        "seconds": time.perf_counter() - begin,
    }


def examples(batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """All rows of ``batches`` in one order, whatever theirs was."""
    batches = list(batches)
    lengths = sorted({batch.shape[-1] for batch in batches})
    count = sum(len(batch) for batch in batches)
    if count < LEAST_EXAMPLES or len(lengths) != 1 or lengths[0] < 2 or any(batch.dim() != 2 for batch in batches):
        raise FrozenGlyphError(
            f"{count} examples of length {lengths}: give batches [B, T] of token ids with one T of at least 2 and "
            f"{LEAST_EXAMPLES} examples or more"
        )
    return torch.tensor(sorted(row for batch in batches for row in batch.tolist()))


def block_report(name: str, trace: BlockTrace, distance: float | None, learning_rate: float) -> BlockHealth:
    """Metrics and flags of one block."""
    states, outputs = torch.cat(trace.states), torch.cat(trace.outputs)
    mixing = mean_mixing([
        probe_block(trace.block, row[:PROBED_TOKENS], first_tokens(trace.arguments, min(PROBED_TOKENS, len(row))))
        for row in spread(states)
    ])  # fmt: skip
    metrics: dict[str, float | None] = {
        "move": float(((outputs - states).norm(dim=-1) / states.norm(dim=-1).clamp(min=1e-30)).mean()),
        "mixing_rank": mixing.rank,
        "off_diagonal": mixing.off_diagonal,
        "distance": distance,
    }
    linears = {key: linear_report(linear, learning_rate) for key, linear in trace.linears.items()}
    found = flags(metrics)
    for linear, values in linears.items():
        found += [f"{linear}: {flag}" for flag in flags(values)]
    return {"name": name, "metrics": metrics, "linears": linears, "flags": found}


def linear_report(trace: LinearTrace, learning_rate: float) -> dict[str, float | None]:
    """Metrics of one Linear."""
    inputs, grads = torch.cat(trace.inputs), torch.cat(trace.grads)
    gradients = example_gradients(trace.layer, inputs, grads)
    gradient = gradients.total / len(inputs)
    common = constancy(gradients)
    mixing = mean_mixing([probe(trace.layer, row[-1]) for row in spread(inputs)])
    return {
        "gradient_rank": effective_rank(gradient),
        "constancy": common.value,
        "constancy_low": common.low,
        "constancy_high": common.high,
        "mixing_rank": mixing.rank,
        "update_ratio": update_ratio(gradient, trace.layer.weight, learning_rate),
        "dead_inputs": dead_share(inputs),
    }


def spread(rows: torch.Tensor) -> torch.Tensor:
    """A few of ``rows`` [N, ...], evenly spread."""
    return rows[:: max(1, len(rows) // PROBED_EXAMPLES)][:PROBED_EXAMPLES]


def mean_mixing(found: list[Mixing]) -> Mixing:
    shares = [entry.off_diagonal for entry in found if entry.off_diagonal is not None]
    return Mixing(sum(entry.rank for entry in found) / len(found), sum(shares) / len(shares) if shares else None)


def first_tokens(arguments: dict[str, Any], length: int) -> dict[str, Any]:
    """A block's arguments for the first ``length`` tokens of one sequence, without a cache."""
    cos, sin = (part[:1, :length] for part in arguments["position_embeddings"])
    mask = arguments["attention_mask"]
    rest = {key: value for key, value in arguments.items() if key not in ("cache", "past_key_values", "use_cache")}
    return rest | {
        "position_embeddings": (cos, sin),
        "attention_mask": mask[:1, ..., :length, :length] if isinstance(mask, torch.Tensor) else None,
        "position_ids": arguments["position_ids"][:1, :length],
    }


def dead_share(inputs_NTI: torch.Tensor) -> float:
    """Share of the input features that stay the same over all tokens."""
    varies = inputs_NTI.flatten(0, 1).float().std(0)
    return float((varies <= DEAD * varies.max()).double().mean())


def nearest_distances(blocks: dict[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """For each of ``names`` the distance of its weights from those of the nearest block before it, over their norm.

    0 for a copy, about 1.4 for independent weights; None where no block before it has the same layers.
    """
    weights = {
        name: {key: layer.get_parameter("weight").detach() for key, layer in linears_of(block).items()}
        for name, block in blocks.items()
    }
    order, found = list(blocks), {}
    for name in names:
        own = weights[name]
        norm = sum(float(weight.square().sum()) for weight in own.values()) ** 0.5
        distances = [
            sum(float((weight - other[key]).square().sum()) for key, weight in own.items()) ** 0.5
            for other in (weights[before] for before in order[: order.index(name)])
            if {key: each.shape for key, each in other.items()} == {key: each.shape for key, each in own.items()}
        ]
        found[name] = min(distances) / max(norm, 1e-30) if distances else None
    return found
