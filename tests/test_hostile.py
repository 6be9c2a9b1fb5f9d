"""Bombs, numbers that are none, and names that command a terminal: refused in one line, or shown as text.

``test_fuzz.py`` tries many at random; these are the kinds that it found, and those that it cannot make.
"""

import gzip
import json
import os
import shutil
import sqlite3

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from frozen_glyph import (
    FrozenGlyphForCausalLM,
    FrozenGlyphMoEForCausalLM,
    build_tokenizer,
    cli,
    export_dense,
    merge_experts,
    reweigh_experts,
)
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.dtypes import holds_nan
from frozen_glyph.checkpoint.files import CheckpointError, read_json
from frozen_glyph.checkpoint.loading import load_config, load_tokenizer
from frozen_glyph.checkpoint.manifest import Manifest
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.cli.terminal import print_json, say
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.tasks.mirror_folder import read_manifest
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.growth.work_folder import open_work
from frozen_glyph.merge.tune import tune_head
from frozen_glyph.substrate import font, load_font
from frozen_glyph.text import documents
from frozen_glyph.text.documents import SourceError, TextFileError, file_documents, read_text
from frozen_glyph.training.trainer import newest_checkpoint


@pytest.fixture
def copied(experts, merged_folder, tmp_path):
    """``copied(file=change)``: a copy of a folder that an earlier version wrote, with JSON files changed in place."""

    def make(merged=False, **changes):
        folder = shutil.copytree(merged_folder if merged else experts[0], tmp_path / "copied")
        provenance = json.loads((folder / "provenance.json").read_text())
        provenance.pop("companions", None)  # an earlier version did not record what lies beside the shards
        (folder / "provenance.json").write_text(json.dumps(provenance))
        for name, change in changes.items():
            path = folder / f"{name}.json"
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        return folder

    return make


def test_a_font_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(font, "FONT_BYTES", 1000)
    bomb = tmp_path / "bomb.hex.gz"
    bomb.write_bytes(gzip.compress(b"0041:" + b"0" * 10_000))
    with pytest.raises(font.FontError, match=r"bomb\.hex\.gz' unpacks to more than 1,000 bytes, the limit"):
        load_font(bomb)
    (tmp_path / "large.hex").write_bytes(b"0" * 1001)
    with pytest.raises(font.FontError, match=r"large\.hex' is too large for a font: .* 1,000 bytes, the limit"):
        load_font(tmp_path / "large.hex")


def test_a_damaged_gzip_font_is_named(tmp_path):
    path = tmp_path / "some.hex.gz"
    content = bytearray(gzip.compress(b"0041:" + b"0" * 32 + b"\n" * 1000))
    content[15] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(font.FontError, match=r"some\.hex\.gz' is a damaged gzip file"):
        load_font(path)


@pytest.mark.parametrize("name", ["some.jsonl", "some.jsonl.gz"])
def test_a_line_without_end_is_refused_by_number(tmp_path, monkeypatch, name):
    monkeypatch.setattr(documents, "LONGEST_LINE", 100)
    text = b'{"text": "a"}\n{"text": "' + b"b" * 200 + b'"}\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(SourceError, match="line 2 has more than 100 characters, the limit"):
        list(file_documents(tmp_path / name))


@pytest.mark.parametrize("name", ["some.txt", "some.txt.gz"])
def test_a_text_that_is_read_as_a_whole_has_a_limit(tmp_path, monkeypatch, name):
    monkeypatch.setattr(documents, "LONGEST_TEXT", 100)
    text = b"a" * 101
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(TextFileError, match=f"{name}' has more than 100 characters, the limit"):
        read_text(tmp_path / name)


def test_half_a_character_is_named_with_its_line(tmp_path):
    """A lone surrogate would reach the tokenizer, which says TypeError and no place."""
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "a"}\n{"text": "\\ud800"}\n')
    with pytest.raises(SourceError, match=r"some\.jsonl' line 2 is not JSON: it has U\+D800"):
        list(file_documents(path))


def test_a_parquet_text_that_is_not_utf8_is_named_with_its_row(tmp_path):
    path = tmp_path / "some.parquet"
    wrong = pyarrow.array([b"good", b"also", b"\xff\xfe"]).cast(pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": wrong}), path)
    with pytest.raises(SourceError, match=r"some\.parquet' row 3: field 'text' is not UTF-8"):
        list(file_documents(path))


@pytest.mark.parametrize("dtype", ["F32", "F64", "BF16", "F16"])
def test_what_is_no_number_is_seen_in_every_type(dtype):
    kinds = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16}
    fine = torch.tensor([[0.0, -1.0, 65000.0, float("inf"), -float("inf"), 1e-7]], dtype=kinds[dtype])
    wrong = torch.cat([fine, torch.tensor([[float("nan")]], dtype=kinds[dtype])], dim=1)
    for tensor, expected in ((fine, False), (wrong, True), (-wrong, True)):
        assert holds_nan(tensor.view(torch.uint8).numpy(), dtype) is expected
    assert not holds_nan(np.full((1, 8), 0xFF, np.uint8), "U8")
    assert not holds_nan(np.empty((0, 8), np.uint8), dtype)


def test_an_expert_that_holds_nan_is_not_merged(experts, tmp_path):
    """A diverged expert makes every mean of logits NaN: its file and tensor are named, and nothing is written."""
    folder = shutil.copytree(experts[0], tmp_path / "diverged")
    path = folder / "head-2.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][3, 5] = float("nan")
    save_file(tensors, path)  # without a hash: as another tool would write it
    (folder / "provenance.json").unlink()
    index = folder / "stage-2.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["metadata"]["content_sha256"]
    for name in (index.name, "model.safetensors.index.json"):
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"head-2\.safetensors' holds NaN in lm_head\.weight"):
        merge_experts([folder, experts[1]], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def refused_at_once(load, *places):
    with pytest.raises(ValueError) as error:
        load()
    assert len(str(error.value).splitlines()) == 1
    assert any(place in str(error.value) for place in places), error.value


def test_a_load_makes_no_more_than_the_shards_hold(copied, merged_folder, tmp_path):
    """Of sizes that only config.json claims nothing is made: headers are looked at before the model is built."""
    folder = copied(config=lambda config: config.update(vocab_size=2**23, intermediate_size=2**19))
    refused_at_once(lambda: FrozenGlyphForCausalLM.from_pretrained(folder), "vocab_size=8388608")
    shutil.rmtree(folder)
    folder = copied(config=lambda config: config.update(num_hidden_layers=10_000, ladder=None))
    refused_at_once(lambda: FrozenGlyphForCausalLM.from_pretrained(folder), "num_hidden_layers=10000")
    shutil.rmtree(folder)
    folder = copied(merged=True, config=lambda config: config["experts"][0].update(num_hidden_layers=9_000))
    refused_at_once(lambda: FrozenGlyphMoEForCausalLM.from_pretrained(folder), "num_hidden_layers=")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b'{"truncation": true}'),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"eos_token": {"a": 1}}'),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", b"5"),
    ],
)
def test_a_damaged_tokenizer_is_one_line_that_names_its_folder(copied, name, content):
    folder = copied()
    (folder / name).write_bytes(content)
    with pytest.raises(FrozenGlyphError, match="copied") as error:
        load_tokenizer(folder)
    assert len(str(error.value).splitlines()) == 1


def test_a_damaged_configuration_is_one_line_that_names_its_folder(copied, tmp_path):
    folder = copied(config=lambda config: config.update(hidden_size=33))
    for load in (load_config, lambda folder: export_dense(folder, tmp_path / "out")):
        with pytest.raises(ValueError, match="copied") as error:
            load(folder)
        assert len(str(error.value).splitlines()) == 1


def test_a_checkpoint_of_training_without_its_state_is_passed_over(tmp_path, caplog):
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"finished": false, "files": {}}')
    (folder / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
    assert "trainer_state.json' is damaged: global_step is missing" in caplog.text
    (folder / "trainer_state.json").write_text('{"global_step": 3, "log_history": [{"step": 3, "loss": 1.0}]}')
    assert newest_checkpoint(tmp_path) == folder


NASTY = "ru\x1b[31m\x9b2J\u202e[/red]\n"


def test_what_is_said_commands_no_terminal(capsys):
    say(f"merged: {NASTY}")
    assert capsys.readouterr().out == r"merged: ru\x1b[31m\x9b2J\u202e[/red]\n" + "\n"


def test_json_stays_json_whatever_it_holds(capsys):
    print_json({"name": NASTY, "loss": float("nan"), "of": [float("inf"), 1.5], "кот": "猫\U0001f600"})
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "кот" in out
    assert json.loads(out) == {"name": NASTY, "loss": None, "of": [None, 1.5], "кот": "猫\U0001f600"}


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("maximum recursion depth exceeded"),
        MemoryError(),
        SafetensorError("No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        pyarrow.ArrowInvalid("bad\nfile"),
        type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})("capacity overflow"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_libraries_raise_is_one_line(error, monkeypatch, capsys):
    def fail(**options):
        raise error

    monkeypatch.delenv("FROZEN_GLYPH_DEBUG", raising=False)
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and line.startswith("error: ") and len(line) > len("error: ")


def test_a_fault_of_our_own_shows_where_it_happened(monkeypatch):
    def fail(**options):
        raise KeyError("a fault")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(KeyError):
        cli.main()


def test_a_vocabulary_of_any_size_is_refused_before_memory_is():
    with pytest.raises(FrozenGlyphError, match="vocab_size 1000000000000 is too large: give at most 16777216"):
        build_tokenizer(["a cat"], 10**12)


def test_names_with_markup_are_names(experts, tmp_path, capsys, monkeypatch):
    """``[/a]`` would close a tag of rich, ``[v2]`` be one: folders and tables show both as they are."""
    out = tmp_path / "ru[v2]"
    for words in (["merge", *experts, "--names", "[/a],[b]", "-o", out], ["inspect", out]):
        monkeypatch.setattr("sys.argv", ["frozen-glyph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        shown = capsys.readouterr().out
        assert all(name in shown for name in ("[/a]", "[b]", "ru[v2]"))


def test_inspect_shows_names_as_text(copied, capsys, monkeypatch):
    folder = copied(merged=True, config=lambda config: config.update(expert_names=["[/red]", "\x1b[31m"]))
    monkeypatch.setattr("sys.argv", ["frozen-glyph", "inspect", str(folder)])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "[/red]" in out and r"\x1b[31m" in out and "\x1b" not in out
    assert describe_checkpoint(folder)["experts"][0]["name"] == "[/red]"


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path, caplog):
    """Whoever opens one waits for a writer who never comes."""
    for name in ("checkpoint-3/manifest.json", "manifest.json", "mirror.json", "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
    assert newest_checkpoint(tmp_path) is None
    assert "manifest.json' is damaged: it is no regular file" in caplog.text
    assert Manifest(tmp_path).files == {} and read_manifest(tmp_path) == {}
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged: it is no regular file"):
        read_json(tmp_path / "config.json")


def test_folders_in_a_received_run_or_report_that_are_links_are_not_written_through(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".work").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"\.work' is a link, so that files would be written elsewhere"):
        open_work(tmp_path)


def test_a_record_of_a_mirror_that_nests_without_end_is_none(tmp_path):
    (tmp_path / "mirror.json").write_text("[" * 200_000)
    assert read_manifest(tmp_path) == {}


def test_an_id_of_a_tokenizer_without_measure_is_refused(copied):
    """tokenizers keeps a place for every id up to the largest: a billion of them ended the process."""
    folder = copied(tokenizer=lambda content: content["model"]["vocab"].update({"<0x5F>": 4_000_000_000}))
    with pytest.raises(CheckpointError, match=r"gives '<0x5F>' the id 4000000000; ids must be below 16,777,216"):
        load_tokenizer(folder)


def test_experts_of_another_type_of_model_are_not_read_as_ours(copied):
    def change(config):
        config.update(model_type="other", experts=[0.5])

    folder = copied(merged=True, config=change)
    with pytest.raises(CheckpointError, match="is no merged checkpoint; merge experts first"):
        reweigh_experts(folder, "posterior")
    with pytest.raises(CheckpointError, match="holds no checkpoint of frozen_glyph"):
        describe_checkpoint(folder)


def test_experts_without_names_have_those_that_the_model_gives_them(copied):
    def forget(config):
        del config["expert_names"], config["expert_weights"]

    folder = copied(merged=True, config=forget)
    reweigh_experts(folder, "posterior")
    assert [expert["name"] for expert in describe_checkpoint(folder)["experts"]] == ["expert-0", "expert-1"]


def test_a_parent_without_positions_has_those_of_the_class(copied, tmp_path):
    folder = copied(config=lambda config: config.pop("max_position_embeddings"))
    adopt_parent(Source(str(folder)), tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "tokenizer_config.json").read_text())
    assert settings.get("model_max_length", 1024) == 1024


def test_a_merged_head_without_a_rule_is_not_tuned(copied, tmp_path):
    folder = copied(merged=True, config=lambda config: config.pop("rule"))
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n")
    with pytest.raises(FrozenGlyphError, match="has no 'rule'; write the folder again"):
        tune_head(folder, tmp_path / "tuned", text=[tmp_path / "text.txt"])
