"""One progress bar per stage: step, loss, tokens per second, time left (in a log file a line per tenth); history."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback


class StageProgress(TrainerCallback):
    """Follow one stage of training; ``history`` holds step, loss and learning rate of every logged step."""

    def __init__(self, title: str, visible: bool) -> None:
        self.history: list[dict[str, float]] = []
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),  # standard output is for results
            disable=not visible,
        )
        self.task = self.bar.add_task(title, total=None, loss="-", speed="-")
        self.title, self.visible = title, visible
        self.started, self.tenth = (0, 0.0), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = (state.global_step, time.monotonic())
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        if state.is_world_process_zero:
            self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            step, since = self.started
            window = kwargs["train_dataloader"].dataset.context_length * args.train_batch_size
            speed = (state.global_step - step) * window / max(time.monotonic() - since, 1e-9)
            self.bar.update(self.task, loss=f"{logs['loss']:.3f}", speed=f"{speed:,.0f}")
            tenth = 10 * state.global_step // state.max_steps
            if self.visible and not self.bar.console.is_terminal and tenth > self.tenth:
                self.tenth = tenth
                progress = f"{state.global_step}/{state.max_steps} loss {logs['loss']:.3f} {speed:,.0f} tokens/s"
                self.bar.console.print(f"{self.title} {progress}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history = [
            {key: entry[key] for key in ("step", "loss", "learning_rate", "grad_norm")}
            for entry in state.log_history
            if "loss" in entry
        ]

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        self.bar.stop()
