"""A run goes on from another one: the trunk's bits are shared, and what cannot be a parent is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint.config import vectors_of
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file, sha256_json
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.growth.parent import adopt_parent


@pytest.fixture(scope="module")
def trunk(write_expert):
    """A run of three stages: 1, 2 and 4 blocks."""
    return write_expert("trunk", [1, 2, 4], seed=3)


def bits(folder, stage=None) -> dict[str, torch.Tensor]:
    return FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage).state_dict()


def same_bits(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("stage", "depth"), [(1, 1), (2, 2), (3, 4), (None, 4)])
def test_the_adopted_stages_are_the_parents(trunk, tmp_path, stage, depth):
    entries = adopt_parent(Source(str(trunk), stage), tmp_path / "run")
    count = stage or 3
    assert [entry["stage"] for entry in entries] == list(range(1, count + 1))
    for number in range(1, count + 1):
        assert same_bits(bits(tmp_path / "run", number), bits(trunk, number))
    assert same_bits(bits(tmp_path / "run"), bits(trunk, stage))
    config = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run").config
    assert (config.ladder, config.num_hidden_layers) == ([1, 2, 4][:count], depth)
    assert config.num_frozen_layers == [0, 1, 2][count - 1]
    shards = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
    assert shards == {name for entry in entries for name in entry["files"]}  # nothing of later stages


def test_origin_is_recorded(trunk, tmp_path):
    (entry,) = adopt_parent(Source(str(trunk), 1), tmp_path / "run")
    assert entry["parents"] == [
        {
            "name": "trunk",
            "stage": 1,
            "config_sha256": sha256_file(trunk / "config.json"),
            "weights_sha256": sha256_json(entry["files"]),
        }
    ]
    assert str(tmp_path) not in json.dumps(entry)
    write_provenance(tmp_path / "run", "growth", {"stages": [entry]})
    (again,) = adopt_parent(Source(str(tmp_path / "run")), tmp_path / "grandchild")
    assert [origin["name"] for origin in again["parents"]] == ["trunk", "run"]
    assert len({origin["weights_sha256"] for origin in again["parents"]}) == 1


def test_experts_of_one_trunk_share_its_files(trunk, tmp_path):
    hashes = []
    for name in ("ru", "zh"):
        adopt_parent(Source(str(trunk), 2), tmp_path / name)
        model = grow(FrozenGlyphForCausalLM.from_pretrained(tmp_path / name), 1, init="random")
        torch.nn.init.normal_(model.lm_head.weight, std=1 + len(hashes))
        hashes.append(write_stage(tmp_path / name, model, 3))
        assert same_bits(bits(tmp_path / name), model.state_dict())
        assert same_bits(bits(tmp_path / name, 2), bits(trunk, 2))
    shared = ("substrate.safetensors", "blocks-1.safetensors", "blocks-2.safetensors", "head-2.safetensors")
    for name in shared:
        assert len({(folder / name).stat().st_ino for folder in (trunk, tmp_path / "ru", tmp_path / "zh")}) == 1
    assert all(hashes[0][name] == hashes[1][name] for name in shared[:3])
    assert hashes[0]["head-3.safetensors"] != hashes[1]["head-3.safetensors"]
    files = [folder / "blocks-3.safetensors" for folder in (trunk, tmp_path / "ru")]
    assert not files[0].samefile(files[1])  # stage 3 of the trunk is another one


def test_adopting_again_changes_nothing(trunk, tmp_path):
    parent = Source(str(trunk), 2)
    first = adopt_parent(parent, tmp_path / "run")
    before = {path.name: sha256_file(path) for path in (tmp_path / "run").iterdir()}
    assert adopt_parent(parent, tmp_path / "run") == first
    assert {path.name: sha256_file(path) for path in (tmp_path / "run").iterdir()} == before


def test_copies_where_links_are_not_possible(trunk, tmp_path, monkeypatch):
    def refuse(path, target):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    adopt_parent(Source(str(trunk), 2), tmp_path / "run")
    assert same_bits(bits(tmp_path / "run"), bits(trunk, 2))
    assert (tmp_path / "run" / "blocks-1.safetensors").stat().st_ino != (trunk / "blocks-1.safetensors").stat().st_ino


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_checkpoint_without_stages_becomes_stage_1(trunk, tmp_path, shard_size):
    model = FrozenGlyphForCausalLM.from_pretrained(trunk)
    model.save_pretrained(tmp_path / "plain", max_shard_size=shard_size)
    (entry,) = adopt_parent(Source(str(tmp_path / "plain")), tmp_path / "run")
    assert (entry["stage"], entry["layers"], entry["parents"][0]["name"]) == (1, 4, "plain")
    adopted = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run", growth_stage=1)
    assert same_bits(adopted.state_dict(), model.state_dict())
    assert (adopted.config.ladder, adopted.config.num_frozen_layers) == ([4], 0)
    write_stage(tmp_path / "run", grow(adopted, 1), 2)
    assert same_bits(bits(tmp_path / "run", 1), model.state_dict())
    with pytest.raises(CheckpointError, match=r"was not grown in stages, so it has no stage 2"):
        adopt_parent(Source(str(tmp_path / "plain"), 2), tmp_path / "other")


def lose_index(folder):
    (folder / "stage-2.safetensors.index.json").unlink()


def change_shard(folder):
    path = folder / "blocks-2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def forget_stage(folder):
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(provenance | {"stages": provenance["stages"][:1]}))


DAMAGES = {
    "index missing": (lose_index, r"stage-2\.safetensors\.index\.json' does not exist"),
    "shard missing": (lambda folder: (folder / "head-1.safetensors").unlink(), r"head-1\.safetensors' is missing"),
    "shard changed": (change_shard, r"blocks-2\.safetensors' is damaged"),
    "stage not finished": (forget_stage, "knows no stage 2; finish its run first"),
    "no provenance": (lambda folder: (folder / "provenance.json").unlink(), r"provenance\.json' does not exist"),
    "other family": (lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'), "'gpt2'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_parent_is_refused(trunk, tmp_path, damage):
    parent = shutil.copytree(trunk, tmp_path / "parent")
    harm, message = DAMAGES[damage]
    harm(parent)
    with pytest.raises(CheckpointError, match=message):
        adopt_parent(Source(str(parent), 2), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_who_cannot_be_a_parent(trunk, merged_folder, tmp_path, substrate):
    with pytest.raises(CheckpointError, match=r"has no stage 4; its stages are 1\.\.3"):
        adopt_parent(Source(str(trunk), 4), tmp_path / "run")
    with pytest.raises(CheckpointError, match="is a merged model, grow its experts"):
        adopt_parent(Source(str(merged_folder)), tmp_path / "run")
    with pytest.raises(CheckpointError, match="the run's own folder"):
        adopt_parent(Source(str(trunk)), trunk)
    with pytest.raises(CheckpointError, match=r"stands on substrate sha256:\w+, the recipe on sha256:other"):
        adopt_parent(Source(str(trunk)), tmp_path / "run", "sha256:other")
    substrate.save_pretrained(tmp_path / "docked")
    adopt_parent(Source(str(trunk)), tmp_path / "docked", substrate.fingerprint)
    facts = json.loads((tmp_path / "docked" / "substrate.json").read_text())
    (tmp_path / "docked" / "substrate.json").write_text(json.dumps(facts | {"fingerprint": "sha256:other"}))
    with pytest.raises(CheckpointError, match="docked' on sha256:other"):
        adopt_parent(Source(str(trunk)), tmp_path / "docked")
    with pytest.raises(CheckpointError, match="is no folder and cannot be fetched from the Hub"):
        adopt_parent(Source(str(tmp_path / "nowhere")), tmp_path / "run")


def test_a_parent_in_half_precision_trains_in_full(finished, grow_tiny, tmp_path):
    """Weights of bfloat16 would round most steps away. What was adopted keeps its bits."""
    half = FrozenGlyphForCausalLM.from_pretrained(finished[0], growth_stage=1, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    changes = {"parent": {"source": str(tmp_path / "half")}, "stages": [{"steps": 3}], "training.learning_rate": 1e-6}
    grow_tiny(tmp_path / "run", changes, substrate=None, valid=[])
    stored = load_file(tmp_path / "run" / "blocks-1.safetensors")
    assert all(torch.equal(tensor, half.state_dict()[name]) for name, tensor in stored.items())
    heads = [load_file(tmp_path / "run" / f"head-{stage}.safetensors")["lm_head.weight"] for stage in (1, 2)]
    assert [head.dtype for head in heads] == [torch.bfloat16, torch.float32]
    assert not torch.equal(heads[1], heads[1].bfloat16().float())  # steps below what bfloat16 can tell apart
    grown = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run")
    assert torch.equal(grown.lm_head.weight, heads[1])


def test_growth_from_a_parent_on_pictures_as_drawn_stays_on_them(plain_substrate, grow_tiny, tmp_path):
    """Whatever is the default since: a recipe that says nothing stands on what its parent stands on."""
    plain_substrate.save_pretrained(tmp_path / "glyphs")
    stages = [{"steps": 1}]
    grow_tiny(tmp_path / "old", {"stages": stages}, substrate=tmp_path / "glyphs", valid=[])
    changes = {"parent": {"source": str(tmp_path / "old")}, "stages": stages}
    grow_tiny(tmp_path / "run", changes, substrate=None, valid=[])
    grown = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run")
    assert grown.config.substrate_fingerprint == plain_substrate.fingerprint
    assert torch.equal(grown.substrate.weight, plain_substrate.as_embedding().weight)
    assert vectors_of(grown.config.to_dict()) == "frozen, 1 long"
