"""Peak memory is in bytes on Linux and macOS, unknown elsewhere; freed memory goes back where it can."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from frozen_glyph import memory
from frozen_glyph.memory import give_back, peak_memory


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


@pytest.mark.skipif(memory.malloc_trim() is None, reason="the C library keeps no freed memory that it could give back")
def test_freed_memory_is_given_back() -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) >> 10

    pieces = [b"\1" * (100_000 + number) for number in range(500)]
    held = resident()
    last = pieces[-1]  # above all others, so that they stay in the process
    pieces.clear()
    give_back()
    assert held - resident() > 40
    assert len(last) == 100_499


def test_other_systems_keep_what_they_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.malloc_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.malloc_trim() is None
    give_back()
    memory.malloc_trim.cache_clear()
