"""What cannot work is refused before anything trains, by name, and leaves the folder free."""

import gzip
import json
import os
import re

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth import run as growth_run
from frozen_glyph.recipes.errors import RecipeError

TEXT = "The hat is on the cat.\n\nКот тоже сидел там.\n"


@pytest.fixture
def refused(grow_tiny, monkeypatch, tmp_path):
    """``refused(message, changes, valid=...)``: nothing trains, and nothing of a run is left."""

    def refused(message, changes=None, kind=FrozenGlyphError, **arguments):
        with monkeypatch.context() as patch:
            patch.setattr(growth_run, "grow_stage", lambda *_: pytest.fail("training began"))
            with pytest.raises(kind, match=message) as error:
                grow_tiny(tmp_path / "run", changes, **arguments)
        assert "\n" not in str(error.value)
        left = {path.name for path in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
        assert left <= {".work"}

    return refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"", r"v\.txt' is empty"),
        ("v.txt", b" \n \n", r"v\.txt' is empty"),
        ("v.txt", "Кот сидел.".encode("cp1251"), "not UTF-8: byte 0xca at offset 0; convert it, .*CP1251"),
        ("v.txt", "Кот сидел.".encode()[:3], "not UTF-8: byte 0xd0 at offset 2; it ends within a character: cut it"),
        ("v.txt", "Кот".encode("utf-16"), "not UTF-8.*it is UTF-16"),
        ("v.txt", gzip.compress(TEXT.encode(), mtime=0), "not UTF-8.*packed by gzip: name it .txt.gz"),
        ("v.txt.gz", gzip.compress(TEXT.encode(), mtime=0)[:-9], r"v\.txt\.gz' is damaged"),
        ("v.txt.gz", TEXT.encode(), r"v\.txt\.gz' is damaged: Not a gzipped file"),
        ("v.jsonl", b'{"body": "cat"}\n', "line 1 has no field 'text'"),
        ("v.md", TEXT.encode(), "unknown kind '.md'"),
        ("missing.txt", None, "missing.txt' does not exist"),
    ],
)
def test_held_out_text(refused, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(message, valid=[tmp_path / name])


def test_a_directory_is_named_as_one(refused, tmp_path):
    (tmp_path / "texts").mkdir()
    refused(r"texts' is a directory; name the files in it", text=[tmp_path / "texts"])
    refused(r"texts' is a directory; name the files in it", valid=[tmp_path / "texts"])


def test_held_out_text_that_fills_no_window(refused, tmp_path):
    (tmp_path / "v.txt").write_text("The cat.")
    refused("the held-out text has .* fewer than one window", {"training.eval_steps": 2}, valid=[tmp_path / "v.txt"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.intermediate_size": 2**22, "stages.0.layers": 300},
            r"parameters, [\d,]+ GB to train, and the machine",
        ),
        ({"model.pad_token_id": 5}, r"model\.pad_token_id=5, but the tokenizer makes it 0"),
        ({"model.linear_kinds": [["layers.*.mlp.*", "low_rnk"]]}, "model.linear_kinds .*did you mean 'low_rank'"),
        ({"training.report_to": ["wandbb"]}, "'wandbb' is not installed here"),
        ({"training.quantize_frozen": "int4"}, "quantize_frozen='int4' needs a CUDA GPU"),
    ],
)
def test_what_only_a_machine_or_a_text_can_tell(refused, changes, message):
    refused(message, changes)


def test_a_failure_of_any_kind_leaves_the_folder_free(grow_tiny, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(growth_run, "open_windows", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            grow_tiny(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else True
    grow_tiny(tmp_path / "run", {"stages": [{"steps": 1}]})


MODEL_FIELDS = {
    "hidden_act=geluu": "model.hidden_act='geluu' must be one of .*did you mean 'gelu'",
    "rope_parameters={rope_type: liner}": "model.rope_parameters.rope_type='liner' .*did you mean 'linear'",
    "rope_parameters={rope_type: yarn}": "model.rope_parameters.factor is missing; rope_type='yarn' needs factor",
    "attention_dropout=5": "model.attention_dropout=5 must be from 0 to 1",
    "initializer_range=-1": "model.initializer_range=-1 must be from 0",
    "initializer_range=.nan": "model.initializer_range=nan must be from 0",
    "layer_norm_eps=-1": "model.layer_norm_eps=-1 must be from 0",
    "intermediate_size=0": "model.intermediate_size=0 must be from 1",
    "hidden_size=2147483648": "model.hidden_size=2147483648 must be from 1",
    "vocab_size=1099511627776": "model.vocab_size=1099511627776 must be from 1",
    "max_position_embeddings=16": "model.max_position_embeddings=16 .* at least training.context_length=32",
    "pad_token_id=99999": "model.pad_token_id=99999 must lie in the vocabulary, 0 to 65535",
    "hidden_act=5": "model.hidden_act: Field 'hidden_act' expected str",
}
FIELDS = {
    "stages.0.steps=100000000000000000000000": "steps=1.* must be from 1 to 2147483647",
    "stages.0.tokens=100000000000000000000000": "tokens=1.* must be from 1 to",
    "lora.rank=1000000000": "lora.rank=1000000000 .* from 1 to 65536",
    "training.learning_rate=.inf": "training.learning_rate=inf .*: it must be a finite number above 0",
    "stages.0.learning_rate=.nan": "stages.0..learning_rate=nan .*: it must be a finite number above 0",
    "training.weight_decay=.nan": "training.weight_decay=nan .*a finite number",
    "training.weight_decay=.inf": "training.weight_decay=inf .*a finite number",
    "training.max_grad_norm=.inf": "training.max_grad_norm=inf .*a finite number above 0",
    "training.final_learning_rate_ratio=.nan": "final_learning_rate_ratio=nan .*a finite number from 0 to 1",
    "training.adam_beta2=.nan": "training.adam_beta2=nan .*a finite number between 0 and 1",
    "training.warmup_steps=10000000000": "training.warmup_steps=10000000000 .*from 0 to 2147483647",
    "training.batch_tokens=2199023255552": "training.batch_tokens=2199023255552 .*at most 1099511627776",
    "training.context_length=33554432": "training.context_length=33554432 .*from 8 to 16777216",
    "lora.alpha=.inf": "lora.alpha=inf .*a finite number above 0",
    "stages.0.layers=20000": "layers=20000 .* from 0 to 10000",
    "substrate.vocab_size=1000000000000": "substrate.vocab_size=1000000000000 .*at most 16777216",
}


@pytest.mark.parametrize(
    ("setting", "message"),
    [(f"model.{setting}", message) for setting, message in MODEL_FIELDS.items()] + list(FIELDS.items()),
)
def test_fields_beyond_their_bounds(recipe_content, tmp_path, setting, message):
    from frozen_glyph.growth.recipe import load_recipe

    path = tmp_path / "growth.yaml"
    path.write_text(json.dumps(recipe_content({"lora": {}, "substrate": {}})))
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(path, [setting])
    assert "\n" not in str(error.value) and re.match("recipe field ", str(error.value))


def test_held_out_text_is_read_as_training_text_is(grow_tiny, finished, texts, tmp_path):
    """All kinds of one text score alike; a record is read by its field."""
    documents = texts[1].read_text("utf-8").split("\n\n")
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps({"body": text.strip()}) + "\n" for text in documents))
    (tmp_path / "valid.txt.gz").write_bytes(gzip.compress(texts[1].read_bytes()))
    windows = "\ufeff" + texts[1].read_text("utf-8").replace("\n", "\r\n")
    (tmp_path / "dos.txt").write_bytes(windows.encode())
    data = {"sources": [{"files": [str(texts[0])]}], "valid_field": "body"}
    names = ["valid.jsonl", "valid.txt.gz", "dos.txt"]
    run = grow_tiny(tmp_path / "run", {"data": data}, valid=[tmp_path / name for name in names])
    expected = [stage["nats_per_character"]["valid.txt"] for stage in finished[1]["stages"]]
    for name in names:
        assert [stage["nats_per_character"][name] for stage in run["stages"]] == pytest.approx(expected, rel=1e-5)


def test_tensorboard_of_each_run_is_its_own(grow_tiny, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    changes = {"stages": [{"steps": 1}], "training.report_to": ["tensorboard"]}
    for name in ("one", "two"):
        grow_tiny(tmp_path / name, changes)
        assert list((tmp_path / name / "tensorboard").glob("events*"))
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
