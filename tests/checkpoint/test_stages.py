"""All stages of a run live in one folder: frozen shards are shared, and stage k stays loadable, bit for bit."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint import stages
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file
from frozen_glyph.checkpoint.stages import DEFAULT_INDEX, stage_index, write_stage

LADDER = [1, 3, 4]


def weight_map(folder, name: str) -> dict[str, str]:
    return json.loads((folder / name).read_text())["weight_map"]


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@pytest.fixture(scope="module")
def grown(substrate, build_model, tmp_path_factory):
    """A folder of three stages, the model of each, and what the folder held after each."""
    folder = tmp_path_factory.mktemp("stages")
    substrate.save_pretrained(folder)
    model, models, hashes, snapshots = None, [], [], []
    for stage, blocks in enumerate(LADDER, start=1):
        if model is None:
            model = build_model(seed=1, num_hidden_layers=blocks, ladder=[blocks])
        else:
            model = grow(model, blocks - LADDER[stage - 2], init="random").eval()
        models.append(model)
        hashes.append(write_stage(folder, model, stage))
        snapshots.append({path.name: identity(path) for path in folder.glob("*.safetensors")})
    return folder, models, hashes, snapshots


def test_shards_are_disjoint_and_owned_by_their_stage(grown):
    folder, _, hashes, _ = grown
    assert sorted(hashes[2]) == [
        "blocks-1.safetensors",
        "blocks-2.safetensors",
        "blocks-3.safetensors",
        "head-3.safetensors",
        "substrate.safetensors",
    ]
    owners = {name: shard for name, shard in weight_map(folder, DEFAULT_INDEX).items() if "q_proj" in name}
    assert [owners[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in range(4)] == [
        "blocks-1.safetensors",
        "blocks-2.safetensors",
        "blocks-2.safetensors",
        "blocks-3.safetensors",
    ]
    assert all(sha256_file(folder / name) == digest for stage in hashes for name, digest in stage.items())


def test_later_stages_share_frozen_shards_and_never_rewrite_them(grown):
    folder, _, _, snapshots = grown
    for stage in (1, 2):
        earlier, later = weight_map(folder, stage_index(stage)), weight_map(folder, stage_index(stage + 1))
        shared = {name for name, shard in earlier.items() if not shard.startswith("head-")}
        assert len(shared) > 5
        assert all(later[name] == earlier[name] for name in shared)
        assert snapshots[stage].items() >= snapshots[stage - 1].items()


def test_each_stage_has_an_index_and_the_default_is_the_deepest(grown):
    folder, models, _, _ = grown
    assert weight_map(folder, DEFAULT_INDEX) == weight_map(folder, stage_index(3))
    for stage, model in enumerate(models, start=1):
        assert weight_map(folder, stage_index(stage)).keys() == model.state_dict().keys()
    assert not (folder / "model.safetensors").exists()  # it would hide the index


@pytest.mark.parametrize("stage", [1, 2, 3, None])
def test_every_stage_loads_bit_exactly_after_later_ones_were_added(grown, token_ids, stage):
    folder, models, _, _ = grown
    expected = models[(stage or 3) - 1]
    loaded = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage)
    state = loaded.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
    ids = token_ids(2, 9)
    assert torch.equal(loaded(ids).logits, expected(ids).logits)
    frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, parameter in expected.named_parameters() if not parameter.requires_grad}


def test_writing_a_stage_again_changes_no_byte(grown):
    folder, models, hashes, _ = grown
    before = {path.name: sha256_file(path) for path in folder.iterdir()}
    assert write_stage(folder, models[2], 3) == hashes[2]
    assert {path.name: sha256_file(path) for path in folder.iterdir()} == before


def test_folder_carries_tokenizer_and_model_code(grown, substrate):
    folder, _, _, _ = grown
    assert AutoTokenizer.from_pretrained(folder)("Кот")["input_ids"] == substrate.tokenizer("Кот")["input_ids"]
    config = json.loads((folder / "config.json").read_text())
    assert config["ladder"] == LADDER
    for target in config["auto_map"].values():
        module, name = target.split(".")
        assert f"class {name}(" in (folder / f"{module}.py").read_text()


def test_a_write_that_breaks_off_leaves_the_stages_before_it(grown, substrate, build_model, tmp_path, monkeypatch):
    _, models, _, _ = grown
    substrate.save_pretrained(tmp_path)
    write_stage(tmp_path, models[0], 1)

    def fail(folder, model):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(stages, "write_configs", fail)
        write_stage(tmp_path, models[1], 2)
    for arguments in ({}, {"growth_stage": 1}):
        loaded = FrozenGlyphForCausalLM.from_pretrained(tmp_path, **arguments)
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in models[0].state_dict().items())


def test_a_complete_stage_is_not_written_again(experts, build_model):
    folder = experts[0]
    before = {path.name: identity(path) for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="stage 1 exists already in"):
        write_stage(folder, build_model(seed=9, num_hidden_layers=1, ladder=[1]), 1)
    assert {path.name: identity(path) for path in folder.iterdir()} == before
