"""`frozen-glyph inspect` and `to-dense`: what they show, write and refuse."""

import json
import shutil

import pytest


def test_inspect_prints_a_table_or_json(run, experts):
    code, out, _ = run("inspect", experts[0])
    assert code == 0
    assert "ru: growth" in out
    code, out, _ = run("inspect", experts[0], "--json", "--verify")
    facts = json.loads(out)
    assert (code, facts["name"], facts["verified"]) == (0, "ru", True)
    assert [stage["layers"] for stage in facts["stages"]] == [1, 2]


def test_a_damaged_folder_has_exit_code_1(run, experts, tmp_path):
    folder = shutil.copytree(experts[0], tmp_path / "run")
    (folder / "blocks-2.safetensors").unlink()
    code, out, _ = run("inspect", folder)
    assert code == 1
    assert "blocks-2.safetensors" in out


def test_inspect_refuses_what_is_no_checkpoint(refused, tmp_path):
    assert "has no config.json" in refused("inspect", tmp_path)


def test_to_dense_writes_a_checkpoint(run, experts, tmp_path):
    code, out, err = run("to-dense", f"{experts[1]}@1", "-o", tmp_path / "dense")
    assert (code, out.split(), err) == (0, ["dense:", str(tmp_path / "dense")], "")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert (config["substrate_dense"], config["num_hidden_layers"]) == (True, 1)


def test_to_dense_writes_a_starcoder2(run, experts, tmp_path):
    code, out, err = run("to-dense", experts[1], "-o", tmp_path / "stock", "--starcoder2")
    assert (code, out.split(), err) == (0, ["dense:", str(tmp_path / "stock")], "")
    assert json.loads((tmp_path / "stock" / "config.json").read_text())["model_type"] == "starcoder2"


def test_to_gguf_writes_a_file(run, experts, tmp_path):
    pytest.importorskip("gguf", reason="gguf writes the file")
    code, out, err = run("to-gguf", f"{experts[1]}@1", "-o", tmp_path / "zh.gguf")
    assert (code, out.split(), err) == (0, ["gguf:", str(tmp_path / "zh.gguf")], "")
    assert (tmp_path / "zh.gguf").read_bytes()[:4] == b"GGUF"


def test_to_dense_refuses_what_cannot_be_exported(refused, experts, tmp_path):
    assert "no' is no folder and cannot be fetched" in refused("to-dense", tmp_path / "no", "-o", tmp_path / "dense")
    assert "has no stage 7; its stages are 1..2" in refused("to-dense", f"{experts[0]}@7", "-o", tmp_path / "dense")
    assert "is not empty; choose a new folder" in refused("to-dense", experts[0], "-o", experts[1])
