"""Experts come out of a merged checkpoint with the bits they went in with; reweighing touches no shard."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from frozen_glyph import (
    FrozenGlyphForCausalLM,
    FrozenGlyphMoEForCausalLM,
    extract_expert,
    merge_experts,
    reweigh_experts,
)
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge import reweigh


def read(path):
    return json.loads(path.read_text())


def same_bits(one, two):
    """Whether two checkpoints, loaded as models, have the same names and bits."""
    first, second = (FrozenGlyphForCausalLM.from_pretrained(folder).state_dict() for folder in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def recorded(merged):
    return {entry["name"]: entry["content_sha256"] for entry in read(merged / "provenance.json")["experts"]}


class TestExtract:
    def test_extracted_experts_are_the_merged_ones_bit_for_bit(self, experts, merged_folder, tmp_path, token_ids):
        for folder in experts:
            again = extract_expert(merged_folder, folder.name, tmp_path / folder.name)
            assert same_bits(again, folder)
            assert read(again / "provenance.json")["content_sha256"] == recorded(merged_folder)[folder.name]
            assert describe_checkpoint(again, verify=True)["problems"] == {}
            model = FrozenGlyphForCausalLM.from_pretrained(again)
            original = FrozenGlyphForCausalLM.from_pretrained(folder)
            assert torch.equal(model(token_ids(1, 5)).logits, original(token_ids(1, 5)).logits)
            assert str(tmp_path) not in (again / "provenance.json").read_text()
        merged = merge_experts([tmp_path / "ru", tmp_path / "zh"], tmp_path / "merged")
        for shard in merged_folder.glob("*.safetensors"):
            assert sha256_file(merged / shard.name) == sha256_file(shard)
        assert recorded(merged) == recorded(merged_folder)

    def test_a_branch_has_its_trunk_and_shares_it_again(self, branches, tmp_path):
        merged = merge_experts(branches, tmp_path / "merged")
        for folder in branches:
            assert same_bits(extract_expert(merged, folder.name, tmp_path / folder.name), folder)
        again = merge_experts([tmp_path / "a", tmp_path / "b"], tmp_path / "again")
        assert read(again / "config.json") == read(merged / "config.json")
        assert recorded(again) == recorded(merged)

    def test_an_adapter_comes_out_with_its_base(self, trunk, adapted, tmp_path, token_ids):
        kept = adapted("ru", seed=1)
        merged = merge_experts([kept, trunk], tmp_path / "merged")
        again = extract_expert(merged, "ru", tmp_path / "again")
        assert same_bits(again, trunk)
        before, after = (load_file(folder / "adapter_model.safetensors") for folder in (kept, again / "lora"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        ids, alone = token_ids(1, 7), []
        for base, adapter in ((trunk, kept), (again, again / "lora")):
            model = PeftModel.from_pretrained(FrozenGlyphForCausalLM.from_pretrained(base), adapter).eval()
            alone.append(model(ids).logits)
        assert torch.equal(*alone)
        twice = merge_experts([again / "lora", again], tmp_path / "twice")
        assert set(recorded(twice).values()) == set(recorded(merged).values())

    def test_out_of_a_merge_of_merges(self, experts, trunk, merged_folder, tmp_path):
        nested = merge_experts([trunk, merged_folder], tmp_path / "nested")
        assert same_bits(extract_expert(nested, "zh", tmp_path / "zh"), experts[1])
        assert recorded(nested)["zh"] == recorded(merged_folder)["zh"]

    def test_extraction_needs_no_provenance(self, experts, merged_folder, tmp_path):
        plain = tmp_path / "plain"
        FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder).save_pretrained(plain)
        assert same_bits(extract_expert(plain, "ru", tmp_path / "ru"), experts[0])

    def test_damage_and_what_cannot_be_extracted(self, experts, merged_folder, tmp_path):
        with pytest.raises(CheckpointError, match=r"has no expert 'rru'\. Did you mean 'ru'\? Its experts: ru, zh"):
            extract_expert(merged_folder, "rru", tmp_path / "x")
        with pytest.raises(CheckpointError, match=r"is a grown model, not a merged one"):
            extract_expert(experts[0], "ru", tmp_path / "x")
        with pytest.raises(CheckpointError, match=r"is not empty; choose a new folder"):
            extract_expert(merged_folder, "ru", experts[0])
        damaged = shutil.copytree(merged_folder, tmp_path / "damaged")
        data = bytearray((damaged / "expert-0.safetensors").read_bytes())
        data[-9] ^= 1
        (damaged / "expert-0.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"expert 'ru' of .* is damaged: sha256 of its contents"):
            extract_expert(damaged, "ru", tmp_path / "x")
        assert same_bits(extract_expert(damaged, "zh", tmp_path / "zh"), experts[1])
        assert describe_checkpoint(damaged, verify=True)["problems"].keys() == {"expert-0.safetensors"}
        (damaged / "provenance.json").unlink()
        with pytest.raises(CheckpointError, match=r"expert-0\.safetensors' is damaged"):
            extract_expert(damaged, "ru", tmp_path / "x")
        tuned = shutil.copytree(merged_folder, tmp_path / "tuned")
        provenance = read(tuned / "provenance.json") | {"kind": "tune-head"}  # only the experts' weights were tuned
        (tuned / "provenance.json").write_text(json.dumps(provenance))
        assert same_bits(extract_expert(tuned, "ru", tmp_path / "kept"), experts[0])
        for record in provenance["experts"]:
            del record["content_sha256"]
        (tuned / "provenance.json").write_text(json.dumps(provenance))
        with pytest.raises(
            CheckpointError, match=r"was tuned for all experts together.*extract from what it was tuned"
        ):
            extract_expert(tuned, "ru", tmp_path / "x")
        assert not (tmp_path / "x").exists()


class TestReweigh:
    @pytest.fixture
    def folder(self, merged_folder, tmp_path):
        return shutil.copytree(merged_folder, tmp_path / "m")

    def test_only_config_card_and_provenance_change(self, folder, experts, tmp_path, token_ids):
        before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
        reweigh_experts(folder, "weighted", [3, 1])
        after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
        changed = {name for name in before if after[name] != before[name]}
        assert (changed, after.keys()) == ({"config.json", "README.md", "provenance.json"}, before.keys())
        straight = merge_experts(experts, tmp_path / "straight" / "m", "weighted", [3, 1])
        for name in changed:
            assert (folder / name).read_text() == (straight / name).read_text()
        logits = [FrozenGlyphForCausalLM.from_pretrained(e).eval()(token_ids(1, 6)).logits for e in experts]
        merged = FrozenGlyphMoEForCausalLM.from_pretrained(folder).eval()(token_ids(1, 6)).logits
        torch.testing.assert_close(merged, 0.75 * logits[0] + 0.25 * logits[1], atol=1e-5, rtol=1e-5)

    def test_what_is_not_given_stays(self, folder):
        reweigh_experts(folder, "posterior", [1, 3])
        reweigh_experts(folder, "evidence")
        assert [read(folder / "config.json")[name] for name in ("rule", "expert_weights")] == ["evidence", [0.25, 0.75]]
        reweigh_experts(folder, weights=[1, 1])
        assert [read(folder / "config.json")[name] for name in ("rule", "expert_weights")] == ["evidence", [0.5, 0.5]]
        reweigh_experts(folder, "weighted", [3, -1])
        with pytest.raises(FrozenGlyphError, match=r"must be 2 non-negative numbers"):
            reweigh_experts(folder, "posterior")
        reweigh_experts(folder, "mean")
        assert read(folder / "config.json")["expert_weights"] == [0.5, 0.5]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "nothing to change in .*: give a rule, weights or both"),
            ({"rule": "meen"}, "Did you mean 'mean'"),
            ({"weights": [1, 2]}, "mean nothing to rule='mean'.*choose rule='weighted'"),
            ({"rule": "weighted", "weights": [1]}, "must be 2 finite numbers"),
        ],
    )
    def test_bad_rule_or_weights_are_named_and_change_no_file(self, folder, arguments, message):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(FrozenGlyphError, match=message):
            reweigh_experts(folder, **arguments)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_what_cannot_be_reweighed(self, folder, experts):
        with pytest.raises(CheckpointError, match=r"is no merged checkpoint; merge experts first"):
            reweigh_experts(experts[0], "mean")
        provenance = read(folder / "provenance.json")
        (folder / "provenance.json").write_text(json.dumps(provenance | {"kind": "tune-head"}))
        with pytest.raises(
            CheckpointError, match=r"was tuned for rule 'mean' and its weights; reweigh what it was tuned"
        ):
            reweigh_experts(folder, "posterior")

    @pytest.mark.parametrize("writer", ["write_text", "write_json"])
    def test_stopped_half_way_the_old_rule_stays_and_inspect_says_so(self, folder, monkeypatch, writer):
        real = getattr(reweigh, writer)

        def killed(path, content):
            if path.name != "provenance.json":
                raise KeyboardInterrupt
            real(path, content)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(reweigh, writer, killed)
            reweigh_experts(folder, "posterior", [1, 3])
        facts = describe_checkpoint(folder)
        assert facts["rule"] == "mean"
        assert "says rule 'posterior'" in facts["problems"]["provenance.json"]
        reweigh_experts(folder, "posterior", [1, 3])
        assert describe_checkpoint(folder)["problems"] == {}
