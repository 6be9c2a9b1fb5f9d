"""Seconds of contestants that take turns, wall-clock and processor's; without torch where no GPU is timed."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

Turn = TypeVar("Turn")


class Seconds(NamedTuple):
    """Wall-clock seconds, and the processor's: those say more of a step on CPU when others use the machine too."""

    wall: float
    cpu: float


class Clock:
    """Seconds since it was made, with the device's work done at both ends."""

    def __init__(self, device: object = "cpu") -> None:
        self.cuda = str(device).startswith("cuda")
        self.start = self.now()

    def now(self) -> Seconds:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return Seconds(time.perf_counter(), time.process_time())

    def read(self, steps: int = 1) -> Seconds:
        """For each of ``steps``."""
        return Seconds(*((now - start) / steps for now, start in zip(self.now(), self.start, strict=True)))


def timed(work: Callable[[], object], device: object = "cpu") -> Callable[[], Seconds]:
    """A turn that does ``work``."""

    def turn() -> Seconds:
        clock = Clock(device)
        work()
        return clock.read()

    return turn


def alternate(turns: dict[str, Callable[[], Turn]], repeats: int, warm_up: int = 0) -> dict[str, list[Turn]]:
    """What every contestant's turn returns, ``repeats`` times in turns, so that all meet the same weather.

    Every other round runs backwards, so that none always follows the same one; the first ``warm_up`` do not count.
    """
    order = list(turns)
    rounds = [{name: turns[name]() for name in order[:: -1 if at % 2 else 1]} for at in range(warm_up + repeats)]
    return {name: [each[name] for each in rounds[warm_up:]] for name in turns}


def over(seconds: Sequence[Seconds], base: Sequence[Seconds], name: str) -> dict[str, float]:
    """The median turn, and the median of its time over that of ``base``, called ``name``; the processor's, too."""
    pairs = list(zip(seconds, base, strict=True))
    return {
        "seconds": round(statistics.median(own.wall for own in seconds), 4),
        f"over_{name}": round(statistics.median(own.wall / one.wall for own, one in pairs), 4),
        f"over_{name}_cpu": round(statistics.median(own.cpu / one.cpu for own, one in pairs), 4),
    }


def summary(seconds: Sequence[Seconds]) -> dict[str, float]:
    """Least and median seconds of turns."""
    wall, cpu = zip(*seconds, strict=True)
    return {
        "seconds_min": min(wall),
        "seconds_median": statistics.median(wall),
        "cpu_seconds_min": min(cpu),
        "cpu_seconds_median": statistics.median(cpu),
    }


def ratios(measured: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Every time of ``measured`` over that of ``base``, both with the keys of ``summary``."""
    return {key: round(measured[key] / base[key], 4) for key in measured if "seconds_m" in key}
