"""The first process of a launch prepares for all, longer than any barrier of the launch would wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frozen_glyph.training.launch import first_process_first, told_by_first

WAIT = """
import sys, time
from datetime import timedelta
from pathlib import Path
from torch import distributed
from frozen_glyph.training.launch import first_process_first, told_by_first
distributed.init_process_group("gloo", timeout=timedelta(seconds=2))
first = distributed.get_rank() == 0
assert told_by_first(lambda: time.sleep(4) or {"name": first}) == {"name": True}
file = Path(sys.argv[1])
with first_process_first():
    assert file.exists() != first
    if first:
        time.sleep(4)
        file.touch()
print("done", flush=True)
"""


@pytest.mark.slow
def test_the_others_wait_longer_than_the_launch_allows(tmp_path):
    (tmp_path / "wait.py").write_text(WAIT)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "wait.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, *command, str(tmp_path / "made")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("done") == 2


def test_alone_nobody_waits():
    with first_process_first():
        assert told_by_first(lambda: 3) == 3
