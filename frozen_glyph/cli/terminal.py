"""What commands write to the terminal with."""

import json
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print ``value`` for programs: JSON on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def quiet_transformers() -> None:
    """Leave the terminal to our own progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
