"""All stages of a run live in one folder: frozen shards are shared, and stage k stays loadable, bit for bit."""

import copy
import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint.files import CheckpointError, read_header, sha256_file
from frozen_glyph.checkpoint.stages import DEFAULT_INDEX, stage_index, write_stage

LADDER = [1, 3, 4]


def weight_map(folder, name: str) -> dict[str, str]:
    return json.loads((folder / name).read_text())["weight_map"]


def bits_differ(model, other) -> list[str]:
    """Names of the tensors that two models do not share to the bit."""
    first, second = model.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return sorted(name for name in first if not torch.equal(first[name], second[name]))


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
    assert bits_differ(loaded, expected) == []
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


def test_a_write_that_breaks_off_anywhere_leaves_the_stages_before_it(grown, tmp_path, monkeypatch):
    """However many files of stage 2 came into place: a plain load gives stage 1 until the last one, then stage 2."""
    _, models, _, _ = grown
    move, left = Path.replace, 0

    def replace(path, target):
        nonlocal left
        if left == 0:
            raise OSError("no space left on device")
        left -= 1
        return move(path, target)

    for count in itertools.count():
        folder = tmp_path / str(count)
        write_stage(folder, models[0], 1)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            left = count
            try:
                write_stage(folder, models[1], 2)
                complete = True
            except OSError:
                complete = False
        assert bits_differ(FrozenGlyphForCausalLM.from_pretrained(folder), models[complete]) == []
        assert bits_differ(FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=1), models[0]) == []
        if complete:
            break
    assert count >= 6  # at least blocks, head, two indices, two configurations


def test_a_complete_stage_is_not_written_again(experts, build_model):
    folder = experts[0]
    before = {path.name: identity(path) for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="stage 1 exists already in"):
        write_stage(folder, build_model(seed=9, num_hidden_layers=1, ladder=[1]), 1)
    assert {path.name: identity(path) for path in folder.iterdir()} == before


def test_stages_are_written_in_order_and_fit_the_ladder(grown, tmp_path):
    _, models, _, _ = grown
    with pytest.raises(CheckpointError, match=r"stage-1.safetensors.index.json' does not exist"):
        write_stage(tmp_path, models[1], 2)
    with pytest.raises(CheckpointError, match=r"config\.ladder=\[1, 3\] must have 1 entries for stage 1"):
        write_stage(tmp_path, models[1], 1)
    write_stage(tmp_path, models[0], 1)
    other = copy.deepcopy(models[1])
    other.config.ladder = [2, 3]
    with pytest.raises(CheckpointError, match=r"stage 1 in .* has 1 blocks, config\.ladder=\[2, 3\] says 2"):
        write_stage(tmp_path, other, 2)


def train_further(model, seed: int, prefixes: tuple[str, ...]):
    """A copy of ``model`` in which the tensors of these names have other values."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(prefixes):
                parameter += torch.randn(parameter.shape, generator=generator)
    return model


HEAD = ("model.norm", "lm_head")


@pytest.fixture(scope="module")
def versions(substrate, build_model, tmp_path_factory):
    """Stages: grown, grown, blocks changed below, newest blocks trained on, grown, changed below again."""
    folder = tmp_path_factory.mktemp("versions")
    substrate.save_pretrained(folder)
    models = [build_model(seed=1, num_hidden_layers=1, ladder=[1])]
    models.append(grow(models[-1], 1, init="random"))
    models.append(train_further(grow(models[-1], 1, init="random"), 3, ("model.layers", *HEAD)))
    models.append(train_further(models[-1], 4, ("model.layers.2.", *HEAD)))
    models[-1].config.ladder = [1, 2, 3, 3]
    models.append(grow(models[-1], 1, init="random"))
    models.append(train_further(grow(models[-1], 1, init="random"), 6, ("model.layers", *HEAD)))
    changed_below = (False, False, True, False, False, True)
    hashes, snapshots = [], []
    for stage, (model, changed) in enumerate(zip(models, changed_below, strict=True), start=1):
        hashes.append(write_stage(folder, model, stage, 0 if changed else None))
        snapshots.append({path.name: identity(path) for path in folder.glob("*.safetensors")})
    return folder, models, hashes, snapshots


class TestVersions:
    """Blocks that a later stage trains again get a new shard; whoever used the old one still does."""

    @pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 6, None])
    def test_every_stage_loads_bit_exactly(self, versions, stage):
        folder, models, _, _ = versions
        loaded = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage)
        assert bits_differ(loaded, models[(stage or 6) - 1]) == []

    def test_shards_of_every_stage(self, versions):
        blocks = [sorted(name for name in stage if name.startswith("blocks-")) for stage in versions[2]]
        assert [[name.removesuffix(".safetensors") for name in names] for names in blocks] == [
            ["blocks-1"],
            ["blocks-1", "blocks-2"],
            ["blocks-1.stage-3", "blocks-2.stage-3", "blocks-3"],
            ["blocks-1.stage-3", "blocks-2.stage-3", "blocks-3.stage-4"],
            ["blocks-1.stage-3", "blocks-2.stage-3", "blocks-3.stage-4", "blocks-5"],
            ["blocks-1.stage-6", "blocks-2.stage-6", "blocks-3.stage-6", "blocks-5.stage-6", "blocks-6"],
        ]

    def test_no_file_is_written_twice(self, versions):
        for earlier, later in itertools.pairwise(versions[3]):
            assert later.items() >= earlier.items()

    def test_stage_that_adds_no_blocks_has_the_frozen_ones_of_the_stage_before(self, versions):
        loaded = FrozenGlyphForCausalLM.from_pretrained(versions[0], growth_stage=4)
        assert (loaded.config.ladder, loaded.config.num_frozen_layers) == ([1, 2, 3, 3], 2)


def test_a_first_stage_trained_on(build_model, tmp_path):
    first = build_model(seed=1, num_hidden_layers=2, ladder=[2])
    second = train_further(first, 2, ("model.layers", *HEAD))
    second.config.ladder = [2, 2]
    write_stage(tmp_path, first, 1)
    assert set(write_stage(tmp_path, second, 2)) == {
        "substrate.safetensors", "blocks-1.stage-2.safetensors", "head-2.safetensors"
    }  # fmt: skip
    for stage, model in enumerate((first, second), start=1):
        loaded = FrozenGlyphForCausalLM.from_pretrained(tmp_path, growth_stage=stage)
        assert bits_differ(loaded, model) == []
        assert loaded.config.num_frozen_layers == 0


class Quantised(nn.Module):
    """A Linear whose state has other names, types and shapes than it was written with."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.register_buffer("packed", torch.zeros(3, dtype=torch.int8))


def test_blocks_below_may_be_quantised(grown, tmp_path):
    _, models, _, _ = grown
    write_stage(tmp_path, models[0], 1)
    quantised = copy.deepcopy(models[1])
    quantised.model.layers[0].mlp.fc_in = Quantised(quantised.model.layers[0].mlp.fc_in)
    write_stage(tmp_path, quantised, 2)
    assert bits_differ(FrozenGlyphForCausalLM.from_pretrained(tmp_path), models[1]) == []


def test_a_trained_table_is_written_by_stage_1(build_model, tmp_path):
    config = build_model(seed=1, num_hidden_layers=1, ladder=[1]).config
    config.substrate_trainable, config.substrate_fingerprint = True, None
    first = FrozenGlyphForCausalLM(config)
    second = grow(first, 1, init="random")
    hashes = [write_stage(tmp_path, first, 1), write_stage(tmp_path, second, 2)]
    assert hashes[0]["substrate.safetensors"] == hashes[1]["substrate.safetensors"]
    assert weight_map(tmp_path, DEFAULT_INDEX)["model.embed_tokens.weight"] == "substrate.safetensors"
    for stage, model in enumerate((first, second), start=1):
        assert bits_differ(FrozenGlyphForCausalLM.from_pretrained(tmp_path, growth_stage=stage), model) == []


def test_an_index_says_size_and_contents_of_its_shards(grown):
    folder, models, _, _ = grown
    for stage, model in enumerate(models, start=1):
        metadata = json.loads((folder / stage_index(stage)).read_text())["metadata"]
        assert metadata["total_size"] == sum(tensor.nbytes for tensor in model.state_dict().values())
        shards = set(weight_map(folder, stage_index(stage)).values())
        assert metadata["content_sha256"] == {name: read_header(folder / name).content_sha256 for name in shards}
        assert len(set(metadata["content_sha256"].values())) == len(shards)
