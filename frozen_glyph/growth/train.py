"""Train one growth stage with transformers' Trainer: newest blocks, final norm and head; resumable at any instant."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.data import TokenWindows
from frozen_glyph.growth.recipe import TrainingRecipe
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

MATERIALIZE_BYTES = 64 << 20


class FrozenWeightsChanged(FrozenGlyphError):
    """A frozen tensor has other bits after training than before."""


def uses_bf16(precision: str) -> bool:
    """Whether to compute in bfloat16; ``auto`` does where the hardware multiplies it natively."""
    if precision == "auto":
        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported(including_emulation=False)
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return precision == "bf16"


def frozen_digest(model: torch.nn.Module) -> str:
    """sha256 over every stored tensor that must not train: the substrate and all parameters without gradient."""
    digest = hashlib.sha256()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trainable:
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def newest_checkpoint(work: Path) -> str | None:
    """The newest of Trainer's checkpoints that was written to its end: its state file comes last."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            TrainerState.load_from_json(str(folder / "trainer_state.json"))
            return str(folder)
        except (OSError, ValueError):
            continue
    return None


def train_stage(
    model: Any,
    windows: TokenWindows,
    steps: int,
    recipe: TrainingRecipe,
    seed: int,
    work: Path,
    callbacks: list[TrainerCallback],
) -> dict[str, float]:
    """Train ``model`` in place for ``steps`` optimiser steps and return Trainer's metrics (loss, seconds).

    ``work`` holds Trainer's checkpoints; a run that was killed goes on from the newest and ends with the same bits.

    Raises:
        FrozenWeightsChanged: a frozen tensor changed.
    """
    cuda, distributed = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", "1")) > 1
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": recipe.final_learning_rate_ratio},
        warmup_steps=min(recipe.warmup_steps, steps // 2),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        adam_beta2=0.95,
        bf16=uses_bf16(recipe.precision),
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=2,
        logging_steps=min(10, steps),
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_backend="gloo" if distributed and not cuda else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # or the frozen substrate would travel before every forward pass
    )
    before = frozen_digest(model)
    substrate = model.substrate
    if (
        isinstance(substrate, FrozenGlyphEmbedding)
        and 4 * substrate.num_embeddings * substrate.embedding_dim <= MATERIALIZE_BYTES
    ):
        substrate.materialize()
    trainer = Trainer(model=model, args=arguments, train_dataset=windows, callbacks=callbacks)
    trainer.remove_callback(transformers.PrinterCallback)
    metrics = trainer.train(resume_from_checkpoint=newest_checkpoint(work)).metrics
    if frozen_digest(model) != before:
        raise FrozenWeightsChanged(
            f"frozen weights changed while training in {str(work)!r}; nothing of this stage was published. "
            "Train only what requires gradients"
        )
    return metrics
