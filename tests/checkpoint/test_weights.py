"""Which weights a folder means: what from_pretrained loads, and nothing where two answers lie there."""

import itertools
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, merge_experts
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, read_tensors
from frozen_glyph.checkpoint.reader import checkpoint_sha256, open_checkpoint
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.hub import files_to_push

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
STAGES = ("stage-1.safetensors.index.json", "stage-2.safetensors.index.json")
BIAS = "lm_head.bias"


@pytest.fixture(scope="module")
def run(write_expert):
    """A run of two stages."""
    folder = write_expert("run", [1, 2], seed=3)
    (folder / "README.md").write_text("# run")
    return folder


@pytest.fixture
def saved_over(run, tmp_path):
    """``saved_over(**arguments)``: a run into which transformers itself has saved a changed model."""

    def save(**arguments):
        folder = shutil.copytree(run, tmp_path / "ru")
        model = FrozenGlyphForCausalLM.from_pretrained(folder)
        model.lm_head.bias.data.add_(1)
        from transformers import PreTrainedModel

        PreTrainedModel.save_pretrained(model, folder, **arguments)
        return folder

    return save


def change_bias(folder, shard, value):
    tensors = load_file(folder / shard)
    save_file(tensors | {BIAS: torch.full_like(tensors[BIAS], value)}, folder / shard, metadata={"format": "pt"})


def shapes(run, home):
    """Folders with every mixture of weight files, in which every file has a bias of its own."""
    whole = home / "whole"
    FrozenGlyphForCausalLM.from_pretrained(run).save_pretrained(whole)
    change_bias(whole, WEIGHTS, 7.0)
    other = {name: "other-head.safetensors" if shard == "head-2.safetensors" else shard
             for name, shard in json.loads((run / INDEX).read_text())["weight_map"].items()}  # fmt: skip
    config = json.loads((run / "config.json").read_text())
    config.pop("transformers_weights")
    number = itertools.count()
    for has_whole, index, keeps, named in itertools.product(
        (True, False), ("same", "other", None), (True, False), (None, STAGES[1], WEIGHTS, "whole.safetensors")
    ):
        folder = shutil.copytree(run, home / f"shape-{next(number)}")
        shutil.copyfile(folder / "head-2.safetensors", folder / "other-head.safetensors")
        change_bias(folder, "other-head.safetensors", 8.0)
        if has_whole:
            shutil.copyfile(whole / WEIGHTS, folder / WEIGHTS)
        if named == "whole.safetensors":
            shutil.copyfile(whole / WEIGHTS, folder / named)
            change_bias(folder, named, 9.0)
        if index == "other":
            (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": other}))
        elif index is None:
            (folder / INDEX).unlink()
        if not keeps:
            (folder / STAGES[1]).unlink()
        (folder / "config.json").write_text(json.dumps(config | ({"transformers_weights": named} if named else {})))
        provenance = json.loads((folder / "provenance.json").read_text())
        del provenance["companions"]  # or the change would be refused as such
        (folder / "provenance.json").write_text(json.dumps(provenance))
        yield folder


def as_cached(folder, cache):
    """The folder as the Hub's client keeps it: links to blobs."""
    home = cache / f"models--user--{folder.name}"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copyfile(path, home / "blobs" / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(home / "blobs" / path.name, snapshot))
    return snapshot


def loaded_bias(folder, stage):
    arguments = {} if stage is None else {"growth_stage": stage}
    return AutoModelForCausalLM.from_pretrained(folder, **arguments).lm_head.bias.tolist()


def read_bias(folder, stage):
    shards = open_checkpoint("model", Source(str(folder), stage)).shards
    (found,) = [tensors[BIAS] for shard in shards if BIAS in (tensors := read_tensors(folder / shard))]
    return found.tolist()


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_read_is_what_loads(run, tmp_path, cached):
    """In every folder that is not refused; what cannot be loaded cannot be read."""
    agreed = refused = 0
    for folder in shapes(run, tmp_path):
        folder = as_cached(folder, tmp_path / "cache") if cached else folder
        for stage in (None, 1, 2):
            try:
                expected = loaded_bias(folder, stage)
            except (ValueError, OSError):
                with pytest.raises(CheckpointError):
                    read_bias(folder, stage)
                continue
            try:
                assert read_bias(folder, stage) == expected
                agreed += 1
            except CheckpointError as error:
                assert "holds two models" in str(error)
                refused += 1
    assert agreed > 50 and refused > 20


@pytest.mark.parametrize("arguments", [{}, {"max_shard_size": "20KB"}])
def test_two_models_in_one_folder_are_refused_by_every_verb(saved_over, merged_folder, run, tmp_path, arguments):
    """As transformers leaves them when it saves into a folder that had a model in parts."""
    folder = saved_over(**arguments)
    verbs = {
        "merge": lambda: merge_experts([folder, run], tmp_path / "merged"),
        "dense": lambda: export_dense(folder, tmp_path / "dense"),
        "push": lambda: files_to_push(folder),
        "parent": lambda: adopt_parent(Source(str(folder)), tmp_path / "child"),
        "parent at a stage": lambda: adopt_parent(Source(str(folder), 2), tmp_path / "child"),
        "identity": lambda: checkpoint_sha256(folder),
    }
    for verb, call in verbs.items():
        with pytest.raises(CheckpointError, match=r"holds two models: from_pretrained loads model\.safetensors"):
            call()
            pytest.fail(verb)
    assert [problem for problem in describe_checkpoint(folder)["problems"].values() if "holds two models" in problem]
    assert [path.name for path in tmp_path.iterdir()] == ["ru"]
    assert read_bias(folder, 1) == loaded_bias(folder, 1)  # earlier stages stay what they were


def test_a_merged_model_saved_over(merged_folder, tmp_path):
    from transformers import PreTrainedModel

    folder = shutil.copytree(merged_folder, tmp_path / "merged")
    PreTrainedModel.save_pretrained(AutoModelForCausalLM.from_pretrained(folder), folder)
    with pytest.raises(CheckpointError, match="holds two models"):
        extract_expert(folder, "ru", tmp_path / "out")


@pytest.mark.parametrize("keep", ["first", "other"])
@pytest.mark.parametrize("arguments", [{}, {"max_shard_size": "20KB"}])
def test_the_advice_mends_the_folder(saved_over, run, arguments, keep):
    """The commands of the message, run as they stand, leave the model that they promise."""
    folder = saved_over(**arguments)
    with pytest.raises(CheckpointError) as refusal:
        read_bias(folder, None)
    commands = str(refusal.value).split("`")[1::2]
    expected = loaded_bias(folder if keep == "first" else run, None)
    assert os.system(commands[("first", "other").index(keep)]) == 0
    assert read_bias(folder, None) == loaded_bias(folder, None) == expected


def test_an_adapter_beside_the_weights_is_a_second_answer(run, tmp_path):
    """from_pretrained would add it."""
    folder = shutil.copytree(run, tmp_path / "ru")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds adapter_config.json beside its weights.*\+ADAPTER"):
        open_checkpoint("expert", Source(str(folder))).shards  # noqa: B018


@pytest.mark.parametrize("make", ["run", "merged"])
def test_saving_over_a_checkpoint_in_parts_is_refused_and_changes_nothing(run, merged_folder, tmp_path, make):
    folder = shutil.copytree(run if make == "run" else merged_folder, tmp_path / "own")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"holds a checkpoint in parts, .* save into a new folder"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_saving_again_leaves_one_answer(run, tmp_path):
    """transformers alone would leave the old file beside new shards, and load the old one."""
    folder = tmp_path / "saved"
    model = FrozenGlyphForCausalLM.from_pretrained(run)
    for number, size in enumerate(("50GB", "20KB", "50GB", "20KB")):
        model.lm_head.bias.data.fill_(number)
        model.save_pretrained(folder, max_shard_size=size)
        assert set(loaded_bias(folder, None)) == {number}
        assert read_bias(folder, None) == loaded_bias(folder, None)
