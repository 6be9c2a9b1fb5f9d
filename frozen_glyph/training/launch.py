"""The processes of one launch where the first one prepares what all use: hours may pass, and no time-out ends the wait.

Barriers of transformers and accelerate end after the minutes that the launch's own group allows. These wait in a group
of their own, on the CPU, whatever the devices speak; where the first process fails, its end is theirs too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from torch import distributed

PATIENCE = timedelta(days=365)
Made = TypeVar("Made")


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process of the launch runs the block, then all others do."""
    if launched() and distributed.get_rank() != 0:
        distributed.barrier(patient_group())
    yield
    if launched() and distributed.get_rank() == 0:
        distributed.barrier(patient_group())


def told_by_first(make: Callable[[], Made]) -> Made:
    """What ``make`` gives in the first process, in every process of the launch."""
    if not launched():
        return make()
    made: list[Any] = [make() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(made, src=0, group=patient_group())
    return made[0]


def launched() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@cache
def patient_group() -> Any:
    """All processes, on the CPU; each of them asks for it at the same place."""
    return distributed.new_group(backend="gloo", timeout=PATIENCE)
