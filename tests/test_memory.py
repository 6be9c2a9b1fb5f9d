"""Peak memory is in bytes on Linux and macOS, and unknown where there is no ``resource`` module."""

import sys
from types import SimpleNamespace

import pytest

from frozen_glyph.memory import peak_memory


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
