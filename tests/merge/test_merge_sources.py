"""What can be an expert: stages, merged models, branches of a trunk, adapters; each against models run alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.provenance import rewriting
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.experts import ExpertsDoNotMatch, open_experts
from frozen_glyph.merge.plan import check_rule, plan_merge
from frozen_glyph.merge.recipe import ExpertRecipe, MergeRecipe, load_merge_recipe
from frozen_glyph.merge.write import write_merged

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
LINEAR = ("mean", "weighted")


@torch.no_grad()
def logits(folder, ids, stage=None, **fields):
    return FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage, **fields).eval()(ids).logits


@torch.no_grad()
def merged_logits(folder, ids):
    return FrozenGlyphMoEForCausalLM.from_pretrained(folder).eval()(ids).logits


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def tune(folder, head=True):
    """Make a merged folder say what tuning says of it: that the head was trained, or only the experts' weights."""
    provenance = json.loads((folder / "provenance.json").read_text()) | {"kind": "tune-head"}
    for record in provenance["experts"] if head else ():
        del record["content_sha256"]
    (folder / "provenance.json").write_text(json.dumps(provenance))


def tensors_of(folder):
    return {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}


def same_tensors(one, two):
    first, second = tensors_of(one), tensors_of(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
def adapted_logits(base, adapter, ids):
    """As peft runs it."""
    return PeftModel.from_pretrained(FrozenGlyphForCausalLM.from_pretrained(base), adapter).eval()(ids).logits


class TestStages:
    def test_every_expert_can_be_of_any_stage(self, experts, tmp_path, token_ids):
        ids = token_ids(2, 9)
        out = merge_experts([f"{experts[0]}@1", ExpertRecipe(str(experts[1]), stage=1), experts[0]], tmp_path / "m")
        expected = [logits(experts[0], ids, 1), logits(experts[1], ids, 1), logits(experts[0], ids)]
        torch.testing.assert_close(merged_logits(out, ids), sum(expected) / 3, atol=1e-5, rtol=1e-5)
        assert config_of(out)["expert_names"] == ["ru", "zh", "ru-2"]
        parents = json.loads((out / "provenance.json").read_text())["parents"]
        assert [parent.get("stage") for parent in parents] == [1, 1, None]

    def test_stages_that_are_not_there(self, experts, tmp_path):
        with pytest.raises(CheckpointError, match=r"ru' has no stage 3; its stages are 1\.\.2"):
            merge_experts([f"{experts[0]}@3", experts[1]], tmp_path / "m")
        with pytest.raises(FrozenGlyphError, match=r"growth stage 'two' must be a number from 1 on, as in runs/ru@2"):
            merge_experts([f"{experts[0]}@two", experts[1]], tmp_path / "m")

    def test_a_folder_of_that_very_name_comes_first(self, experts, tmp_path):
        odd = shutil.copytree(experts[0], tmp_path / "ru@1")
        assert config_of(merge_experts([odd, experts[1]], tmp_path / "m"))["expert_names"] == ["ru@1", "zh"]


class TestSeveral:
    def test_order_of_sources_permutes_weights_and_tensors(self, experts, trunk, tmp_path):
        folders = [*experts, trunk]
        out = merge_experts(folders, tmp_path / "m", "weighted", [1, 2, 5])
        turned = merge_experts([folders[i] for i in (2, 0, 1)], tmp_path / "turned", "weighted", [5, 1, 2])
        assert config_of(turned)["expert_weights"] == [5 / 8, 1 / 8, 2 / 8] != config_of(out)["expert_weights"]
        before, after = tensors_of(out), tensors_of(turned)
        for new, old in enumerate((2, 0, 1)):
            own = {name: t for name, t in before.items() if name.startswith(f"model.experts.{old}.")}
            for name, tensor in own.items():
                assert torch.equal(after[name.replace(f".{old}.", f".{new}.", 1)], tensor)
            assert torch.equal(after["lm_head.weight"].chunk(3, 1)[new], before["lm_head.weight"].chunk(3, 1)[old])
            assert torch.equal(after["lm_head.bias"][new], before["lm_head.bias"][old])

    @pytest.mark.parametrize("inner", LINEAR)
    def test_a_merged_model_counts_as_its_experts(self, experts, trunk, tmp_path, token_ids, inner):
        ids = token_ids(2, 9)
        weights = None if inner == "mean" else [3, 1]
        pair = merge_experts(experts, tmp_path / "pair", inner, weights)
        nested = merge_experts([pair, trunk], tmp_path / "nested", "weighted", [1, 3])
        shares = [1 / 8, 1 / 8, 3 / 4] if inner == "mean" else [3 / 16, 1 / 16, 3 / 4]
        assert config_of(nested)["expert_weights"] == shares
        flat = merge_experts([*experts, trunk], tmp_path / "flat", "weighted", shares)
        assert same_tensors(nested, flat)
        expected = 0.25 * merged_logits(pair, ids) + 0.75 * logits(trunk, ids)
        torch.testing.assert_close(merged_logits(nested, ids), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("rule", ["mean", "probability", "posterior", "fixed_share"])
    def test_merged_models_of_one_rule(self, experts, trunk, tmp_path, rule):
        """``mean`` counts every expert once; the priors of the others multiply."""
        pair = merge_experts(experts, tmp_path / "pair", rule)
        nested = merge_experts([trunk, pair], tmp_path / "nested", rule)
        shares = [1 / 3] * 3 if rule == "mean" else [1 / 2, 1 / 4, 1 / 4]
        assert config_of(nested)["expert_weights"] == shares
        assert same_tensors(nested, merge_experts([trunk, *experts], tmp_path / "flat", rule))
        other = "posterior" if rule == "mean" else "mean"
        with pytest.raises(
            ExpertsDoNotMatch, match=rf"is merged by rule '{rule}', this merge by '{other}'.*--rule {other}"
        ):
            check_rule(open_experts(Source(str(pair))), other)

    @torch.no_grad()
    @pytest.mark.parametrize("rule", ["probability", "posterior"])
    def test_mixtures_of_mixtures_are_exact(self, experts, trunk, tmp_path, token_ids, rule):
        ids = token_ids(1, 9)
        pair = merge_experts(experts, tmp_path / "pair", rule, [1, 2])
        nested = merged_logits(merge_experts([pair, trunk], tmp_path / "nested", rule), ids).log_softmax(-1)[0]
        parts = [merged_logits(pair, ids).log_softmax(-1)[0], logits(trunk, ids).log_softmax(-1)[0]]
        earned = torch.zeros(2)
        for position in range(9):
            shares = (
                (earned + torch.tensor(0.5).log()).log_softmax(0)
                if rule == "posterior"
                else torch.tensor(0.5).log().repeat(2)
            )
            expected = torch.logaddexp(shares[0] + parts[0][position], shares[1] + parts[1][position])
            torch.testing.assert_close(nested[position], expected, atol=1e-4, rtol=1e-4)
            if position < 8:
                earned += torch.stack([part[position, ids[0, position + 1]] for part in parts])

    def test_experts_of_a_merged_source_keep_their_names_behind_its_own(self, experts, trunk, tmp_path):
        pair = merge_experts(experts, tmp_path / "pair")
        out = merge_experts([pair, trunk, trunk], tmp_path / "m", names=["p", "x", "y"])
        assert config_of(out)["expert_names"] == ["p/ru", "p/zh", "x", "y"]

    def test_a_tuned_head_is_not_taken_apart(self, experts, trunk, tmp_path):
        pair = merge_experts(experts, tmp_path / "pair")
        tune(pair)
        with pytest.raises(ExpertsDoNotMatch, match=r"was tuned for its experts together.*choose rule='weighted'"):
            merge_experts([pair, trunk], tmp_path / "m")
        out = merge_experts([pair, trunk], tmp_path / "m", "weighted")
        records = json.loads((out / "provenance.json").read_text())["experts"]
        assert [record.get("tuned", False) for record in records] == [True, True, False]

    def test_heads_of_other_types(self, experts, tmp_path):
        model = FrozenGlyphForCausalLM.from_pretrained(experts[1], dtype=torch.bfloat16)
        model.save_pretrained(tmp_path / "half")
        with pytest.raises(ExpertsDoNotMatch, match=r"differ in type of lm_head\.weight: .*'F32'.*'BF16'"):
            merge_experts([experts[0], tmp_path / "half"], tmp_path / "m")


@pytest.mark.parametrize("name", ["..", "../zh", "/etc", "a\x1b[31m", "a\nb", "a\\b"])
def test_a_name_that_no_folder_could_have_is_refused(experts, tmp_path, name):
    """Given, or as a merged checkpoint from elsewhere says."""
    with pytest.raises(ValueError, match=r"cannot be the name of an expert.*--names"):
        merge_experts(experts, tmp_path / "m", names=["ru", name])
    merged = merge_experts(experts, tmp_path / "merged")
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps(config | {"expert_names": ["ru", name]}))
    with pytest.raises(ValueError, match=r"cannot be the name of an expert.*--names"):
        merge_experts([merged, experts[0]], tmp_path / "m")


class TestTrunk:
    def test_branches_share_what_they_adopted(self, trunk, branches, tmp_path, token_ids):
        ids = token_ids(2, 9)
        out = merge_experts(branches, tmp_path / "m")
        config = config_of(out)
        assert (config["num_shared_layers"], [e["num_hidden_layers"] for e in config["experts"]]) == (2, [1, 2])
        names = {path.name for path in out.glob("*.safetensors")}
        assert names == {f"{n}.safetensors" for n in ("substrate", "trunk", "expert-0", "expert-1", "head")}
        expected = (logits(branches[0], ids) + logits(branches[1], ids)) / 2
        torch.testing.assert_close(merged_logits(out, ids), expected, atol=1e-5, rtol=1e-5)

    def test_what_the_trunk_saves_is_reported(self, branches):
        report = plan_merge(MergeRecipe([str(folder) for folder in branches])).report()
        assert [expert["shared_layers"] for expert in report["experts"]] == [2, 2]
        block = 4 * 48 * 48 + 2 * 4 * 48 * 48 + 4 * 48 + 48 + 4 * 48
        assert report["shared_parameters"] == 2 * block
        assert report["shared_bytes"]["trunk"] == 4 * 2 * block
        assert report["saved_bytes"] == report["shared_bytes"]["trunk"] + report["shared_bytes"]["substrate"]
        single = FrozenGlyphForCausalLM.from_pretrained(branches[0]).num_parameters()
        assert report["parameters"] == 2 * single + (4 - 3) * block - 2 * block

    def test_fewer_stages_share_less(self, trunk, branches, experts, tmp_path):
        assert config_of(merge_experts([branches[0], f"{trunk}@1"], tmp_path / "one"))["num_shared_layers"] == 1
        assert config_of(merge_experts([*branches, experts[0]], tmp_path / "none"))["num_shared_layers"] == 0

    def test_equal_bits_elsewhere_are_found_by_content(self, branches, tmp_path):
        copied = shutil.copytree(branches[1], tmp_path / "copied")
        assert config_of(merge_experts([branches[0], copied], tmp_path / "m"))["num_shared_layers"] == 2

    def test_shared_blocks_of_another_shape_are_not_shared(self, trunk, branches, tmp_path):
        other = shutil.copytree(trunk, tmp_path / "other")
        with rewriting(other, "config.json"):
            (other / "config.json").write_text(json.dumps(config_of(trunk) | {"num_attention_heads": 2}))
        assert config_of(merge_experts([branches[0], other], tmp_path / "m"))["num_shared_layers"] == 0

    def test_flattened_models_keep_and_lose_a_trunk(self, trunk, branches, experts, tmp_path, token_ids):
        ids = token_ids(2, 9)
        pair = merge_experts(branches, tmp_path / "pair")
        third = merge_experts([trunk, pair], tmp_path / "third")
        assert config_of(third)["num_shared_layers"] == 2
        assert same_tensors(third, merge_experts([trunk, *branches], tmp_path / "flat"))
        for number, (others, shared) in enumerate((([f"{trunk}@1"], 1), ([experts[0]], 0))):
            out = merge_experts([pair, *others], tmp_path / f"more-{number}")
            assert config_of(out)["num_shared_layers"] == shared
            alone = logits(experts[0], ids) if shared == 0 else logits(trunk, ids, 1)
            expected = (logits(branches[0], ids) + logits(branches[1], ids) + alone) / 3
            torch.testing.assert_close(merged_logits(out, ids), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("rule", ["mean", "posterior"])
    def test_model_merged_with_itself_predicts_the_same(self, trunk, tmp_path, token_ids, rule):
        out = merge_experts([trunk, trunk], tmp_path / "m", rule)
        assert config_of(out)["num_shared_layers"] == 2
        found = merged_logits(out, token_ids(2, 9)).log_softmax(-1)
        torch.testing.assert_close(found, logits(trunk, token_ids(2, 9)).log_softmax(-1), atol=1e-5, rtol=1e-5)


class TestAdapters:
    def test_adapters_on_one_trunk(self, trunk, branches, adapted, tmp_path, token_ids):
        ids = token_ids(2, 9)
        kept = [adapted("ru", seed=1), adapted("zh", ["v_proj"], seed=2, rank=2)]
        out = merge_experts([*kept, trunk, branches[0]], tmp_path / "m")
        config = config_of(out)
        assert config["expert_names"] == ["ru", "zh", "trunk", "a"]
        assert [expert["num_hidden_layers"] for expert in config["experts"]] == [0, 0, 0, 1]
        assert config["experts"][0]["lora"] == {"rank": 3, "alpha": 4.5, "targets": ["mlp.fc_out", "self_attn.q_proj"]}
        alone = [adapted_logits(trunk, folder, ids) for folder in kept]
        alone += [logits(trunk, ids), logits(branches[0], ids)]
        assert min((one - alone[2]).abs().max() for one in alone[:2]) > 0.1
        torch.testing.assert_close(merged_logits(out, ids), sum(alone) / 4, atol=1e-5, rtol=1e-5)

    def test_the_base_can_be_said(self, trunk, adapted, tmp_path):
        moved = shutil.copytree(adapted("ru", seed=1), tmp_path / "adapter")
        words = [f"{trunk}@2+{moved}", ExpertRecipe(str(trunk), adapter=str(moved))]
        assert config_of(merge_experts(words, tmp_path / "m"))["expert_names"] == ["adapter", "adapter-2"]
        with pytest.raises(CheckpointError, match=r"adapter' does not say its base; give it as BASE@STAGE\+"):
            merge_experts([moved, trunk], tmp_path / "n")
        config = json.loads((moved / "adapter_config.json").read_text())
        (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(trunk)}))
        assert config_of(merge_experts([moved, trunk], tmp_path / "n"))["num_shared_layers"] == 2

    def test_an_adapter_leads_nowhere_but_where_its_user_went(self, trunk, branches, adapted, tmp_path):
        """What a stranger wrote into it would put the contents of any folder into what is merged."""
        moved = shutil.copytree(adapted("ru", seed=1), tmp_path / "adapter")
        config = json.loads((moved / "adapter_config.json").read_text())

        def refused(base, message):
            (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
            with pytest.raises(CheckpointError, match=message):
                merge_experts([moved, branches[0]], tmp_path / "n")

        for base in (str(trunk), f"{trunk}@2", "/etc", "../trunk", "a/b/c"):
            refused(base, r"adapter_config\.json' names as its base .*say it yourself, as .*\+.*adapter")
        refused("+", "names no checkpoint as its base")
        run = shutil.copytree(trunk, tmp_path / "run")
        shutil.copytree(moved, run / "mine")
        (run / "mine" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(run)}))
        assert config_of(merge_experts([run / "mine", branches[0]], tmp_path / "m"))["num_shared_layers"] == 2

    def test_flattened_with_its_adapters(self, trunk, adapted, tmp_path):
        kept = [adapted("ru", seed=1), adapted("zh", seed=2)]
        pair = merge_experts(kept, tmp_path / "pair")
        assert same_tensors(merge_experts([pair, trunk], tmp_path / "m"), merge_experts([*kept, trunk], tmp_path / "n"))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("peft_type", "LOHA"),
            ("use_dora", True),
            ("use_rslora", True),
            ("bias", "all"),
            ("modules_to_save", ["lm_head"]),
            ("rank_pattern", {"q_proj": 8}),
            ("init_lora_weights", "pissa"),
        ],
    )
    def test_other_kinds_are_refused_by_name(self, trunk, adapted, tmp_path, field, value):
        folder = adapted("ru")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(CheckpointError, match=f"lora-2' is of a kind that cannot be merged: {field}="):
            merge_experts([folder, trunk], tmp_path / "m")

    def test_adapters_that_do_not_fit(self, trunk, experts, branches, adapted, tmp_path):
        folder = adapted("ru")
        with pytest.raises(CheckpointError, match="does not fit its base of 1 blocks: it has 'base_model"):
            merge_experts([f"{trunk}@1+{folder}", trunk], tmp_path / "m")
        with pytest.raises(
            CheckpointError, match=r"must stand on every block of its base; it has no 2.mlp_fc_out.lora_A"
        ):
            merge_experts([f"{branches[0]}+{folder}", trunk], tmp_path / "m")
        with pytest.raises(
            ExpertsDoNotMatch, match=r"stands on 2 blocks .* the experts share 0; merge it with experts on"
        ):
            merge_experts([folder, experts[0]], tmp_path / "m")
        data = bytearray((folder / "adapter_model.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "adapter_model.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors' is damaged"):
            merge_experts([folder, trunk], tmp_path / "m")
        assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("path", sorted(HUB_CONFIGS.glob("*/merge.yaml")), ids=lambda path: path.parent.name)
def test_shipped_recipes_are_merged(path, experts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_merge_recipe(path)
    for folder, expert in zip(experts, recipe.sources(), strict=True):
        shutil.copytree(folder, tmp_path / expert.source)
    config = config_of(write_merged(plan_merge(recipe), tmp_path / "m"))
    assert (config["rule"], config["expert_names"]) == (recipe.rule, recipe.names)
