"""Peak memory is in bytes on Linux and macOS, and unknown where there is no ``resource`` module."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from frozen_glyph.memory import NotEnoughMemory, enough_memory, peak_memory


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_unit_of_the_system_is_known(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", used)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory() == 5000 * unit


def test_a_system_without_resource_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: importing it fails
    assert peak_memory() is None


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="systems that keep a record of it")
def test_the_peak_of_this_process_holds_what_it_allocated() -> None:
    before = peak_memory()
    block = bytearray(b"\1") * (64 << 20)
    after = peak_memory()
    assert before is not None and after is not None
    assert len(block) <= after < 1 << 45 and after >= before


CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 14.57 GiB of which 3.25 GiB is "
    "free.\nProcess 1 has 2 GiB in use. See documentation for Memory Management (https://pytorch.org)"
)
ERRORS = [
    (lambda: torch.OutOfMemoryError(CUDA), "20.00 GiB more were asked for"),
    (lambda: torch.empty(1 << 60), r"\d+ bytes more were asked for"),
    (lambda: numpy.empty(1 << 58), "Unable to allocate"),
    (MemoryError, "MemoryError"),
]


@pytest.mark.parametrize(("make", "said"), ERRORS)
def test_no_memory_left_is_one_line_that_says_what_to_lower(make: Any, said: str) -> None:
    with (
        pytest.raises(NotEnoughMemory, match=f"^training: out of memory \\(.*{said}.*\\); lower x$") as caught,
        enough_memory("training", "lower x"),
    ):
        raise make()
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("training", "lower x"):
        raise RuntimeError("shapes do not fit")
