"""transformers' Trainer as a phase needs it: fused loss, checkpoints of what trains, a stop before NaN is saved.

A checkpoint holds the trainable tensors, Trainer's own optimiser, schedule and random states, and ``manifest.json``
with the sha256 of every other file. It is written beside its place, which it takes when it is complete.
"""

import itertools
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypedDict

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, RandomSampler
from transformers import Trainer
from transformers.trainer_callback import TrainerState

from frozen_glyph.checkpoint.contract import WEIGHTS
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    check_hashes,
    read_json,
    read_record,
    read_tensors,
    sha256_file,
    write_json,
    write_tensors,
)
from frozen_glyph.checkpoint.folders import clear_stale, files_below, neighbour, remove_files
from frozen_glyph.checkpoint.journal import note_below
from frozen_glyph.checkpoint.manifest import MANIFEST_FILE, is_inside, unchanged
from frozen_glyph.checkpoint.records import LogEntry
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.training.optimizers import projectors_load
from frozen_glyph.training.recipe import TrainingRecipe

FOLDER = re.compile(r"checkpoint-(\d+)(?:\.(\d+))?")  # of a step; numbered where files of others lie in its place
STATE_FILE, OPTIMIZER_FILE = "trainer_state.json", "optimizer.pt"
Batch = dict[str, torch.Tensor]
logger = logging.getLogger(__name__)


class SavedManifest(TypedDict):
    """``manifest.json`` of a checkpoint: whether it is of the last step, and the sha256 of its files."""

    finished: bool
    files: dict[str, str]


class SavedState(TypedDict):
    """What is read of the state that Trainer saves."""

    global_step: int
    log_history: list[LogEntry]


class TrainingDiverged(FrozenGlyphError):
    """The loss or a weight is no longer a finite number."""


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def moments_of(model: torch.nn.Module, optimizer: Any) -> dict[str, torch.Tensor]:
    """Adam's state of what trains, by parameter and part."""
    return {
        f"{name}.{part}": moment.detach().cpu()
        for name, parameter in trainable(model).items()
        for part, moment in optimizer.state[parameter].items()
    }


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or all of it where FSDP2 left this device a shard; then every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def load_trainable(model: torch.nn.Module, tensors: dict[str, torch.Tensor], source: Path) -> None:
    """Copy ``tensors`` into the trainable parameters of ``model``; ``CheckpointError`` when they are others."""
    parameters = trainable(model)
    if different := sorted(parameters.keys() ^ tensors.keys()):
        raise CheckpointError(
            f"{str(source)!r} holds other tensors than the model trains, such as {different[0]!r}; "
            "it belongs to another run or stage: remove it"
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def newest_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint in ``work`` whose files all have the bytes that its manifest says; warns of the others."""
    for folder in checkpoints(work):
        try:
            check_hashes(folder, read_record(folder / MANIFEST_FILE, SavedManifest)["files"])
            read_record(folder / STATE_FILE, SavedState)
            return folder
        except CheckpointError as error:
            logger.warning("checkpoint %r is passed over, an older one or a new start is used: %s", str(folder), error)
    return None


def remove_checkpoints(work: Path, kept: int = 0) -> None:
    """Delete the checkpoints in ``work`` but for the newest ``kept``."""
    for folder in [folder for folder in checkpoints(work) if (folder / MANIFEST_FILE).exists()][kept:]:
        remove_checkpoint(folder)


def remove_checkpoint(folder: Path) -> None:
    """Delete of a checkpoint what its manifest names and nobody changed; all else stays."""
    try:
        recorded = read_record(folder / MANIFEST_FILE, SavedManifest)["files"]
    except CheckpointError:
        recorded = {}
    ours = unchanged(folder, {name: digest for name, digest in recorded.items() if is_inside(name)})
    remove_files(folder, [*ours, MANIFEST_FILE] if ours else [])


def checkpoints(work: Path) -> list[Path]:
    """The folders of checkpoints in ``work``, the newest first."""
    found = [(match, path) for path in work.glob("checkpoint-*") if (match := FOLDER.fullmatch(path.name))]
    found.sort(key=lambda item: [int(number or 0) for number in item[0].groups()], reverse=True)
    return [path for _, path in found]


def vacant(folder: Path) -> Path:
    """``folder`` if nothing is there, else a neighbour with a number."""
    numbered = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
    return next(path for path in itertools.chain([folder], numbered) if not os.path.lexists(path))


class StageTrainer(Trainer):
    """Trains whatever of ``model`` requires gradients.

    ``recipe`` says how many windows make one optimiser step over all devices. ``prepare_inputs`` is applied to each
    training batch, on its device, before the forward pass. ``rate`` is the share of the peak at a step, in place of
    the schedule that the arguments name. ``moments`` are what ``moments_left`` gave of such parameters.
    """

    model: Any

    def __init__(
        self,
        recipe: TrainingRecipe,
        prepare_inputs: Callable[[Batch], Batch] | None = None,
        rate: Callable[[int], float] | None = None,
        moments: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        self.recipe, self.prepare_inputs, self.rate = recipe, prepare_inputs, rate
        self.moments = moments or {}
        self.started, self.seconds_before = time.monotonic(), 0.0
        self.saving: Path | None = None
        super().__init__(**kwargs)
        self.work = Path(str(self.args.output_dir))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> RandomSampler:
        """One permutation of the windows after another, as many as all steps need.

        So every step is full, whatever the number of windows, and is the same however many devices share it.
        """
        windows: Any = self.train_dataset
        return RandomSampler(windows, num_samples=self.args.max_steps * self.recipe.batch_size)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.rate is not None and self.lr_scheduler is None:
            chosen: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(chosen, self.rate)
        return super().create_scheduler(num_training_steps, optimizer)

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer: Any = super().create_optimizer(model)
        parameters = trainable(self.model)
        for key, moment in self.moments.items():
            name, _, part = key.rpartition(".")
            parameter = parameters[name]
            steps_here = part != "step" or optimizer.defaults.get("fused")  # the fused step counts on its device
            optimizer.state[parameter][part] = moment.to(parameter.device if steps_here else "cpu", copy=True)
        return optimizer

    def moments_left(self, checkpoint: Path | None) -> dict[str, torch.Tensor]:
        """Adam's state after training, by parameter and part; that of ``checkpoint`` where it was the end itself."""
        if self.optimizer is None and checkpoint is not None:
            self.create_optimizer_and_scheduler(self.args.max_steps)
            with no_pickles(checkpoint):
                self._load_optimizer_and_scheduler(str(checkpoint))
        return moments_of(self.model, self.optimizer)

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        if model.training and self.prepare_inputs is not None:
            inputs = self.prepare_inputs(inputs)
        return super().compute_loss(model, {**inputs, "skip_logits": True}, *args, **kwargs)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean loss of all predicted tokens of ``eval_dataset``, the same however many processes share it."""
        windows: Any = self.eval_dataset
        size = self.args.per_device_eval_batch_size
        first = self.args.process_index * size
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        for begin in range(first, len(windows) + first, size * self.args.world_size):
            places = range(begin, begin + size)  # beyond the end: any window, none of whose labels counts
            inputs = self._prepare_inputs(self.data_collator([windows[min(p, len(windows) - 1)] for p in places]))
            labels = inputs["labels"] = inputs["labels"].clone()
            labels[max(len(windows) - begin, 0) :] = -100
            with self.compute_loss_context_manager():
                sums[0] += self.model(**inputs, skip_logits=True, num_items_in_batch=1).loss
            sums[1] += labels[:, 1:].ne(-100).sum()
        total, count = self.accelerator.reduce(sums).tolist()
        self.log(metrics := {"eval_loss": total / count})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def resume(self, checkpoint: Path | None) -> None:
        """Train to the end from ``checkpoint``, or from the start; one that is the end itself is only loaded."""
        if self.args.should_save:
            clear_stale(self.work, lambda name: FOLDER.fullmatch(name) is not None)
        if checkpoint is not None:
            state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
            self.seconds_before = next((e["seconds"] for e in reversed(state.log_history) if "seconds" in e), 0.0)
            if read_json(checkpoint / MANIFEST_FILE)["finished"]:
                self.state = state
                load_trainable(self.model, read_tensors(checkpoint / WEIGHTS), checkpoint)
                return
        self.started = time.monotonic()
        with no_pickles(checkpoint):
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add seconds and tokens since the phase began, over all its resumes; stop when the loss is not finite."""
        for name in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise self.diverged(f"{name} is {logs[name]}", logs.get("learning_rate"))
        logs["seconds"] = round(self.seconds_before + time.monotonic() - self.started, 3)
        if "loss" in logs:
            tokens = self.recipe.batch_tokens
            last = next((entry for entry in reversed(self.state.log_history) if "loss" in entry), {})
            steps = self.state.global_step - last.get("step", 0)
            logs["tokens"] = self.state.global_step * tokens
            logs["tokens_per_second"] = round(steps * tokens / max(logs["seconds"] - last.get("seconds", 0.0), 1e-3), 1)
        super().log(logs, start_time)

    def diverged(self, what: str, learning_rate: float | None = None) -> TrainingDiverged:
        rate = self._get_learning_rate() if learning_rate is None else learning_rate
        return TrainingDiverged(
            f"training of {self.work.name!r} diverged: {what} at step {self.state.global_step}, "
            f"learning rate {rate:.3g}. Lower it (training.learning_rate; once a stage is finished, that of the next "
            "stage alone) and start again: this phase then begins anew. Or, in a new folder, lower "
            "training.max_grad_norm, lengthen training.warmup_steps, or say training.precision: fp32"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.work / f"checkpoint-{self.state.global_step}"
        for name, parameter in trainable(self.model).items():
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            if not local.isfinite().all():
                raise self.diverged(f"{name} is not finite")
        try:
            with neighbour(folder) if self.args.should_save else nullcontext() as temporary:
                (self.saving,) = broadcast_object_list([temporary])
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()  # each process has written its own random state
                if temporary is not None:
                    note_below(temporary)
                    self.settle(temporary / folder.name, folder)
            self.accelerator.wait_for_everyone()
        except (OSError, RuntimeError, SafetensorError) as error:
            free = shutil.disk_usage(self.work).free
            raise CheckpointError(
                f"checkpoint {str(folder)!r} could not be written, {free / 1e9:.1f} GB are free there: {error}. "
                "Earlier checkpoints stay; make room and start the same command again to resume"
            ) from error
        finally:
            self.saving = None

    def settle(self, written: Path, folder: Path) -> None:
        """Record a checkpoint that is complete, let it take the place ``folder``, and drop all but the newest two."""
        hashes = {name: sha256_file(written / name) for name in files_below(written)}
        write_json(written / MANIFEST_FILE, {"finished": self.control.should_training_stop, "files": hashes})
        remove_checkpoint(folder)
        written.replace(vacant(folder))
        remove_checkpoints(self.work, kept=2)

    def _get_output_dir(self, trial: Any = None) -> str:
        """Where Trainer makes the folder of a checkpoint: a temporary one, of which nothing is another's."""
        return str(self.saving or super()._get_output_dir(trial))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trainable tensors only; the frozen ones are in the stages below."""
        folder = Path(output_dir or self.work)
        tensors = {name: whole(parameter).detach().cpu() for name, parameter in trainable(self.model).items()}
        if self.args.should_save:
            write_tensors(folder / WEIGHTS, tensors)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        folder = Path(resume_from_checkpoint)
        load_trainable(self.model, read_tensors(folder / WEIGHTS), folder)


@contextmanager
def no_pickles(checkpoint: Path | None) -> Iterator[None]:
    """Say what is wrong where Trainer, which reads its own state as tensors and plain values only, finds more."""
    try:
        with projectors_load():
            yield
    except UnpicklingError:
        raise CheckpointError(
            f"{str(checkpoint)!r} was not written by training: its optimizer, scheduler or random state holds more "
            "than tensors, which nothing ran; delete that folder and start the same command again"
        ) from None


def stored_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every stored tensor in order of names, quantised ones as the plain tensors inside."""

    def plain(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        tensor = whole(tensor)
        if hasattr(tensor, "__tensor_flatten__"):
            for inner in tensor.__tensor_flatten__()[0]:
                yield from plain(f"{name}.{inner}", getattr(tensor, inner))
        else:
            yield name, tensor

    for name, tensor in sorted(model.state_dict().items()):
        yield from plain(name, tensor)
