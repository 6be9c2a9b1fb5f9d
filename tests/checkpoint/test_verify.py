"""Bytes that changed since they were written are refused by name, by every command that reads them."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, grow_from_recipe, merge_experts, tune_head
from frozen_glyph.checkpoint import reader
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file
from frozen_glyph.checkpoint.provenance import read_provenance, write_provenance
from frozen_glyph.checkpoint.reader import checkpoint_sha256
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.checkpoint.streaming import content_sha256
from frozen_glyph.cli.tables import checkpoint_table
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.health.checkpoint import measure_health
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.reweigh import reweigh_experts
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM
from frozen_glyph.model.verification_frozen_glyph import contents_sha256, read_header

TEXT = "\n\n".join(f"The cat {verb} on the mat, and {verb} there." for verb in ("sat", "is", "stood") * 12)


@pytest.fixture(scope="module")
def home(substrate, tiny_training, tmp_path_factory):
    """A run of two stages, its text and recipe."""
    home = tmp_path_factory.mktemp("verified")
    (home / "text.txt").write_text(TEXT, encoding="utf-8")
    substrate.save_pretrained(home / "glyphs")
    write_recipe(home, "run", tiny_training, stages=[{"steps": 1}, {"steps": 1, "init": "random"}])
    grow(home, "run", home / "run")
    return home


def write_recipe(home, name, training, **fields):
    recipe = {"name": name, "model": {"hidden_size": 48, "num_attention_heads": 4}, "health": "off"}
    recipe |= {"training": training | {"batch_tokens": 64}, "data": {"sources": [{"files": [str(home / "text.txt")]}]}}
    (home / f"{name}.yaml").write_text(json.dumps(recipe | fields), encoding="utf-8")


def grow(home, name, out, substrate="glyphs"):
    return grow_from_recipe(load_recipe(home / f"{name}.yaml"), out, substrate=substrate and home / substrate)


@pytest.fixture
def run(home, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(home / "run", tmp_path / "run")


@pytest.fixture
def merged(merged_folder, tmp_path):
    return shutil.copytree(merged_folder, tmp_path / "merged")


def flip(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit(path, old, new):
    content = path.read_text("utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


DAMAGES = {
    "blocks-1.safetensors": flip,
    "blocks-2.safetensors": flip,
    "head-2.safetensors": flip,
    "substrate.safetensors": flip,
    "config.json": lambda path: edit(path, '"layer_norm_eps": 1e-05', '"layer_norm_eps": 1e-01'),
    "tokenizer.json": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "tokenizer_config.json": lambda path: path.write_bytes(b"{}"),
    "stage-2.safetensors.index.json": lambda path: edit(path, "model.layers.0.", "model.layers.1."),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_command_refuses_damaged_bytes_by_name(home, run, merged_folder, tiny_training, tmp_path, name):
    DAMAGES[name](run / name)
    write_recipe(home, "child", tiny_training, stages=[{"steps": 1}], parent={"source": str(run)})
    commands = {
        "merge": lambda: merge_experts([run, home / "run"], tmp_path / "out"),
        "to-dense": lambda: export_dense(run, tmp_path / "out"),
        "resume": lambda: grow(home, "run", run),
        "parent": lambda: grow(home, "child", tmp_path / "out", None),
        "eval": lambda: checkpoint_sha256(run),
        "health": lambda: measure_health(run, home / "text.txt"),
        "push": lambda: files_to_push(run),
    }
    others = {
        "substrate": "the substrate in '.*run' has",
        "stage-2": "run' has no tensors of",
    }  # found before by effect
    named = "|".join([name.replace(".", r"\."), *filter(None, [others.get(name.split(".")[0])])])
    for command, call in commands.items():
        with pytest.raises((CheckpointError, ValueError), match=named):
            call()
            pytest.fail(command)
    assert name in describe_checkpoint(run, verify=True)["problems"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["head.safetensors", "expert-0.safetensors", "config.json", "tokenizer.json"])
def test_what_reads_a_merged_folder_refuses_damaged_bytes_by_name(home, merged, make_training, tmp_path, name):
    if name.endswith(".safetensors"):
        flip(merged / name)
    else:
        edit(merged / name, "1", "2")
    experts = json.loads((merged / "config.json").read_text())["expert_names"]
    commands = {
        "tune-head": lambda: tune_head(
            merged, tmp_path / "out", TuneRecipe(steps=1, training=make_training()), [home / "text.txt"]
        ),
        "to-dense": lambda: export_dense(merged, tmp_path / "out"),
        "eval": lambda: checkpoint_sha256(merged),
        "health": lambda: measure_health(merged, home / "text.txt"),
        "push": lambda: files_to_push(merged),
    }
    for command, call in commands.items():
        with pytest.raises((CheckpointError, ValueError), match=name.replace(".", r"\.")):
            call()
            pytest.fail(command)
    refused = 0
    for expert in experts:  # of a shard each reads its own part
        try:
            extract_expert(merged, expert, tmp_path / expert)
        except (CheckpointError, ValueError):
            refused += 1
    assert refused == (1 if name.endswith(".safetensors") else len(experts))


@pytest.mark.parametrize(
    "name", ["modeling_frozen_glyph.py", "growth.png", "metrics-1.jsonl", "generation_config.json", "substrate.json"]
)
def test_verify_covers_every_file(run, name):
    flip(run / name)
    problems = describe_checkpoint(run, verify=True)["problems"]
    assert list(problems) == [name]
    assert "has other bytes than were written; fetch it again or, if you changed it yourself" in problems[name]


@pytest.mark.parametrize("folder", ["run", "dense", "saved", "foreign"])
def test_verify_names_what_is_no_number_in_any_shard(run, tmp_path, folder):
    """Whether its contents are recorded, its file, or nothing."""
    model, out = FrozenGlyphForCausalLM.from_pretrained(run), tmp_path / folder
    with torch.no_grad():
        model.lm_head.weight[3, 4] = float("nan")
    name = "model.safetensors"
    if folder == "run":
        name, out = "head-2.safetensors", run
        record = read_provenance(out)
        write_provenance(out, "growth", {"stages": record["stages"][:1]})
        record["stages"][1]["files"] = write_stage(out, model, 2)
        write_provenance(out, "growth", {"stages": record["stages"]})
    else:
        model.save_pretrained(out)
    if folder == "dense":
        write_provenance(out, "dense", {"files": {name: sha256_file(out / name)}})
    if folder == "foreign":
        tensors = {"x": torch.full((3,), float("nan"))}
        save_file(tensors, out / name)
    problems = describe_checkpoint(out, verify=True)["problems"]
    assert "holds NaN in " + ("x" if folder == "foreign" else "lm_head.weight") in problems[name]


def test_a_file_that_its_owner_changed_is_taken_out_of_the_record(run, tmp_path):
    edit(run / "config.json", '"layer_norm_eps": 1e-05', '"layer_norm_eps": 1e-04')
    provenance = json.loads((run / "provenance.json").read_text())
    del provenance["companions"]["config.json"]
    (run / "provenance.json").write_text(json.dumps(provenance))
    facts = describe_checkpoint(run, verify=True)
    assert (facts["problems"], facts["unrecorded"]) == ({}, ["config.json"])
    told = checkpoint_table(facts)
    assert "not recorded: config.json" in told and "files: every recorded byte as written" in told
    export_dense(run, tmp_path / "dense")


def test_the_card_is_for_people(run, tmp_path):
    (run / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert describe_checkpoint(run, verify=True)["problems"] == {}
    assert "README.md" in files_to_push(run)


def test_folders_that_record_less_verify_what_they_record(home, run, tmp_path):
    """As the first version wrote them: shards alone. JSON that is none is found all the same."""
    provenance = json.loads((run / "provenance.json").read_text())
    companions = provenance.pop("companions")
    (run / "provenance.json").write_text(json.dumps(provenance))
    facts = describe_checkpoint(run, verify=True)
    assert (facts["problems"], facts["unrecorded"]) == ({}, sorted(companions))
    export_dense(run, tmp_path / "dense")
    merge_experts([run, home / "run"], tmp_path / "merged")
    assert len(grow(home, "run", run)["stages"]) == 2
    (run / "tokenizer.json").write_text("{")
    for call in (lambda: files_to_push(run), lambda: merge_experts([run, home / "run"], tmp_path / "again")):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json' is damaged"):
            call()
    (run / "tokenizer.json").write_bytes((home / "run" / "tokenizer.json").read_bytes())
    flip(run / "head-1.safetensors")
    assert list(describe_checkpoint(run, verify=True)["problems"]) == ["head-1.safetensors"]


def test_a_changed_rule_is_recorded(merged):
    reweigh_experts(merged, rule="posterior")
    assert describe_checkpoint(merged, verify=True)["problems"] == {}
    assert describe_checkpoint(merged, verify=True)["unrecorded"] == []
    edit(merged / "config.json", '"posterior"', '"mean"')
    assert "config.json" in describe_checkpoint(merged, verify=True)["problems"]


def test_a_run_that_goes_on_records_its_files_anew(home, tiny_training, tmp_path):
    write_recipe(home, "branch", tiny_training, stages=[{"steps": 1}], parent={"source": str(home / "run"), "stage": 1})
    grow(home, "branch", tmp_path / "branch", None)
    facts = describe_checkpoint(tmp_path / "branch", verify=True)
    assert (facts["problems"], facts["unrecorded"]) == ({}, [])


class TestLoading:
    @pytest.mark.parametrize("name", ["blocks-1.safetensors", "head-2.safetensors", "config.json"])
    def test_verify_reads_every_byte(self, run, name):
        FrozenGlyphForCausalLM.from_pretrained(run, verify=True)
        DAMAGES[name](run / name)
        with pytest.raises(ValueError, match=rf"{name.replace('.', '[.]')} is damaged: sha256 \w+…, written as"):
            FrozenGlyphForCausalLM.from_pretrained(run, verify=True)
        FrozenGlyphForCausalLM.from_pretrained(run)  # the default maps the files and trusts their bytes

    def test_an_earlier_stage_is_verified_by_its_own_files(self, run):
        flip(run / "head-2.safetensors")
        FrozenGlyphForCausalLM.from_pretrained(run, growth_stage=1, verify=True)
        flip(run / "head-1.safetensors")
        with pytest.raises(ValueError, match=r"head-1\.safetensors is damaged"):
            FrozenGlyphForCausalLM.from_pretrained(run, growth_stage=1, verify=True)

    def test_merged_heads_side_by_side(self, merged):
        FrozenGlyphMoEForCausalLM.from_pretrained(merged, verify=True)
        flip(merged / "head.safetensors")
        with pytest.raises(ValueError, match=r"head\.safetensors is damaged"):
            FrozenGlyphMoEForCausalLM.from_pretrained(merged, verify=True)

    def test_a_dense_export_is_verified_by_its_provenance(self, run, tmp_path):
        dense = export_dense(run, tmp_path / "dense")
        FrozenGlyphForCausalLM.from_pretrained(dense, verify=True)
        flip(dense / "model.safetensors")
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            FrozenGlyphForCausalLM.from_pretrained(dense, verify=True)

    def test_what_nobody_recorded_is_said(self, run, tmp_path, caplog):
        FrozenGlyphForCausalLM.from_pretrained(run).save_pretrained(tmp_path / "saved")
        with caplog.at_level(logging.WARNING):
            FrozenGlyphForCausalLM.from_pretrained(tmp_path / "saved", verify=True)
        assert "nothing says what" in caplog.text and "model.safetensors' was written with" in caplog.text

    def test_both_rooms_hash_alike(self, run, merged):
        for path in (*run.glob("*.safetensors"), *merged.glob("*.safetensors")):
            assert contents_sha256(path, *read_header(path)) == content_sha256(path)


class TestIdentity:
    """What ``eval`` keeps its answers by."""

    def test_weights_that_changed_under_a_recorded_hash_are_refused(self, run):
        first = checkpoint_sha256(run)
        assert checkpoint_sha256(run) == first
        flip(run / "head-2.safetensors", -1)
        with pytest.raises(CheckpointError, match=r"head-2\.safetensors' is damaged"):
            checkpoint_sha256(run)

    @pytest.mark.parametrize(
        "name", ["pytorch_model.bin", "model.safetensors", "config.json", "vocab.txt", "modeling_x.py"]
    )
    def test_any_byte_that_decides_changes_it(self, tmp_path, name):
        """Of models of others, which record nothing."""
        header = json.dumps({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
        (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        for other in ("pytorch_model.bin", "vocab.txt", "modeling_x.py"):
            (tmp_path / other).write_bytes(bytes(8))
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}  ')
        first = checkpoint_sha256(tmp_path)
        (tmp_path / "README.md").write_text("described")
        assert checkpoint_sha256(tmp_path) == first
        if name == "config.json":
            (tmp_path / name).write_text('{"model_type": "gptj"}  ')
        else:
            flip(tmp_path / name, -1)
        assert checkpoint_sha256(tmp_path) != first

    def test_a_file_is_read_once_while_it_does_not_change(self, run, monkeypatch):
        checkpoint_sha256(run)
        monkeypatch.setattr(reader, "hash_state", lambda hashed, path, *_: read.append(path.name) or hashed(path))
        read: list[str] = []
        checkpoint_sha256(run)
        assert "head-2.safetensors" in read  # asks; what was read before comes from memory
        monkeypatch.undo()
        before = reader.hash_state.cache_info().misses
        checkpoint_sha256(run)
        assert reader.hash_state.cache_info().misses == before
