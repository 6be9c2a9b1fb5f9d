"""Train one phase with transformers' Trainer: whatever requires gradients, resumable at any instant.

One process or many (``torchrun``, ``accelerate launch``): a step takes the same windows however they are divided.
"""

import copy
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from frozen_glyph.checkpoint.files import CheckpointError, write_tensors
from frozen_glyph.checkpoint.records import TrainedPhase
from frozen_glyph.errors import FrozenGlyphError, enough_memory
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphPreTrainedModel
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.callbacks import LogAtCheckpoints, Patience, check_reporters, history_of
from frozen_glyph.training.data import TokenWindows, collate
from frozen_glyph.training.optimizers import check_optimizer, optimizer_arguments
from frozen_glyph.training.precision import MATERIALIZE_BYTES, uses_bf16
from frozen_glyph.training.recipe import TrainingRecipe
from frozen_glyph.training.trainer import (
    StageTrainer,
    load_trainable,
    newest_checkpoint,
    stored_tensors,
    trainable,
    whole,
)
from frozen_glyph.training.turns import Branch, Turns

# transformers renamed it; the old name warns.
CHECKPOINTING = "activation_checkpointing"
if not hasattr(FrozenGlyphPreTrainedModel, f"{CHECKPOINTING}_enable"):
    CHECKPOINTING = "gradient_checkpointing"
LOGGING_STEPS = 10
LESS_MEMORY = (
    "lower training.micro_batch_size or set training.activation_checkpointing, which a run that has begun may change, "
    "or in a new folder shorten training.context_length or say training.precision: bf16"
)
DECAY_SHARE = 0.2  # of all steps, at the end of warmup_stable_decay


class FrozenWeightsChanged(FrozenGlyphError):
    """A frozen tensor has other bits after training than before."""


@dataclass(frozen=True)
class Phase:
    """One optimisation phase, a stage's own blocks or its LoRA phase: ``steps`` at most, fewer with ``patience``.

    ``min_gain``: nats a token by which a held-out loss lies below the best before it to be a new one.
    ``run_steps``: the learning rate falls over so many steps, of which ``steps_before`` came in earlier phases.
    ``moments``: Adam's state to begin with, as an earlier phase left it in its ``moments_to``, a .safetensors file.
    ``trunk_to``: a file for what has trained where the decay begins; the moments are then those of that step too.
    ``rotate``: the blocks train in turns of so many steps, one at a time from the top down, or ``draw`` at random;
    ``always``: topmost ones that train in every turn.
    """

    steps: int
    learning_rate: float
    seed: int
    patience: int | None = None
    min_gain: float = 0.0
    run_steps: int | None = None
    steps_before: int = 0
    moments: dict[str, torch.Tensor] | None = None
    moments_to: Path | None = None
    trunk_to: Path | None = None
    rotate: int | None = None
    draw: int | None = None
    always: int = 0

    @property
    def decay_steps(self) -> int:
        """Steps at the end of ``warmup_stable_decay``."""
        return round(DECAY_SHARE * self.steps)


def frozen_digest(model: torch.nn.Module) -> str:
    """sha256 over every stored tensor that must not train: the substrate and all parameters without gradient.

    Costs one read of the frozen bytes, about a second per GB, and nothing else; a phase takes it twice.
    """
    digest = hashlib.sha256()
    training = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    for name, tensor in stored_tensors(model):
        if name not in training:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def device_batches(recipe: TrainingRecipe, world_size: int) -> tuple[int, int]:
    """(sequences at once on each device, how many of these one optimiser step accumulates).

    Raises:
        RecipeError: the sequences of a step cannot be shared equally.
    """
    micro = recipe.micro_batch_size or max(recipe.batch_size // world_size, 1)
    if recipe.batch_size % (world_size * micro):
        raise RecipeError(
            f"recipe field training.batch_tokens={recipe.batch_tokens} is {recipe.batch_size} sequences, which "
            f"{world_size} processes with training.micro_batch_size={micro} cannot share equally; "
            f"use a multiple of {world_size * micro * recipe.context_length} tokens or another number of processes"
        )
    return micro, recipe.batch_size // (world_size * micro)


def schedule(recipe: TrainingRecipe, phase: Phase) -> dict[str, Any]:
    """The learning rate over the steps in Trainer's terms: warm-up, then decay to the recipe's share of the peak."""
    ratio = recipe.final_learning_rate_ratio
    name, options = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": ratio}),
        "linear": ("polynomial", {"power": 1.0, "lr_end": ratio * phase.learning_rate}),
        "constant": ("constant_with_warmup", {}),
        "warmup_stable_decay": (
            "warmup_stable_decay",
            {"num_decay_steps": phase.decay_steps, "decay_type": "linear", "min_lr_ratio": ratio},
        ),
    }["constant" if ratio == 1 else recipe.schedule]
    return {
        "learning_rate": phase.learning_rate,
        "warmup_steps": min(recipe.warmup_steps, phase.steps // 2),
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": options,
    }


def rate_over_run(recipe: TrainingRecipe, phase: Phase, step: int) -> float:
    """Share of the peak at a step of a phase that follows the run's decay; it is warmed up if its moments are new."""
    done, ratio = (phase.steps_before + step) / (phase.run_steps or phase.steps), recipe.final_learning_rate_ratio
    left = {
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "constant": 1.0,
        "warmup_stable_decay": min(1.0, (1 - done) / DECAY_SHARE),
    }[recipe.schedule]
    warmup = 0 if phase.moments else schedule(recipe, phase)["warmup_steps"]
    return min(1.0, step / warmup if warmup else 1.0) * (ratio + (1 - ratio) * left)


def check_machine(recipe: TrainingRecipe) -> None:
    """``RecipeError`` unless this machine, launched as it is, can train by ``recipe``."""
    check_reporters(recipe.report_to)
    sharded = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    check_optimizer(recipe, sharded)
    device_batches(recipe, int(os.environ.get("WORLD_SIZE", "1")))
    if uses_bf16(recipe.precision) and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        raise RecipeError(
            f"recipe field training.precision={recipe.precision!r}: DeepSpeed would cast the frozen weights to "
            "bfloat16 too; say training.precision: fp32, or launch with DistributedDataParallel or FSDP2"
        )


def training_arguments(phase: Phase, recipe: TrainingRecipe, work: Path, evaluates: bool) -> TrainingArguments:
    """Trainer's arguments for ``phase`` on this machine."""
    cuda, world_size = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", "1"))
    micro, accumulated = device_batches(recipe, world_size)
    arguments = TrainingArguments(
        output_dir=str(work),
        run_name=work.name,
        max_steps=phase.steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        **schedule(recipe, phase),
        **optimizer_arguments(recipe),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        adam_beta2=recipe.adam_beta2,
        bf16=uses_bf16(recipe.precision),
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=None,  # Trainer would delete whole folders by name
        eval_strategy="steps" if evaluates else "no",
        eval_steps=recipe.eval_steps,
        logging_steps=min(LOGGING_STEPS, phase.steps),
        logging_nan_inf_filter=False,  # it hides a NaN and asks the device for the loss at every step
        seed=phase.seed,
        data_seed=phase.seed,
        report_to=recipe.report_to or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_backend="gloo" if world_size > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # or the frozen substrate would travel before every forward pass
    )
    if world_size == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs are for `accelerate launch`; Trainer would take torch's old DataParallel
    return arguments


def train_phase(
    model: Any,
    windows: TokenWindows,
    phase: Phase,
    recipe: TrainingRecipe,
    work: Path,
    callbacks: Sequence[TrainerCallback] = (),
    held_out: TokenWindows | None = None,
    prepare_inputs: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
) -> TrainedPhase:
    """Train in place what of ``model`` requires gradients.

    ``work`` holds the checkpoints; a run that was killed goes on from the newest whole one and ends with the same
    bits. ``held_out`` is evaluated every ``recipe.eval_steps``. ``prepare_inputs`` is applied to each training batch
    (not to held-out ones) before the forward pass.

    Returns:
        What the phase came to; ``eval_loss`` is None without evaluation, ``history`` what was logged, entry by entry.

    Raises:
        TrainingDiverged: the loss or a weight is not finite; no such weight was saved.
        FrozenWeightsChanged: a frozen tensor changed.
        RecipeError: the batch cannot be shared by the processes; a package in ``report_to`` is missing.
        CheckpointError: a checkpoint could not be written, for example because the disk is full.
        NotEnoughMemory: a step does not fit into the device.
    """
    check_machine(recipe)
    evaluates = held_out is not None and recipe.eval_steps is not None
    if phase.patience is not None and not evaluates:
        raise RecipeError(f"recipe field stages.patience={phase.patience} needs held-out text and training.eval_steps")
    arguments = training_arguments(phase, recipe, work, evaluates)
    before = frozen_digest(model)
    substrate = model.substrate
    if (
        isinstance(substrate, FrozenGlyphEmbedding)
        and 4 * substrate.num_embeddings * substrate.embedding_dim <= MATERIALIZE_BYTES
    ):
        substrate.materialize()
    changes: list[TrainerCallback] = []
    if phase.trunk_to is not None:
        changes.append(Branch(phase.steps - phase.decay_steps, phase.trunk_to, phase.moments_to))
    if phase.rotate is not None:
        blocks = model.model.layers[model.config.num_frozen_layers :]
        taking = blocks[: max(0, len(blocks) - phase.always)]
        changes.append(Turns(taking, phase.rotate, phase.draw, phase.seed))
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    trained = copy.deepcopy(model) if sharded else model  # FSDP2 leaves its shards in the model for good
    if recipe.activation_checkpointing:
        getattr(trained, f"{CHECKPOINTING}_enable")()
    use_cache = trained.config.use_cache
    trainer = StageTrainer(
        model=trained,
        args=arguments,
        data_collator=collate,
        train_dataset=windows,
        eval_dataset=held_out if evaluates else None,
        callbacks=[
            LogAtCheckpoints(),
            *([Patience(phase.patience, phase.min_gain)] if phase.patience else []),
            *changes,
            *callbacks,
        ],
        recipe=recipe,
        prepare_inputs=prepare_inputs,
        rate=partial(rate_over_run, recipe, phase) if phase.run_steps else None,
        moments=phase.moments,
    )
    trainer.remove_callback(PrinterCallback)
    with enough_memory(f"training of {work.name!r} in batches of {arguments.per_device_train_batch_size}", LESS_MEMORY):
        trainer.resume(newest_checkpoint(work))
    if phase.moments_to is not None and phase.trunk_to is None and arguments.should_save:
        write_tensors(phase.moments_to, trainer.moments_left(newest_checkpoint(work)))
    if phase.trunk_to is not None and arguments.should_save and not phase.trunk_to.exists():
        raise CheckpointError(
            f"{str(phase.trunk_to)!r}, which this phase wrote where its decay began, is gone; train in a new folder"
        )
    trainer.accelerator.unwrap_model(trained, keep_fp32_wrapper=False)  # or autocast would stay around its forward
    trained.config.use_cache = use_cache  # Trainer turns it off, and the written model would generate without a cache
    if recipe.activation_checkpointing:
        getattr(trained, f"{CHECKPOINTING}_disable")()
    if frozen_digest(trained) != before:
        raise FrozenWeightsChanged(
            f"frozen weights changed while training in {str(work)!r}; nothing of this stage was written. "
            "Train only what requires gradients"
        )
    if sharded:
        load_trainable(model, {name: whole(tensor) for name, tensor in trainable(trained).items()}, work)
    log = trainer.state.log_history
    history = history_of(log)
    last = {key: value for entry in history for key, value in entry.items()}
    return {
        "steps": trainer.state.global_step,
        "tokens": trainer.state.global_step * recipe.batch_tokens,
        "seconds": log[-1]["seconds"],
        "train_loss": last["loss"],
        "eval_loss": last.get("eval_loss"),
        "history": history,
    }
