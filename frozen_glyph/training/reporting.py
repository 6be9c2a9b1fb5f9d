"""Where metrics are reported to besides the folder itself."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations import get_available_reporting_integrations

from frozen_glyph.recipes.errors import RecipeError

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
