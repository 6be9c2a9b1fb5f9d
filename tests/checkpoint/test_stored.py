"""What a hostile or damaged folder says of itself is refused in one line, before anything is made of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from frozen_glyph import extract_expert, merge_experts
from frozen_glyph.checkpoint.card import inherited
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, read_header
from frozen_glyph.checkpoint.header import TYPE_BYTES, TensorFile
from frozen_glyph.checkpoint.streaming import TYPES
from frozen_glyph.formats import FormatError


@pytest.fixture
def changed(experts, merged_folder, tmp_path):
    """``changed(file, field=value)``: a copy of a folder with one JSON file that says something else."""

    def make(file, merged=False, **fields):
        folder = tmp_path / "changed"
        shutil.copytree(merged_folder if merged else experts[0], folder)
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return folder

    return make


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ladder": 5}, "ladder is 5; it must be a list or null"),
        ({"ladder": [2, 1]}, r"ladder is \[2, 1\]; it must hold blocks"),
        ({"hidden_size": "48"}, "hidden_size is '48'; it must be a whole number"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"substrate_bits": 0}, "substrate_bits is 0"),
        ({"transformers_weights": 7}, "transformers_weights is 7"),
        ({"rope_parameters": []}, r"rope_parameters is \[\]"),
    ],
)
def test_a_field_of_another_type_is_named(changed, experts, tmp_path, fields, message):
    folder = changed("config.json", **fields)
    with pytest.raises(CheckpointError, match=f"config.json' is damaged: {message}"):
        describe_checkpoint(folder)
    with pytest.raises(CheckpointError, match=f"config.json' is damaged: {message}"):
        merge_experts([folder, experts[1]], tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": [{}]}, r"experts\[0\]\.hidden_act is missing"),
        ({"experts": []}, "experts is empty"),
        ({"model_type": "frozen_glyph"}, "experts are of a merged model"),
        ({"experts": 5}, "experts is 5; it must be a list"),
        ({"expert_names": ["a"]}, "expert_names has 1 entries for 2 experts"),
        ({"expert_weights": [0.5, float("nan")]}, "expert_weights is .*finite"),
        ({"num_shared_layers": "1"}, "num_shared_layers is '1'"),
    ],
)
def test_a_field_of_a_merged_model_is_named(changed, tmp_path, fields, message):
    folder = changed("config.json", merged=True, **fields)
    with pytest.raises(CheckpointError, match=f"config.json' is damaged: {message}"):
        describe_checkpoint(folder)
    with pytest.raises(CheckpointError, match=f"config.json' is damaged: {message}"):
        extract_expert(folder, "ru", tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": {}}, "stages is {}; it must be a list"),
        ({"stages": [{"stage": 1}]}, r"stages\[0\]\.files is missing"),
        ({"stages": [{"stage": "1", "files": {}}]}, r"stages\[0\]\.stage is '1'"),
        ({"stages": [{"stage": 1, "files": {"a": 5}}]}, r"stages\[0\]\.files\.a is 5; it must be text"),
        ({"parents": [5]}, r"parents\[0\] is 5"),
        ({"versions": [1]}, r"versions is \[1\]"),
        ({"experts": [{"name": "ru", "parent": 7}]}, "expert 'ru' has parent 7 of 0"),
    ],
)
def test_a_record_of_another_type_is_named(changed, fields, message):
    with pytest.raises(CheckpointError, match=f"provenance.json' is damaged: {message}"):
        describe_checkpoint(changed("provenance.json", **fields))


def test_sizes_follow_the_headers_on_disk(changed, experts, tmp_path):
    """Counts that only config.json claims make no loop and no memory: the shards are asked first."""
    expert = {"num_hidden_layers": 10**9}
    merged = changed("config.json", merged=True)
    config = json.loads((merged / "config.json").read_text())
    config["experts"][0] |= expert
    (merged / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"names 1000000000 blocks of expert 'ru', its shards hold \d+ tensors"):
        extract_expert(merged, "ru", tmp_path / "out")
    with pytest.raises(CheckpointError, match="names 1000000000 blocks"):
        merge_experts([merged, experts[0]], tmp_path / "out")
    assert describe_checkpoint(merged)["layers"] > 10**9  # what it claims


def test_sizes_of_a_grown_model_follow_the_headers(changed, experts, tmp_path):
    folder = changed("config.json", num_hidden_layers=10**9, vocab_size=2**40)
    with pytest.raises(CheckpointError, match=r"has no tensors of model\.layers\.2\."):
        merge_experts([folder, experts[1]], tmp_path / "out")
    assert describe_checkpoint(folder)["parameters"] < 10**6


HEADER = {"a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "it is \\[\\]; it must be a mapping"),
        ({"a": 5}, "a is 5; it must be a mapping"),
        ({"a": HEADER["a"] | {"shape": "x"}}, "a.shape is 'x'; it must be a list"),
        ({"a": HEADER["a"] | {"shape": [2, -4]}}, "32 bytes, which are not those of F32 \\[2, -4\\]"),
        ({"a": HEADER["a"] | {"shape": [2**40, 2**40]}}, "32 bytes, which are not those of"),
        ({"a": HEADER["a"] | {"dtype": "F31"}}, "dtype 'F31'; known are"),
        ({"a": HEADER["a"] | {"data_offsets": [0]}}, "they must be two numbers"),
        ({"a": HEADER["a"] | {"data_offsets": [8, 40]}}, "the tensor before it ends at 0"),
        ({"a": HEADER["a"], "b": HEADER["a"]}, "the tensor before it ends at 32"),
        (HEADER | {"__metadata__": {"columns": '{"a": 1000000000}'}}, "no 1000000000 equal groups of columns"),
        (HEADER | {"__metadata__": {"columns": '{"a": 3}'}}, "no 3 equal groups of columns"),
        (HEADER | {"__metadata__": {"columns": "[" * 10**5}}, "deeper than"),
        (HEADER | {"__metadata__": {"columns": 5}}, "__metadata__.columns is 5; it must be text"),
    ],
)
def test_a_header_that_cannot_be_is_refused(header, message):
    with pytest.raises(FormatError, match=message):
        TensorFile.from_header(header, 8)


def test_every_type_that_is_written_can_be_read():
    assert set(TYPES) == set(TYPE_BYTES)


def test_a_header_is_no_longer_than_its_file(tmp_path):
    path = tmp_path / "some.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    content = path.read_bytes()
    path.write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(CheckpointError, match=r"some\.safetensors' cannot be read: its header would have 1,099,511"):
        read_header(path)


def test_a_card_hands_on_what_is_text(tmp_path):
    """A card is written by people: what is no text is left out, what is no YAML is refused with its file."""
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\nlanguage: [en, no]\ndatasets: 5\n---\n# A\n")
    assert inherited([tmp_path]) == {"license": "mit", "language": ["en"], "datasets": []}
    card.write_text("# A card without metadata\n")
    assert inherited([tmp_path]) == {"license": None, "language": [], "datasets": []}
    card.write_text("---\na: 2001-99-99\n---\n")
    with pytest.raises(CheckpointError, match=r"metadata of .*README\.md' cannot be read"):
        inherited([tmp_path])
