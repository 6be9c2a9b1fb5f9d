"""One bar over all measurements of an evaluation (in a log file a line for each model)."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from frozen_glyph.errors import printable


class MeasuringBar:
    """Says which model is measured on what, and how many of ``total`` measurements are done."""

    def __init__(self, total: int, visible: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),  # standard output is for results
            disable=not visible,
        )
        self._task = self._bar.add_task("", total=total)
        self._in_lines = visible and not self._bar.console.is_terminal
        self._model: str | None = None

    def __enter__(self) -> "MeasuringBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def measuring(self, model: str, what: str) -> None:
        """``model`` is being measured on ``what``."""
        model, what = printable(model), printable(what)
        self._bar.update(self._task, description=f"{model}: {what}")
        if self._in_lines and model != self._model:
            self._bar.console.print(f"measuring {model}", markup=False, highlight=False)
        self._model = model

    def done(self) -> None:
        """One more measurement is there, new or kept from an earlier run."""
        self._bar.advance(self._task)
