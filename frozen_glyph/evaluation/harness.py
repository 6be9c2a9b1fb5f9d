"""Run lm-evaluation-harness on a checkpoint folder through its Python API.

Task definitions come from ``eval/tasks`` (in a wheel: ``frozen_glyph/evaluation/tasks``); lm-eval's own thousands of
task files are not read, which saves seconds at every start. https://github.com/EleutherAI/lm-evaluation-harness
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frozen_glyph.errors import FrozenGlyphError, nearest


class MissingDataError(FrozenGlyphError):
    """A benchmark's file is not in the data folder."""


_CHATTY_LOGGERS = ("lm_eval", "datasets", "evaluate")


def tasks_folder() -> Path:
    """Return the folder of task YAMLs: the wheel's copy, else ``eval/tasks`` of the source checkout."""
    installed = Path(__file__).parent / "tasks"
    checkout = Path(__file__).parents[2] / "eval" / "tasks"
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise FrozenGlyphError(
        f"task definitions are missing: neither {str(installed)!r} nor {str(checkout)!r} exists; reinstall"
    )


def task_names() -> list[str]:
    """Return the names of all tasks this package defines."""
    return sorted(path.stem for path in tasks_folder().glob("*.yaml"))


def check_tasks(names: Sequence[str]) -> None:
    """Raise an error that names the first unknown task and the nearest known one."""
    known = task_names()
    for name in names:
        if name not in known:
            raise FrozenGlyphError(f"task {name!r} is unknown; tasks are {', '.join(known)}.{nearest(name, known)}")


def check_model_folder(folder: Path) -> None:
    """Raise an error if ``folder`` is no checkpoint folder."""
    if not (folder / "config.json").is_file():
        raise FrozenGlyphError(
            f"model folder {str(folder)!r} has no config.json; give a folder written by save_pretrained, grow or merge"
        )


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Let only errors of lm-eval's loggers through; its progress bars are no log records and stay."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load_lm(model_dir: str | Path, batch_size: int = 16, device: str | None = None, **config_overrides: Any) -> Any:
    """Load a checkpoint folder as lm-eval's ``HFLM``; ``.model`` and ``.tokenizer`` are the transformers objects.

    Importing frozen_glyph registers its classes, so its checkpoints need no ``trust_remote_code`` here.
    ``config_overrides`` (for example ``rule="posterior"``) go to ``from_pretrained``.
    """
    check_model_folder(Path(model_dir))
    import torch
    from lm_eval.models.huggingface import HFLM

    import frozen_glyph  # noqa: F401  registers the Auto classes

    with _quiet_loggers():
        return HFLM(
            pretrained=str(model_dir),
            batch_size=batch_size,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            **config_overrides,
        )


def load_tasks(tasks: Sequence[str], data_dir: str | Path) -> Any:
    """Read the tasks and their items from ``data_dir``; a missing file is an error that names it."""
    from lm_eval.tasks import TaskManager

    with _quiet_loggers():
        manager = TaskManager(
            include_path=str(tasks_folder()), include_defaults=False, metadata={"data": str(data_dir)}
        )
        try:
            return manager.load(list(tasks))
        except FileNotFoundError as error:
            raise MissingDataError(str(error)) from None


def run_lm_eval(
    model: str | Path | Any,
    tasks: Sequence[str],
    data_dir: str | Path,
    limit: int | None = None,
    batch_size: int = 16,
    device: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Run ``tasks`` over the local files of ``data_dir`` and return lm-eval's results, every item under ``samples``.

    ``model`` is a checkpoint folder or what ``load_lm`` returned. ``limit`` is the number of items of each task.
    """
    check_tasks(tasks)
    lm = load_lm(model, batch_size, device) if isinstance(model, str | Path) else model
    # evaluate() and not simple_evaluate(): the latter runs pip and git each time to describe the machine.
    from lm_eval import evaluate
    from transformers import set_seed

    set_seed(seed)
    with _quiet_loggers():
        # Intervals are computed from the items, in statistics.py; lm-eval's own bootstrap is not needed.
        results = evaluate(lm, load_tasks(tasks, data_dir), limit=limit, bootstrap_iters=0, log_samples=True)
    if results is None:
        raise FrozenGlyphError("lm-eval returns results on rank 0 only; run this in a single process")
    return results
