"""Bytes that are streamed from file to file are what loading, concatenating and saving gives."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from frozen_glyph.checkpoint import streaming
from frozen_glyph.checkpoint.files import CheckpointError, read_header, sha256_tensor, write_tensors
from frozen_glyph.checkpoint.streaming import Joined, Window, content_sha256, hash_window, write_shard

PIECES = [64, 1 << 10, 1 << 18]


@pytest.fixture
def pairs(tmp_path):
    """Two files of the same names and shapes, other values."""
    shapes = {"matrix": (37, 12), "vector": (37,), "scalar": (), "half": (5, 3)}
    found = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        tensors["half"] = tensors["half"].bfloat16()
        tensors["bits"] = torch.randint(256, (9, 5), dtype=torch.uint8, generator=generator)
        write_tensors(tmp_path / f"{seed}.safetensors", tensors)
        found.append((tmp_path / f"{seed}.safetensors", tensors))
    return found


def window(path, name):
    return Window.whole(path, read_header(path).tensors[name])


@pytest.mark.parametrize("piece", PIECES)
def test_a_copy_is_the_file_that_write_tensors_writes(pairs, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(streaming, "PIECE_BYTES", piece)
    path, tensors = pairs[0]
    windows = {name: window(path, name) for name in tensors}
    content, found = write_shard(tmp_path / "copy", {name: Joined.alone(one) for name, one in windows.items()})
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert content == read_header(path).content_sha256 == content_sha256(path)
    assert found == {windows[name]: sha256_tensor(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("order", [(0, 1), (1, 0, 0)])
def test_joined_and_cut_apart_again(pairs, tmp_path, monkeypatch, piece, order):
    monkeypatch.setattr(streaming, "PIECE_BYTES", piece)
    chosen, count = [pairs[index] for index in order], len(order)
    joined = {
        "lm_head.weight": Joined.side_by_side(tuple(window(path, "matrix") for path, _ in chosen)),
        "lm_head.bias": Joined.stacked(tuple(window(path, "vector") for path, _ in chosen)),
    }
    content, _ = write_shard(tmp_path / "head", joined)
    found = load_file(tmp_path / "head")
    assert torch.equal(found["lm_head.weight"], torch.cat([tensors["matrix"] for _, tensors in chosen], dim=1))
    assert torch.equal(found["lm_head.bias"], torch.stack([tensors["vector"] for _, tensors in chosen]))
    assert content == read_header(tmp_path / "head").content_sha256 == content_sha256(tmp_path / "head")
    weight, bias = window(tmp_path / "head", "lm_head.weight"), window(tmp_path / "head", "lm_head.bias")
    for index, (_, tensors) in enumerate(chosen):
        parts = {"matrix": weight.columns(index, count), "vector": bias.row(index)}
        write_shard(tmp_path / "again", {name: Joined.alone(part) for name, part in parts.items()})
        for name, tensor in load_file(tmp_path / "again").items():
            assert torch.equal(tensor, tensors[name])
            assert hash_window(parts[name]) == sha256_tensor(tensors[name])


@pytest.mark.parametrize("name", ["lm_head.weight", "lm_head.bias"])
def test_the_hash_of_a_joined_file_sees_every_bit(pairs, tmp_path, name):
    parts = {"lm_head.weight": (Joined.side_by_side, "matrix"), "lm_head.bias": (Joined.stacked, "vector")}
    joined = {key: join(tuple(window(path, part) for path, _ in pairs)) for key, (join, part) in parts.items()}
    content, _ = write_shard(tmp_path / "head", joined)
    data = bytearray((tmp_path / "head").read_bytes())
    data[read_header(tmp_path / "head").tensors[name].start + 9] ^= 1
    (tmp_path / "head").write_bytes(data)
    assert content_sha256(tmp_path / "head") != content


def test_contents_depend_on_names_types_shapes_and_values_only(tmp_path):
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2)}
    write_tensors(tmp_path / "x", tensors)
    save_file(dict(reversed(tensors.items())), tmp_path / "plain", metadata={"format": "pt"})
    content = content_sha256(tmp_path / "x")
    assert content == content_sha256(tmp_path / "plain")
    others = [{"a": tensors["a"], "c": tensors["b"]}, {**tensors, "a": tensors["a"].reshape(2, 3)}]
    others += [{**tensors, "a": tensors["a"].int()}, {**tensors, "b": -tensors["b"]}, {"a": tensors["a"]}]
    for other in others:
        write_tensors(tmp_path / "y", other)
        assert content_sha256(tmp_path / "y") != content


def test_known_hashes_are_not_read_again(pairs):
    path, tensors = pairs[0]
    known = {window(path, name): sha256_tensor(tensor) for name, tensor in tensors.items()}
    content = content_sha256(path)
    path.write_bytes(path.read_bytes()[: read_header(path).tensors["half"].start].ljust(path.stat().st_size, b"?"))
    assert content_sha256(path, known) == content != content_sha256(path)


def test_a_source_that_ends_early_is_named(pairs, tmp_path):
    path, _ = pairs[0]
    whole = window(path, "matrix")
    path.write_bytes(path.read_bytes()[: whole.start + 100])
    with pytest.raises(CheckpointError, match=r"0\.safetensors' cannot be read: it ended while it was read"):
        write_shard(tmp_path / "copy", {"matrix": Joined.alone(whole)})
    assert {entry.name for entry in tmp_path.iterdir()} == {"0.safetensors", "1.safetensors"}
