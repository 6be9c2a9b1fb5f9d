"""What happens between steps: when to log and where to, when to stop early, and what is shown of a phase."""

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.checkpoint.records import LogEntry
from frozen_glyph.errors import duration, printable
from frozen_glyph.recipes.errors import RecipeError

HISTORY_KEYS = tuple(LogEntry.__annotations__)
LOG_SECONDS = 30  # a line of progress comes so often
logger = logging.getLogger(__name__)


def history_of(log: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Of what Trainer logged the entries with a loss, and of these what a metrics file holds."""
    return [
        {key: entry[key] for key in HISTORY_KEYS if key in entry}
        for entry in log
        if "loss" in entry or "eval_loss" in entry
    ]


class MetricsFile(TrainerCallback):
    """Lets a metrics file grow, a line for each entry that is logged, while its phase trains; one process writes.

    What a stopped run logged after its last checkpoint is written anew. ``flops``: of one step, for each entry.
    """

    def __init__(self, path: Path, flops: int) -> None:
        self.path, self.flops = path, flops

    def lines(self, log: Iterable[Mapping[str, Any]]) -> str:
        """What the file holds of ``log``."""
        return "".join(json.dumps(entry | {"flops": entry["step"] * self.flops}) + "\n" for entry in history_of(log))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.path, self.lines(state.log_history))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(self.lines(state.log_history[-1:]))


class LogAtCheckpoints(TrainerCallback):
    """Log with every checkpoint and evaluation too, so that a resumed run logs what an uninterrupted one does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log |= control.should_save or control.should_evaluate


class Patience(TrainerCallback):
    """Stop after ``patience`` evaluations in a row without a new best: a held-out loss lower by ``min_gain``.

    All it knows is the history that the checkpoint holds, so it survives a resume.
    """

    def __init__(self, patience: int, min_gain: float = 0.0) -> None:
        self.patience, self.min_gain = patience, min_gain

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        best, waited = math.inf, 0
        for loss in (entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry):
            best, waited = (loss, 0) if loss < best - self.min_gain else (best, waited + 1)
        if waited >= self.patience:
            control.should_training_stop = control.should_save = True


class StageProgress(TrainerCallback):
    """A bar of one phase, shown by the main process: step, loss, tokens per second of all devices, time left.

    To the log goes a line every ``LOG_SECONDS`` and at the end. Where there is no terminal, that is all.
    """

    def __init__(self, title: str, visible: bool) -> None:
        title = printable(title)
        console = Console(stderr=True)  # standard output is for results
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not (visible and console.is_terminal),
        )
        self.task = self.bar.add_task(title, total=None, loss="-", speed="-")
        self.title, self.logged = title, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        if state.is_world_process_zero:
            self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            loss, speed = f"{logs['loss']:.3f}", f"{logs['tokens_per_second']:,.0f}"
            self.bar.update(self.task, loss=loss, speed=speed)
            now = time.monotonic()
            if now - self.logged >= LOG_SECONDS or state.global_step >= state.max_steps:
                self.logged = now
                left = (state.max_steps - state.global_step) * logs["seconds"] / state.global_step
                logger.info(
                    "%s %d/%d loss %s %s tokens/s, %s left",
                    *(self.title, state.global_step, state.max_steps, loss, speed, duration(left)),
                )

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        self.bar.stop()


TENSORBOARD = "TENSORBOARD_LOGGING_DIR"  # what transformers asks


def check_reporters(names: Sequence[str]) -> None:
    """``RecipeError`` unless every package that metrics are reported to is installed."""
    available = get_available_reporting_integrations()
    for name in names:
        if name not in available:
            raise RecipeError(
                f"recipe field training.report_to={list(names)}: {name!r} is not installed here (installed: "
                f"{', '.join(available) or 'none'}); pip install {name}, or leave it out"
            )


@contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """Let TensorBoard's files of what trains meanwhile lie in ``folder``, unless the environment names another."""
    if TENSORBOARD in os.environ:
        yield
        return
    os.environ[TENSORBOARD] = str(folder)
    try:
        yield
    finally:
        del os.environ[TENSORBOARD]
