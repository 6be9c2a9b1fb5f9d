"""The merged folder: what it holds, that it comes out the same twice, and what is refused without a trace."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, merge_experts
from frozen_glyph.checkpoint.companions import model_code
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file
from frozen_glyph.checkpoint.reader import weights_sha256
from frozen_glyph.checkpoint.streaming import content_sha256
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.experts import ExpertsDoNotMatch
from frozen_glyph.recipes.errors import RecipeError


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered(folder, target, **fields):
    """A copy of an expert's folder with other fields in its config.json."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | fields))
    return target


def test_files_of_the_merged_folder(merged_folder):
    assert {path.name for path in merged_folder.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "provenance.json",
        "model.safetensors.index.json",
        "substrate.safetensors", "expert-0.safetensors", "expert-1.safetensors", "head.safetensors",
        "tokenizer.json", "tokenizer_config.json", "substrate.json",
        *(path.name for path in model_code()),
    }  # fmt: skip


def test_the_same_experts_give_the_same_bytes(experts, merged_folder, tmp_path):
    again = merge_experts(experts, tmp_path / "elsewhere" / merged_folder.name)
    assert contents(again) == contents(merged_folder)


def test_the_config_is_what_the_model_would_save(merged_folder, tmp_path):
    FrozenGlyphMoEConfig.from_pretrained(merged_folder).save_pretrained(tmp_path)
    written = json.loads((merged_folder / "config.json").read_text())
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in written} == written
    derived = {"num_hidden_layers": 6, "use_cache": True, "embedding_size": None}
    derived |= {"initializer_range": 0.02, "tie_word_embeddings": False}
    derived |= {"substrate_dense": False, "substrate_trainable": False}
    assert {name: value for name, value in saved.items() if name not in written} == derived


def test_weights_are_those_of_the_experts(experts, merged_folder):
    """The slow obvious way: load everything, put it together."""
    weight_map = json.loads((merged_folder / "model.safetensors.index.json").read_text())["weight_map"]
    merged = {}
    for shard in sorted(set(weight_map.values())):
        merged |= load_file(merged_folder / shard)
    assert set(merged) == set(weight_map)
    for number, folder in enumerate(experts):
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        for name, shard in index.items():
            original = load_file(folder / shard)[name]
            if name.startswith("model.embed_tokens."):
                found = merged[name]
            elif name == "lm_head.weight":
                found = merged[name].chunk(2, dim=1)[number]
            elif name == "lm_head.bias":
                found = merged[name][number]
            else:
                found = merged[f"model.experts.{number}.{name.removeprefix('model.')}"]
            assert torch.equal(found, original), name


def test_provenance_names_parents_and_shards(experts, merged_folder):
    provenance = json.loads((merged_folder / "provenance.json").read_text())
    assert provenance["kind"] == "merge"
    assert provenance["recipe"] == {"rule": "mean", "weights": [0.5, 0.5], "experts": ["ru", "zh"]}
    for parent, folder in zip(provenance["parents"], experts, strict=True):
        assert parent["name"] == folder.name
        assert parent["config_sha256"] == sha256_file(folder / "config.json")
        shards = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
        assert parent["weights_sha256"] == weights_sha256(folder, shards)
    assert set(provenance["contents"]) == {path.name for path in merged_folder.glob("*.safetensors")}
    for name, content in provenance["contents"].items():
        assert content_sha256(merged_folder / name) == content
    for machine_path in (str(merged_folder), str(experts[0])):
        assert not any(machine_path.encode() in data for data in contents(merged_folder).values())


def test_the_card_names_experts_and_rule(experts, tmp_path):
    card = (merge_experts(experts, tmp_path / "m", rule="posterior", weights=[3, 1]) / "README.md").read_text("utf-8")
    assert "| ru | 2 | 0 | 0.750 |" in card
    assert "| zh | 3 | 0 | 0.250 |" in card
    assert "`posterior`" in card
    assert 'from_pretrained("m", trust_remote_code=True)' in card


def test_names_can_be_given(experts, tmp_path):
    folder = merge_experts(experts, tmp_path / "m", names=["Russian", "Chinese"])
    assert json.loads((folder / "config.json").read_text())["expert_names"] == ["Russian", "Chinese"]


def test_an_empty_folder_may_be_there(experts, tmp_path):
    (tmp_path / "m").mkdir()
    assert (merge_experts(experts, tmp_path / "m") / "provenance.json").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("substrate_fingerprint", "sha256:" + "0" * 64),
        ("tokenizer_sha256", "1" * 64),
        ("pad_token_id", 7),
        ("bos_token_id", 7),
        ("eos_token_id", 7),
        ("vocab_size", 341),
        ("hidden_size", 96),
    ],
)
def test_field_in_which_experts_differ_is_named_with_both_values(experts, tmp_path, field, value):
    other = altered(experts[1], tmp_path / "other", **{field: value})
    with pytest.raises(ExpertsDoNotMatch, match=f"experts differ in {field}") as caught:
        merge_experts([experts[0], other], tmp_path / "m")
    own = json.loads((experts[0] / "config.json").read_text())[field]
    for named in (own, value, str(experts[0]), str(other)):
        assert repr(named) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_is_no_expert(experts, merged_folder, tmp_path):
    with pytest.raises(RecipeError, match="1 expert given; merging needs at least two"):
        merge_experts(experts[:1], tmp_path / "m")
    other = altered(experts[1], tmp_path / "gpt2", model_type="gpt2")
    with pytest.raises(ExpertsDoNotMatch, match="has model_type 'gpt2'; only 'frozen_glyph' and 'frozen_glyph_moe'"):
        merge_experts([experts[0], other], tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"expert .*nowhere' is no folder and cannot be fetched from the Hub"):
        merge_experts([experts[0], tmp_path / "nowhere"], tmp_path / "m")
    for fields in ({"substrate_trainable": True}, {"substrate_fingerprint": None}):
        other = altered(experts[1], tmp_path / next(iter(fields)), **fields)
        with pytest.raises(ExpertsDoNotMatch, match="has no frozen substrate with a fingerprint"):
            merge_experts([experts[0], other], tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"rule": "posteriori"},
            r"rule='posteriori' is not known\. Did you mean 'posterior'\? Allowed: mean, weighted, probability, post",
        ),
        ({"weights": [1.0, 1.0]}, r"weights=\[1.0, 1.0\] mean nothing to rule='mean'.*choose rule='weighted'"),
        ({"rule": "weighted", "weights": [1.0]}, r"weights=\[1.0\] must be 2 finite numbers"),
        ({"rule": "posterior", "weights": [1.0, -0.5]}, "must be 2 non-negative numbers"),
        ({"rule": "weighted", "weights": [1.0, -1.0]}, "with a sum above 0"),
        ({"rule": "evidence", "weights": [0.0, 0.0]}, "with a sum above 0"),
        ({"rule": "weighted", "weights": [1.0, float("nan")]}, "must be 2 finite numbers"),
        ({"rule": "probability", "weights": [1.0, float("inf")]}, "must be 2 non-negative numbers"),
        ({"names": ["only one"]}, r"names=\['only one'\] is not allowed: it must be 2 different names"),
        ({"names": ["same", "same"]}, "must be 2 different names"),
    ],
)
def test_bad_rule_weights_or_names_are_refused_and_write_nothing(experts, tmp_path, arguments, message):
    with pytest.raises(FrozenGlyphError, match=message):
        merge_experts(experts, tmp_path / "m", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(experts, tmp_path):
    out = tmp_path / "m"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(FrozenGlyphError, match=r"exists and is not empty; choose a new folder"):
        merge_experts(experts, out)
    assert contents(out) == {"thesis.txt": b"years of work"}
    with pytest.raises(FrozenGlyphError, match=r"thesis.txt' cannot be written"):
        merge_experts(experts, out / "thesis.txt")


def remove_a_tensor(path):
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.fc_in.bias"]
    save_file(tensors, path, metadata={"format": "pt"})


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_the_last_bit(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("config.json", lambda path: path.write_text("{"), "config.json' is damaged"),
        ("blocks-1.safetensors", flip_the_last_bit, "blocks-1.safetensors' is damaged: sha256"),
        ("head-2.safetensors", flip_the_last_bit, "head-2.safetensors' is damaged: sha256"),
        ("substrate.safetensors", flip_the_last_bit, "the substrate in .* has fingerprint"),
        ("blocks-2.safetensors", truncate, "blocks-2.safetensors' cannot be read: it has"),
        ("blocks-2.safetensors", lambda path: path.unlink(), "blocks-2.safetensors' cannot be read"),
    ],
)
def test_a_damaged_expert_leaves_nothing_behind(experts, tmp_path, file, harm, message, place):
    damaged = shutil.copytree(experts[place], tmp_path / "damaged")
    harm(damaged / file)
    folders = [damaged if number == place else folder for number, folder in enumerate(experts)]
    with pytest.raises(CheckpointError, match=message) as caught:
        merge_experts(folders, tmp_path / "out" / "m")
    assert str(damaged) in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("blocks-2.safetensors", lambda path: path.unlink(), "blocks-2.safetensors' cannot be read"),
        ("head-2.safetensors", truncate, "head-2.safetensors' cannot be read"),
        ("blocks-2.safetensors", flip_the_last_bit, "blocks-2.safetensors' is damaged: sha256 of its contents"),
        ("blocks-2.safetensors", remove_a_tensor, "blocks-2.safetensors' is of another checkpoint than stage-2"),
        ("substrate.safetensors", flip_the_last_bit, r"has fingerprint sha256:\w{64}, its config.json names"),
        (
            "stage-2.safetensors.index.json",
            lambda path: path.unlink(),
            "stage-2.safetensors.index.json' does not exist",
        ),
    ],
)
def test_damage_is_found_without_provenance(experts, tmp_path, file, harm, message):
    damaged = shutil.copytree(experts[1], tmp_path / "damaged")
    (damaged / "provenance.json").unlink()
    harm(damaged / file)
    with pytest.raises(CheckpointError, match=message) as caught:
        merge_experts([experts[0], damaged], tmp_path / "out" / "m")
    assert str(damaged) in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_experts_without_provenance_or_stages(experts, merged_folder, tmp_path):
    """As ``save_pretrained`` writes them."""
    plain = []
    for folder in experts:
        plain.append(tmp_path / folder.name)
        FrozenGlyphForCausalLM.from_pretrained(folder).save_pretrained(plain[-1])
    merged = merge_experts(plain, tmp_path / "m")
    for shard in ("expert-0", "expert-1", "head", "substrate"):
        assert sha256_file(merged / f"{shard}.safetensors") == sha256_file(merged_folder / f"{shard}.safetensors")


def test_the_experts_are_not_changed(experts, tmp_path):
    before = [contents(folder) for folder in experts]
    merge_experts(experts, tmp_path / "m", rule="posterior")
    assert [contents(folder) for folder in experts] == before
