"""``frozen-glyph inspect --health``: table, JSON, picture and exit code, and what is refused."""

import json
import re
import sys

import pytest

from frozen_glyph import cli, replace_linear
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.health.checkpoint import measure_health, text_batch
from frozen_glyph.health.measure import METRICS, flags


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "read.txt"
    path.write_text("The cat sat on the mat, and the hat is on the cat. Кот сидел на окне. 猫坐在垫子上。\n" * 60)
    return path


@pytest.fixture(scope="module")
def folders(build_model, tokenizer, tmp_path_factory):
    """A healthy checkpoint and its negative control."""
    found = {}
    for name in ("healthy", "additive"):
        model = build_model(1)
        if name == "additive":
            replace_linear(model, "additive", "layers.1.*")
        found[name] = tmp_path_factory.mktemp("checkpoints") / name
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


def test_the_table_and_the_picture(run, folders, text_file, tmp_path):
    code, out, _ = run("--health", folders["healthy"], "--text", text_file)
    assert code == 0 and "No block is flagged." in out
    assert all(metric.title in out for metric in METRICS.values())
    assert out.count("mlp.fc_out") == 2 and re.search(r"healthy: 32 x 64 tokens, \d\.\d{3} nats per token", out)
    picture = tmp_path / "health.png"
    code, out, _ = run("--health", folders["additive"], "--text", text_file, "--picture", picture)
    assert code == 1 and "model.layers.1: self_attn.q_proj: its gradient has one direction (grad rank 1)" in out
    assert "model.layers.0: " not in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_is_what_measure_found(run, folders, text_file):
    code, out, _ = run("--health", folders["additive"], "--text", text_file, "--json")
    found, again = json.loads(out), measure_health(folders["additive"], text_file)
    assert code == 1 and found["collapsed"] == ["model.layers.1"]
    assert found["blocks"] == json.loads(json.dumps(again["blocks"]))


def test_a_stage_can_be_chosen(experts, text_file):
    assert len(measure_health(f"{experts[1]}@1", text_file)["blocks"]) == 1
    assert len(measure_health(experts[1], text_file)["blocks"]) == 3


def test_what_is_missing_is_said(run, folders, tmp_path, tokenizer):
    assert run("--health", folders["healthy"])[0] == 2
    code, _, err = run("--health", folders["healthy"], "--text", tmp_path / "none.txt")
    assert code == 1 and "none.txt' does not exist" in err
    with pytest.raises(FrozenGlyphError, match=r"tokens; health needs 3 windows of 64: give a longer text"):
        text_batch("The cat sat.", tokenizer)


def test_windows_are_spread_over_the_text(tokenizer, text_file):
    batch = text_batch(text_file.read_text(), tokenizer, length=16, count=5)
    ids = tokenizer(text_file.read_text(), add_special_tokens=False)["input_ids"]
    assert batch.shape == (5, 16) and batch[0].tolist() == ids[:16]
    assert batch[-1].tolist() == ids[(len(ids) // 16 - 1) * 16 : len(ids) // 16 * 16]


def test_thresholds_flag_what_lies_beyond_them():
    assert flags({"move": 1e-3, "gradient_rank": 9.0, "off_diagonal": None}) == []
    assert flags({"move": 9e-4}) == ["adds next to nothing to the residual stream (move 0.0009)"]
    assert [len(flags({"update_ratio": value})) for value in (0.0, 1e-3, 2.0)] == [1, 0, 1]
