"""What happens between steps: when to log, and when to stop early."""

from typing import Any

from transformers import TrainerCallback


class LogAtCheckpoints(TrainerCallback):
    """Log with every checkpoint and evaluation too, so that a resumed run logs what an uninterrupted one does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log |= control.should_save or control.should_evaluate


class Patience(TrainerCallback):
    """Stop after ``patience`` evaluations in a row without a new lowest held-out loss.

    All it knows is the history that the checkpoint holds, so it survives a resume.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if len(losses) - 1 - losses.index(min(losses)) >= self.patience:
            control.should_training_stop = control.should_save = True
