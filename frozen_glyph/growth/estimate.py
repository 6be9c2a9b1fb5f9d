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
scores); gradients of one block while it is walked back; and a chunk of logits with its gradient, not all of them. With
bfloat16 the products are kept in 2 bytes, and weights that gradients pass through have a 2-byte copy. Overhead of
library and framework (hundreds of MB on CUDA) comes on top.

Shapes: D hidden size, F intermediate size, T context length, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.growth.expand import choose_trainable
from frozen_glyph.growth.recipe import MODEL_FIELDS, GrowthRecipe, LoraRecipe, StageRecipe
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.model.loss_frozen_glyph import CHUNK_TOKENS
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.substrate.build import choose_bits
from frozen_glyph.substrate.vocabulary import VOCABULARIES
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.train import MATERIALIZE_BYTES, uses_bf16

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
        model = meta_model(fields, blocks, plan.frozen_blocks(blocks, frozen))
        choose_trainable(model, plan.train)
        phases.append({"stage": stage, "phase": "blocks", **estimate_phase(model, plan, recipe.training, 0)})
        if recipe.lora is not None and recipe.lora.follows(stage):
            choose_trainable(model, ["norm", "head"])
            adapters = adapter_parameters(model, recipe.lora)
            phases.append(
                {"stage": stage, "phase": "lora", **estimate_phase(model, recipe.lora, recipe.training, adapters)}
            )
    return phases


def model_fields(recipe: GrowthRecipe) -> dict[str, Any]:
    """``FrozenGlyphConfig`` fields of every stage, as far as the recipe tells them without text and font."""
    fields = {key: value for key, value in recipe.model.items() if key in MODEL_FIELDS}
    plan = recipe.substrate
    if "vocab_size" not in fields:
        if plan.tokenizer is not None:
            fields["vocab_size"] = len(load_tokenizer(plan.tokenizer))
        else:
            fields["vocab_size"] = VOCABULARIES.get(str(plan.vocab_size), plan.vocab_size)
    if plan.layout == "trainable":
        fields["substrate_trainable"] = True
    elif "substrate_bits" not in fields:
        width = fields.get("hidden_size", FrozenGlyphConfig.hidden_size)
        fields["substrate_bits"] = choose_bits(plan.layout, width, plan.bits, fields["vocab_size"])
    return fields


def parent_blocks(recipe: GrowthRecipe) -> tuple[int, int, int]:
    """(frozen blocks, blocks, stages) of what the recipe goes on from: nothing, or a stage of its parent."""
    if recipe.parent is None:
        return 0, 0, 0
    config = FrozenGlyphConfig.from_pretrained(recipe.parent.source)
    stage = recipe.parent.stage or len(config.ladder or [])
    blocks, frozen = config.stage_layers(stage)
    return frozen, blocks, stage


def meta_model(fields: dict[str, Any], blocks: int, frozen: int) -> Any:
    """The model with ``blocks`` blocks, without weights."""
    shape = fields | {"num_hidden_layers": blocks, "num_frozen_layers": frozen, "ladder": None}
    with torch.device("meta"):
        return FrozenGlyphForCausalLM(FrozenGlyphConfig(**shape))


def linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The Linears in ``module`` with the last part of their names."""
    return ((name.rpartition(".")[2], part) for name, part in module.named_modules() if isinstance(part, nn.Linear))


def adapter_parameters(model: Any, lora: LoraRecipe) -> int:
    """Weights of the adapters of all blocks: two matrices, in x rank and rank x out, for each targeted Linear."""
    targeted = (linear for name, linear in linears(model.model.layers) if name in lora.targets)
    return lora.rank * sum(linear.in_features + linear.out_features for linear in targeted)


def trains(module: nn.Module) -> bool:
    """Whether anything in ``module`` trains."""
    return any(parameter.requires_grad for parameter in module.parameters())


def estimate_phase(model: Any, plan: StageRecipe | LoraRecipe, training: TrainingRecipe, adapters: int) -> PhaseCosts:
    """The costs of training ``model``, on meta and with what trains marked, plus ``adapters`` weights."""
    config = model.config
    steps = training.steps_of(plan.steps, plan.tokens)
    tokens = steps * training.batch_tokens
    trainable = adapters + sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = adapters + model.num_parameters()
    entries = 0 if config.substrate_trainable else config.vocab_size * config.substrate_bits
    costs = [
        (flops_per_token(model, training, adapters), memory_bytes(model, training, adapters, now))
        for now in trainable_by_turn(model, plan, adapters)
    ]
    per_token = round(sum(flops for flops, _ in costs) / len(costs))
    return {
        "num_hidden_layers": config.num_hidden_layers,
        "steps": steps,
        "tokens": tokens,
        "trainable_parameters": trainable,
        "frozen_parameters": parameters - trainable,
        "substrate_entries": entries,
        "total_parameters": parameters + entries,
        "flops_per_token": per_token,
        "flops": per_token * tokens,
        "memory_bytes": max((memory for _, memory in costs), key=lambda memory: memory["total"]),
    }


def trainable_by_turn(model: Any, plan: StageRecipe | LoraRecipe, adapters: int) -> Iterator[int]:
    """How much trains at a time: once all that is marked, or block by block where they take turns, each marked alone
    meanwhile."""
    trained = [block for block in model.model.layers if trains(block)]
    turns = trained if isinstance(plan, StageRecipe) and plan.rotate is not None else [None]
    for turn in turns:
        for block in trained:
            block.requires_grad_(turn in (None, block))
        yield adapters + sum(p.numel() for p in model.parameters() if p.requires_grad)
    for block in trained:
        block.requires_grad_(True)


def flops_per_token(model: Any, training: TrainingRecipe, adapters: int = 0) -> int:
    """FLOPs of one token of one training step; see the top of this file."""
    attention = 2 * training.context_length * model.config.hidden_size
    passed = trains(model.substrate)  # whether something trains up to here, so that gradients come through
    total = 6 * adapters
    for block in model.model.layers:
        forward = 2 * sum(linear.weight.numel() for _, linear in linears(block))
        passed = passed or trains(block) or adapters > 0
        total += forward + attention
        total += forward * trains(block) + (forward + 2 * attention) * passed
        if training.activation_checkpointing and passed:
            total += forward + attention
    head = 2 * model.lm_head.weight.numel()
    return total + head * (1 + trains(model.lm_head) + (passed or trains(model.model.norm)))


def memory_bytes(model: Any, training: TrainingRecipe, adapters: int, trainable: int) -> dict[str, int]:
    """Bytes by purpose and their ``total``; see the top of this file."""
    config, bf16 = model.config, uses_bf16(training.precision)
    tokens = (training.micro_batch_size or training.batch_size) * training.context_length
    width, inner = config.hidden_size, config.intermediate_size
    frozen = sum(
        linear.weight.numel()
        for block in model.model.layers[: config.num_frozen_layers]
        for _, linear in linears(block)
    )
    weights = 4 * (model.num_parameters() + adapters - frozen) + FROZEN_BYTES[training.quantize_frozen] * frozen
    weights += sum(buffer.nbytes for buffer in model.buffers())
    table = 4 * config.vocab_size * width
    if isinstance(model.substrate, FrozenGlyphEmbedding) and table <= MATERIALIZE_BYTES:
        weights += table

    first = next((i for i, block in enumerate(model.model.layers) if trains(block)), config.num_hidden_layers)
    passed = model.model.layers[0 if adapters or trains(model.substrate) else first :]
    if bf16:
        weights += 2 * sum(part.weight.numel() for block in [*passed, model.lm_head] for _, part in linears(block))

    # A block keeps two residuals, the input of q, k and v (with bfloat16 a copy for each), q, k, v, attention's output,
    # the MLP's input, and its inner states before and after the activation.
    kept = tokens * (2 * 4 * width + (8 * width + 2 * inner) * 2 if bf16 else (8 * width + 2 * inner) * 4)
    activations = 2 * tokens * 4 * width  # the final norm's input and output
    if training.activation_checkpointing:
        activations += len(passed) * tokens * 4 * width + min(len(passed), 1) * kept
    else:
        activations += len(passed) * kept
    activations += tokens * (2 if bf16 else 4) * 2 * inner  # the block at work: gradients of the MLP
    loss = 2 * 4 * min(tokens, CHUNK_TOKENS) * config.vocab_size
    parts = {
        "weights": int(weights),
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,
        "activations": activations,
        "loss": loss,
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
