"""Files appear whole or not at all, with the user's permissions; unreadable ones are refused by name."""

import os
import stat

import pytest
import torch

from frozen_glyph.checkpoint.files import (
    CheckpointError,
    check_hashes,
    copy_file,
    read_json,
    read_tensors,
    sha256_file,
    sha256_json,
    write_atomically,
    write_json,
    write_tensors,
    write_text,
)


@pytest.fixture
def tensors():
    return {"a": torch.arange(600, dtype=torch.float32).reshape(20, 30), "b": torch.tensor([7, 8], dtype=torch.uint8)}


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "folder" / "file.txt"  # the folder is made
    write_text(path, "old")
    write_atomically(path, lambda temporary: temporary.write_text(path.read_text() + " and new"))
    assert path.read_text() == "old and new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, tensors, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "text", "x")
        write_tensors(tmp_path / "tensors", tensors)
        copy_file(tmp_path / "text", tmp_path / "copy")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_json_keeps_order_and_letters(tmp_path):
    value = {"б": [1, 2.5, None], "a": "猫"}
    write_json(tmp_path / "x.json", value)
    assert (tmp_path / "x.json").read_text("utf-8").startswith('{\n  "б"')
    assert read_json(tmp_path / "x.json") == value


def test_hash_of_json_ignores_key_order_only():
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) != sha256_json({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b'{"a": "\xff"}'])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged: .+; fetch or write"):
        read_json(tmp_path / "config.json")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json' does not exist"):
        read_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"blocks\.safetensors' cannot be read"):
        read_tensors(tmp_path / "blocks.safetensors")


def test_tensors_come_back_bit_exactly(tmp_path, tensors):
    write_tensors(tmp_path / "x.safetensors", {"transposed": tensors["a"].T, **tensors})
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == {"transposed", "a", "b"}
    assert torch.equal(found["transposed"], tensors["a"].T)
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_tensors_are_named(tmp_path, tensors, kept):
    path = tmp_path / "blocks.safetensors"
    write_tensors(path, tensors)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"blocks\.safetensors' cannot be read: .+; fetch or write"):
        read_tensors(path)


def test_hashes_name_the_file_that_is_missing_or_changed(tmp_path):
    for name in ("one", "two"):
        write_text(tmp_path / name, name)
    hashes = {name: sha256_file(tmp_path / name) for name in ("one", "two")}
    check_hashes(tmp_path, hashes)
    write_text(tmp_path / "two", "twO")
    with pytest.raises(CheckpointError, match=r"two' is damaged: sha256"):
        check_hashes(tmp_path, hashes)
    (tmp_path / "two").unlink()
    with pytest.raises(CheckpointError, match=r"two' is missing"):
        check_hashes(tmp_path, hashes)
