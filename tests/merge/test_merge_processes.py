"""Merges that are killed, that run out of disk, and that fetch from a Hub: real processes, nothing half written."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from hub_server import LoopbackHub

from frozen_glyph import merge_experts
from frozen_glyph.checkpoint import files
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file, target_of
from frozen_glyph.checkpoint.places import FolderInUse
from frozen_glyph.merge import write
from frozen_glyph.merge.plan import plan_merge
from frozen_glyph.merge.recipe import MergeRecipe

MERGE = [sys.executable, "-m", "frozen_glyph.cli", "merge"]
# A merge that stops in the middle of a shard, as a slow disk would make it.
SLOW = """
import os, sys, time
from frozen_glyph.checkpoint import streaming
from frozen_glyph.merge.write import merge_experts
real = streaming.copy_tensor
def slowly(*arguments):
    real(*arguments)
    os.write(1, b"copied" + bytes([10]))  # at once, also from several threads
    time.sleep(60)
streaming.copy_tensor = slowly
merge_experts(sys.argv[1:3], sys.argv[3])
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_and_merged_again(experts, merged_folder, tmp_path):
    out = tmp_path / "m"
    process = subprocess.Popen([sys.executable, "-c", SLOW, *map(str, [*experts, out])], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"copied\n"
    (left,) = (name for name in names(tmp_path) if name != ".m.lock")
    assert target_of(tmp_path / left) == "m"
    with pytest.raises(FolderInUse, match="m' is being written by another process"):  # it lives, and nothing is touched
        merge_experts(experts, out)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert names(tmp_path) == sorted([left, ".m.lock"])
    merge_experts(experts, out)
    assert names(tmp_path) == ["m"]
    assert names(out) == names(merged_folder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_nothing(experts, tmp_path):
    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [*MERGE, *map(str, experts), "-o", str(tmp_path / "m")],
        capture_output=True, text=True, preexec_fn=small, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "safetensors' cannot be written: File too large; make room or choose another disk" in line
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_told_before(experts, tmp_path, monkeypatch):
    plan = plan_merge(MergeRecipe([str(folder) for folder in experts]))
    space = type("Space", (), {"free": plan.bytes_to_write + write.SPARE_BYTES - 1})
    monkeypatch.setattr(write.shutil, "disk_usage", lambda path: space)
    with pytest.raises(CheckpointError, match=r"needs [\d,]+ bytes, its disk has [\d,]+ free"):
        write.write_merged(plan, tmp_path / "deep" / "m")
    assert names(tmp_path) == []
    space.free += 1
    assert (write.write_merged(plan, tmp_path / "m") / "provenance.json").exists()


def test_bytes_to_write_are_those_written(experts, merged_folder):
    plan = plan_merge(MergeRecipe([str(folder) for folder in experts]))
    shards = [path for path in merged_folder.glob("*.safetensors") if path.name != "substrate.safetensors"]
    assert plan.bytes_to_write == sum(files.read_header(path).nbytes for path in shards)
    assert (merged_folder / "substrate.safetensors").samefile(experts[0] / "substrate.safetensors")


@pytest.fixture(scope="module")
def hub(experts):
    with LoopbackHub() as hub:
        for name in ("zh", "dry", "damaged"):
            hub.commit_folder(f"user/{name}", experts[1])
        whole = hub.repos["user/damaged"][-1][1]
        shard = whole["blocks-1.safetensors"]
        hub.commit("user/damaged", whole | {"blocks-1.safetensors": shard[:-1] + bytes([shard[-1] ^ 1])})
        yield hub


class TestHub:
    def client(self, hub, home, *words):
        return subprocess.run(
            [*MERGE, *map(str, words)], env=hub.client_environment(home), capture_output=True, text=True, timeout=300
        )

    def test_one_stage_of_an_expert_on_a_hub(self, hub, experts, tmp_path):
        done = self.client(hub, tmp_path / "hf", experts[0], "user/zh@1", "-o", tmp_path / "m")
        assert done.returncode == 0, done.stderr
        local = merge_experts([experts[0], f"{experts[1]}@1"], tmp_path / "local" / "m")
        for path in local.glob("*.safetensors"):
            assert sha256_file(tmp_path / "m" / path.name) == sha256_file(path)
        shards = {name for name in hub.fetched("user/zh") if name.endswith(".safetensors")}
        assert shards == {"substrate.safetensors", "blocks-1.safetensors", "head-1.safetensors"}
        parent = json.loads((tmp_path / "m" / "provenance.json").read_text())["parents"][1]
        assert (parent["name"], parent["revision"], parent["stage"]) == ("user/zh", hub.repos["user/zh"][-1][0], 1)

    def test_a_dry_run_fetches_headers_only(self, hub, experts, tmp_path):
        done = self.client(hub, tmp_path / "hf", experts[0], "user/dry", "--dry-run", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        local = plan_merge(MergeRecipe([str(folder) for folder in experts])).report()
        assert {key: found[key] for key in ("parameters", "bytes", "saved_bytes")} == {
            key: local[key] for key in ("parameters", "bytes", "saved_bytes")
        }
        assert not list((tmp_path / "hf").glob("hub/models--user--dry/snapshots/*/*.safetensors"))

    def test_errors_are_one_line(self, hub, experts, tmp_path):
        for source, message in (("user/nobody", "cannot be fetched from the Hub"), ("user/damaged", "is damaged")):
            done = self.client(hub, tmp_path / "hf", experts[0], source, "-o", tmp_path / "m")
            assert done.returncode == 1
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert message in line
            assert not list(tmp_path.glob("*m*"))
