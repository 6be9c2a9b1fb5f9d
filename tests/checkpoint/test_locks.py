"""Two processes never write into one folder; nothing that ended keeps others out."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from frozen_glyph.checkpoint import places
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.places import FolderInUse, one_writer, writing

HOLD = """
import sys, time
from frozen_glyph.checkpoint.places import writing
with writing(sys.argv[1], launched="launched" in sys.argv):
    print("in", flush=True)
    sys.stdin.read()
"""
FLOCKLESS = "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOSYS, 'no locks')\nfcntl.flock = flock\n"


@pytest.fixture
def hold():
    """``hold(folder)``: another process, which writes into it until it is killed or its input ends."""
    started = []

    def start(folder, *words, code=HOLD, **environment):
        command = [sys.executable, "-W", "ignore", "-c", code, str(folder), *words]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_writer_is_refused_by_name_until_the_first_has_ended(hold, tmp_path):
    first = hold(tmp_path / "run")
    assert first.stdout.readline() == b"in\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for name in ("run", "link"):  # the same folder, whatever it is called
        with (
            pytest.raises(FolderInUse, match=rf"{name}' is being written by another process; wait"),
            writing(tmp_path / name),
        ):
            pass
    with writing(tmp_path / "other"):
        pass
    first.communicate(b"")
    with writing(tmp_path / "run"):
        assert [path.name for path in tmp_path.glob(".*")] == [".run.lock"]
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("before", ["", FLOCKLESS], ids=["flock", "no-flock"])
def test_what_a_killed_process_left_blocks_nobody(hold, tmp_path, before):
    """Where the file system has locks, and where it has none and a file says who writes."""
    first = hold(tmp_path / "run", code=before + HOLD)
    assert first.stdout.readline() == b"in\n"
    second = hold(tmp_path / "run", code=before + HOLD)
    assert b"FolderInUse" in second.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / ".run.lock").exists()
    third = hold(tmp_path / "run", code=before + HOLD)
    assert third.stdout.readline() == b"in\n"
    third.communicate(b"")
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_launch_pass_and_another_launch_does_not(hold, tmp_path):
    first, second = (hold(tmp_path / "run", "launched", WORLD_SIZE="2", RANK=rank) for rank in ("0", "1"))
    assert (first.stdout.readline(), second.stdout.readline()) == (b"in\n", b"in\n")
    other = hold(tmp_path / "run", "launched", WORLD_SIZE="2", RANK="0")
    assert b"FolderInUse" in other.communicate()[1]
    alone = hold(tmp_path / "run", WORLD_SIZE="2", RANK="1")  # not of those that a launch shares
    assert b"FolderInUse" in alone.communicate()[1]


def test_a_thread_may_enter_again_and_another_may_not(tmp_path):
    refused = []

    @one_writer("out")
    def write(out, inner=None):
        return inner() if inner else "written"

    def other():
        with pytest.raises(FolderInUse):
            write(tmp_path / "a")
        refused.append(True)

    def inner():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return write(out=tmp_path / "a")

    assert (write(tmp_path / "a", inner), refused) == ("written", [True])
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("no locks here")

    monkeypatch.setattr(places.FileLock, "acquire", refuse)
    with writing(tmp_path / "a"):
        pass
    assert "cannot be locked (no locks here); let no other process write into it" in caplog.text


def test_the_lock_lies_in_the_folder_where_its_parent_is_closed(tmp_path, monkeypatch):
    """As where a container has only the folder itself to write to."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(places.os, "access", lambda path, mode: path != tmp_path)
    with writing(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system in which nobody makes a file")
def test_where_no_file_can_be_made_is_not_taken_for_another_writer():
    with (
        pytest.raises(CheckpointError, match="no file can be made in '/proc'; choose another folder"),
        writing("/proc/new"),
    ):
        pass
