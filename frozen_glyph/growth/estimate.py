"""What a growth recipe costs, before any weight exists: parameters, steps, tokens, FLOPs and memory of every phase.

Command: ``frozen-glyph grow RECIPE --dry-run``

FLOPs of a token (a multiply-add is 2; the factors are those of arXiv 2001.08361, section 2.1). A Linear of P weights:
2P forward, 2P for the gradient of its weights where they train, 2P for the gradient of its input where something below
trains. Attention over T tokens: causal, so T/2 keys on average: 2TD forward and twice that where gradients pass. So the
frozen prefix costs 2P, what trains 6P, and in a LoRA phase, where gradients cross every frozen block, 4P and 6 a weight
of the adapters. The substrate's lookup, norms, activation functions and softmax are left out; a prefix cache, which
spares the prefix when windows are read again, is not counted on. Blocks that take turns are counted with their mean.

Memory of one device that holds everything, ``micro_batch_size`` sequences at a time: float32 weights, gradients and two
Adam moments of what trains; what blocks that gradients pass through keep for the backward pass (attention keeps no
scores); gradients of one block while it is walked back; and a chunk of logits, not all of them. With bfloat16 the
products are kept in 2 bytes, and weights of blocks that gradients pass through have a 2-byte copy. Overhead of library
and framework (hundreds of MB on CUDA) comes on top.

Shapes: D hidden size, F intermediate size, T context length, V vocabulary.
"""

from collections.abc import Sequence
from math import comb
from typing import Any, TypedDict

from frozen_glyph.checkpoint.config import DEFAULTS
from frozen_glyph.checkpoint.contract import CONFIG_FILE
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.growth.model_fields import config_fields
from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe, StageRecipe
from frozen_glyph.growth.shape import ModelShape, Trained, shape_of_fields
from frozen_glyph.substrate.choices import VOCABULARIES, choose_bits
from frozen_glyph.training.optimizers import optimizer_bytes
from frozen_glyph.training.precision import MATERIALIZE_BYTES, uses_bf16
from frozen_glyph.training.recipe import TrainingRecipe

# Of the loss, its logits and the rows of them at work; its file, which imports torch, says both too; a test compares.
CHUNK_BYTES, ROW_BYTES = 32 << 20, 2 << 20
SHAPE_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "linear_kinds"),
    *("substrate_bits", "substrate_rotated", "substrate_whitened", "substrate_trainable"),
)
FROZEN_BYTES = {"none": 4.0, "int8": 1.0, "int4": 0.5, "nf4": 0.5}  # of a weight, without the scales


class PhaseCosts(TypedDict):
    """What training a phase costs; ``total_parameters`` count ``substrate_entries``; ``memory_bytes`` by purpose."""

    num_hidden_layers: int
    steps: int
    tokens: int
    trainable_parameters: int
    frozen_parameters: int
    substrate_entries: int
    total_parameters: int
    flops_per_token: int
    flops: int
    memory_bytes: dict[str, int]


class PhaseEstimate(PhaseCosts):
    """The costs of phase ``blocks`` or ``lora`` of a stage."""

    stage: int
    phase: str


class RunEstimate(TypedDict):
    """Sums over a run, and the largest memory of a phase."""

    steps: int
    tokens: int
    flops: int
    memory_bytes: int


def estimate(recipe: GrowthRecipe) -> list[PhaseEstimate]:
    """One entry for each stage (``phase`` blocks) and each LoRA phase (``phase`` lora), in the order they run.

    ``total_parameters`` counts as papers do: ``substrate_entries`` (vocab_size x substrate_bits numbers that are no
    parameters) included. ``steps`` and ``tokens`` are upper limits where a stage has patience; a vocabulary that is
    learnt may come out smaller than asked for. ``memory_bytes`` are rough, the counts exact.

    Raises:
        SubstrateError, ValueError: model and substrate do not fit together.
    """
    fields = model_fields(recipe)
    frozen, blocks, done = parent_blocks(recipe)
    phases: list[PhaseEstimate] = []
    for stage, plan in enumerate(recipe.stages, start=done + 1):
        if plan.layers:
            frozen, blocks = blocks, blocks + plan.layers
        shape = shape_of_fields(fields, blocks, plan.frozen_blocks(blocks, frozen))
        phases.append({"stage": stage, "phase": "blocks", **estimate_phase(shape, plan, recipe.training)})
        if recipe.lora is not None and recipe.lora.follows(stage):
            phases.append({"stage": stage, "phase": "lora", **estimate_phase(shape, recipe.lora, recipe.training)})
    return phases


def phase_costs(config: Any, plan: StageRecipe | LoraRecipe, training: TrainingRecipe) -> PhaseCosts:
    """The costs of a stage's phase ``plan``, of the model that is configured so."""
    fields = {name: getattr(config, name) for name in SHAPE_FIELDS if getattr(config, name) != DEFAULTS.get(name)}
    shape = shape_of_fields(fields, config.num_hidden_layers, config.num_frozen_layers)
    return estimate_phase(shape, plan, training)


def step_flops(config: Any, plan: StageRecipe | LoraRecipe, training: TrainingRecipe) -> int:
    """FLOPs of one of its steps."""
    return phase_costs(config, plan, training)["flops_per_token"] * training.batch_tokens


def model_fields(recipe: GrowthRecipe) -> dict[str, Any]:
    """``FrozenGlyphConfig`` fields of every stage, as far as the recipe tells them without text and font."""
    fields = config_fields(recipe.model)
    plan = recipe.substrate
    if "vocab_size" not in fields:
        if plan.tokenizer is not None:
            fields["vocab_size"] = len(load_tokenizer(plan.tokenizer))
        else:
            fields["vocab_size"] = VOCABULARIES.get(str(plan.vocab_size), plan.vocab_size)
    if plan.layout == "trainable":
        fields["substrate_trainable"] = True
    elif "substrate_bits" not in fields:
        width = fields.get("hidden_size", DEFAULTS["hidden_size"])
        fields["substrate_bits"] = choose_bits(plan.layout, width, plan.bits, fields["vocab_size"])
    return fields


def parent_blocks(recipe: GrowthRecipe) -> tuple[int, int, int]:
    """(frozen blocks, blocks, stages) of what the recipe goes on from: nothing, or a stage of its parent."""
    if recipe.parent is None:
        return 0, 0, 0
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

    config = FrozenGlyphConfig.from_pretrained(recipe.parent.where.fetch("parent", [CONFIG_FILE]))
    stage = recipe.parent.stage or len(config.ladder or [])
    blocks, frozen = config.stage_layers(stage)
    return frozen, blocks, stage


def adapter_parameters(shape: ModelShape, plan: StageRecipe | LoraRecipe) -> int:
    """Weights of the adapters of a LoRA phase or a stage: two matrices, in x rank and rank x out, for each targeted
    Linear."""
    if isinstance(plan, LoraRecipe):
        lora, blocks = plan, shape.blocks
    elif plan.adapters_below is not None:
        lora = plan.adapters_below
        blocks = shape.blocks[: plan.adapted_blocks(len(shape.blocks), shape.frozen_blocks)]
    else:
        return 0
    linears = (linear for block in blocks for linear in block.linears)
    return lora.rank * sum(linear.inputs + linear.outputs for linear in linears if linear.name in lora.targets)


def estimate_phase(shape: ModelShape, plan: StageRecipe | LoraRecipe, training: TrainingRecipe) -> PhaseCosts:
    """The costs of training what ``plan`` says of a model."""
    adapters = adapter_parameters(shape, plan)
    steps = training.steps_of(plan.steps, plan.tokens)
    tokens = steps * training.batch_tokens
    parts = plan.train if isinstance(plan, StageRecipe) else ["norm", "head"]
    trained = shape.trained(parts, adapters)
    trainable, parameters = trained.parameters(shape), adapters + shape.parameters
    entries = 0 if shape.table else shape.vocab_size * shape.substrate_bits
    costs = [
        (times, flops_per_token(shape, now, training), memory_bytes(shape, now, training))
        for now, times in turns_of(trained, plan)
    ]
    per_token = round(sum(times * flops for times, flops, _ in costs) / sum(times for times, *_ in costs))
    return {
        "num_hidden_layers": len(shape.blocks),
        "steps": steps,
        "tokens": tokens,
        "trainable_parameters": trainable,
        "frozen_parameters": parameters - trainable,
        "substrate_entries": entries,
        "total_parameters": parameters + entries,
        "flops_per_token": per_token,
        "flops": per_token * tokens,
        "memory_bytes": max((memory for *_, memory in costs), key=lambda memory: memory["total"]),
    }


def turns_of(trained: Trained, plan: StageRecipe | LoraRecipe) -> list[tuple[Trained, int]]:
    """What trains at a time, and how often beside the others.

    Of all that may be drawn, one for each lowest block, on which alone it depends what they cost.
    """
    if not isinstance(plan, StageRecipe) or plan.rotate is None:
        return [(trained, 1)]
    blocks = trained.blocks
    others = max(0, len(blocks) - (plan.always or 0))  # that take turns
    count = min(plan.draw or 1, others)
    if count == 0:
        return [(trained, 1)]
    turns = [[*blocks[lowest : lowest + count], *blocks[others:]] for lowest in range(others - count + 1)]
    return [(trained._replace(blocks=turn), comb(others - 1 - lowest, count - 1)) for lowest, turn in enumerate(turns)]


def flops_per_token(shape: ModelShape, trained: Trained, training: TrainingRecipe) -> int:
    """FLOPs of one token of one training step; see the top of this file."""
    attention = 2 * training.context_length * shape.hidden_size
    passed = "embeddings" in trained.parts  # whether something trains up to here, so that gradients come through
    total = 6 * trained.adapters
    for index, block in enumerate(shape.blocks):
        forward = 2 * block.weights
        passed = passed or index in trained.blocks or trained.adapters > 0
        total += forward + attention
        total += forward * (index in trained.blocks) + (forward + 2 * attention) * passed
        if training.activation_checkpointing and passed:
            total += forward + attention
    return total + 2 * shape.head_weights * (1 + ("head" in trained.parts) + (passed or "norm" in trained.parts))


def memory_bytes(shape: ModelShape, trained: Trained, training: TrainingRecipe) -> dict[str, int]:
    """Bytes by purpose and their ``total``; see the top of this file."""
    bf16 = uses_bf16(training.precision)
    tokens = (training.micro_batch_size or training.batch_size) * training.context_length
    width, inner = shape.hidden_size, shape.intermediate_size
    frozen = sum(block.weights for block in shape.blocks[: shape.frozen_blocks])
    trainable = trained.parameters(shape)
    weights = 4 * (shape.parameters + trained.adapters - frozen) + FROZEN_BYTES[training.quantize_frozen] * frozen
    weights += shape.buffer_bytes
    vectors = 4 * shape.vocab_size * width
    if not shape.table and vectors <= MATERIALIZE_BYTES:
        weights += vectors

    linears = [linear[1:] for index in trained.blocks for linear in shape.blocks[index].linears]
    first = min(trained.blocks, default=len(shape.blocks))
    passed = shape.blocks[0 if trained.adapters or "embeddings" in trained.parts else first :]
    if bf16:
        weights += 2 * sum(block.weights for block in passed)

    # A block keeps two residuals, the input of q, k and v (with bfloat16 a copy for each), q, k, v, attention's output,
    # the MLP's input, and its inner states before and after the activation.
    kept = tokens * (2 * 4 * width + (8 * width + 2 * inner) * 2 if bf16 else (8 * width + 2 * inner) * 4)
    activations = 2 * tokens * 4 * width  # the final norm's input and output
    if training.activation_checkpointing:
        activations += len(passed) * tokens * 4 * width + min(len(passed), 1) * kept
    else:
        activations += len(passed) * kept
    activations += tokens * (2 if bf16 else 4) * 2 * inner  # the block at work: gradients of the MLP
    parts = {
        "weights": int(weights),
        "gradients": 4 * trainable,
        "optimizer": optimizer_bytes(training, trainable, linears),
        "activations": activations,
        "loss": min(tokens * shape.vocab_size * (2 if bf16 else 4), CHUNK_BYTES) + 2 * ROW_BYTES,
    }
    return {**parts, "total": sum(parts.values())}


def totals(phases: Sequence[PhaseEstimate]) -> RunEstimate:
    """What all ``phases`` cost together."""
    return {
        "steps": sum(phase["steps"] for phase in phases),
        "tokens": sum(phase["tokens"] for phase in phases),
        "flops": sum(phase["flops"] for phase in phases),
        "memory_bytes": max(phase["memory_bytes"]["total"] for phase in phases),
    }


def short(value: float) -> str:
    """One decimal and a prefix: 104952832 -> 105M; beyond peta a power of ten: 6.32e19."""
    if value >= 1e18:
        return f"{value:.2e}".replace("e+", "e")
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + prefix
    return f"{value:.0f}"
