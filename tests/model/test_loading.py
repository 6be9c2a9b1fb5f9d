"""Loading: growth stages, Auto classes with the package imported, and readable refusals of damaged folders."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from frozen_glyph import (
    FrozenGlyphConfig,
    FrozenGlyphForCausalLM,
    FrozenGlyphModel,
    FrozenGlyphMoEConfig,
    FrozenGlyphMoEForCausalLM,
    FrozenGlyphMoEModel,
    grow,
)
from frozen_glyph.checkpoint.files import sha256_file, write_tensors
from frozen_glyph.checkpoint.stages import write_stage


@pytest.fixture(scope="module")
def staged(build_model, substrate, tmp_path_factory):
    """A folder of three stages, and the models that were written into it."""
    folder = tmp_path_factory.mktemp("staged")
    substrate.save_pretrained(folder)
    models = [build_model(seed=30, num_hidden_layers=2, ladder=[2])]
    write_stage(folder, models[0], 1)
    for stage in (2, 3):
        torch.manual_seed(stage)
        models.append(grow(models[-1], 1, init="random").eval())
        write_stage(folder, models[-1], stage)
    return folder, models


@pytest.mark.parametrize("stage", [1, 2, 3, None])
@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM])
def test_stages_load_bit_for_bit(staged, token_ids, auto, stage):
    folder, models = staged
    original, ids = models[(stage or 3) - 1], token_ids(2, 9)
    loaded = auto.from_pretrained(folder, **({} if stage is None else {"growth_stage": stage})).eval()
    assert torch.equal(loaded(ids).logits, original(ids).logits)
    assert loaded.config.num_hidden_layers == original.config.num_hidden_layers
    assert loaded.config.num_frozen_layers == original.config.num_frozen_layers
    assert loaded.config.ladder == original.config.ladder


def test_stages_load_without_head(staged, token_ids):
    folder, models = staged
    ids = token_ids(2, 9)
    loaded = AutoModel.from_pretrained(folder, growth_stage=2)
    assert type(loaded) is FrozenGlyphModel
    assert torch.equal(loaded(ids).last_hidden_state, models[1].model(ids).last_hidden_state)


@pytest.mark.parametrize("stage", ["2", 2])
@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM])
def test_a_stage_may_be_text(staged, auto, stage):
    """As it comes from a command line."""
    assert auto.from_pretrained(staged[0], growth_stage=stage).config.ladder == [2, 3]


@pytest.mark.parametrize("stage", ["two", "2.0", True, ""])
def test_a_stage_that_is_no_number(staged, stage):
    with pytest.raises(ValueError, match=r"growth_stage=.* must be the number of a stage, counted from 1"):
        FrozenGlyphForCausalLM.from_pretrained(staged[0], growth_stage=stage)


def test_stages_in_model_args_of_lm_eval(staged, token_ids):
    get_model = pytest.importorskip("lm_eval.api.registry").get_model
    arguments = f"pretrained={staged[0]},growth_stage=2"
    model = get_model("hf").create_from_arg_string(arguments, {"batch_size": 1, "device": "cpu"}).model
    ids = token_ids(2, 9)
    assert torch.equal(model(ids).logits, staged[1][1](ids).logits)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_loaded_stage_saves_and_loads_as_a_checkpoint_of_its_own(staged, tmp_path, stage):
    """Without the name of the stage's index, which is not there."""
    model = FrozenGlyphForCausalLM.from_pretrained(staged[0], growth_stage=stage)
    model.save_pretrained(tmp_path)
    assert "transformers_weights" not in json.loads((tmp_path / "config.json").read_text())
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.ladder == [2, 3, 4][:stage]
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_stages_share_shards(staged):
    folder, _ = staged
    maps = [
        json.loads((folder / f"stage-{stage}.safetensors.index.json").read_text())["weight_map"] for stage in (1, 2, 3)
    ]
    assert set(maps[0].values()) == {"substrate.safetensors", "blocks-1.safetensors", "head-1.safetensors"}
    assert set(maps[2].values()) - set(maps[1].values()) == {"blocks-3.safetensors", "head-3.safetensors"}
    assert json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"] == maps[2]


def test_a_later_stage_leaves_earlier_shards_alone(staged, tmp_path):
    folder, models = staged
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {path.name: sha256_file(path) for path in copy.glob("*.safetensors")}
    write_stage(copy, grow(models[2], 1), 4)
    assert {name: sha256_file(copy / name) for name in before} == before


@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM, AutoModel])
@pytest.mark.parametrize("stage", [9, 0])
def test_a_stage_that_does_not_exist(staged, auto, stage):
    with pytest.raises(ValueError, match=rf"growth_stage={stage} does not exist; stages here: 1\.\.3"):
        auto.from_pretrained(staged[0], growth_stage=stage)


def test_a_merged_model_has_no_stages(merged_folder):
    with pytest.raises(ValueError, match="growth_stage=1: a 'frozen_glyph_moe' checkpoint has no growth stages"):
        AutoModelForCausalLM.from_pretrained(merged_folder, growth_stage=1)


@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM])
def test_a_stage_with_other_settings(staged, auto):
    model = auto.from_pretrained(staged[0], growth_stage=1, use_cache=False, dtype=torch.bfloat16)
    assert (model.config.num_hidden_layers, model.config.use_cache, model.dtype) == (2, False, torch.bfloat16)


def test_a_given_configuration_is_not_changed(staged):
    config = FrozenGlyphConfig.from_pretrained(staged[0])
    before = config.to_dict()
    model = FrozenGlyphForCausalLM.from_pretrained(staged[0], config=config, growth_stage=1)
    assert len(model.model.layers) == 2
    assert config.to_dict() == before


def test_growing_on_from_an_earlier_stage(staged):
    first = FrozenGlyphForCausalLM.from_pretrained(staged[0], growth_stage=1)
    assert grow(first, 3).config.ladder == [2, 5]


def test_auto_classes_know_the_package(experts, merged_folder, tokenizer):
    classes = {
        AutoConfig: (FrozenGlyphConfig, FrozenGlyphMoEConfig),
        AutoModel: (FrozenGlyphModel, FrozenGlyphMoEModel),
        AutoModelForCausalLM: (FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM),
    }
    for auto, expected in classes.items():
        found = tuple(type(auto.from_pretrained(folder)) for folder in (experts[0], merged_folder))
        assert found == expected
    for folder in (experts[0], merged_folder):
        loaded = AutoTokenizer.from_pretrained(folder)
        assert loaded("Кот 猫 cat")["input_ids"] == tokenizer("Кот 猫 cat")["input_ids"]
        assert loaded.pad_token_id == tokenizer.pad_token_id


def rewrite(path, change):
    """Let ``change`` edit a shard's tensors in place."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def other_values(path):
    """What another run of the same recipe would have written."""
    return {name: tensor + 1 for name, tensor in load_file(path).items()}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_one_bit(tensors):
    tensors["model.embed_tokens.packed_bits"][5, 3] ^= 1


def cut_one_row(tensors):
    tensors["model.layers.1.mlp.fc_in.weight"] = tensors["model.layers.1.mlp.fc_in.weight"][:-1].clone()


DAMAGES = {
    "shard missing": (lambda folder: (folder / "blocks-2.safetensors").unlink(), "blocks-2.safetensors"),
    "shard truncated": (
        lambda folder: truncate(folder / "blocks-2.safetensors"),
        r"is damaged: blocks-2.safetensors cannot be read .*; fetch or write it again",
    ),
    "shard foreign": (
        lambda folder: write_tensors(folder / "blocks-2.safetensors", other_values(folder / "blocks-2.safetensors")),
        "does not fit .*: blocks-2.safetensors is of another checkpoint or was changed",
    ),
    "shard of another stage": (
        lambda folder: shutil.copy(folder / "head-1.safetensors", folder / "head-2.safetensors"),
        "does not fit .*: head-2.safetensors is of another checkpoint or was changed",
    ),
    "index missing": (
        lambda folder: (folder / "stage-2.safetensors.index.json").unlink(),
        r"stage-2\.safetensors\.index\.json",
    ),
    "shard empty": (
        lambda folder: (folder / "head-2.safetensors").write_bytes(b""),
        "is damaged: head-2.safetensors cannot be read",
    ),
    "index damaged": (
        lambda folder: (folder / "stage-2.safetensors.index.json").write_text('{"weight_map"'),
        "is damaged: stage-2.safetensors.index.json cannot be read",
    ),
    "tensor missing": (
        lambda folder: rewrite(folder / "blocks-2.safetensors", lambda t: t.pop("model.layers.1.mlp.fc_in.bias")),
        r"does not fit FrozenGlyphForCausalLM: missing: model.layers.1.mlp.fc_in.bias \(blocks-2.safetensors\)\. The ",
    ),
    "center missing": (
        lambda folder: rewrite(folder / "substrate.safetensors", lambda t: t.pop("model.embed_tokens.center")),
        r"missing: model.embed_tokens.center \(substrate.safetensors\)",
    ),
    "tensor of another shape": (
        lambda folder: rewrite(folder / "blocks-2.safetensors", cut_one_row),
        r"mismatched: model.layers.1.mlp.fc_in.weight \(blocks-2.safetensors\)",
    ),
    "tensor superfluous": (
        lambda folder: rewrite(
            folder / "blocks-2.safetensors", lambda t: t.update({"model.layers.7.mlp.fc_in.bias": torch.zeros(2)})
        ),
        r"unexpected: model.layers.7.mlp.fc_in.bias \(blocks-2.safetensors\)",
    ),
    "substrate tampered with": (
        lambda folder: rewrite(folder / "substrate.safetensors", flip_one_bit),
        r"substrate in substrate.safetensors has fingerprint sha256:\w{64}, the configuration names sha256:\w{64}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM])
def test_a_damaged_folder_is_refused(experts, tmp_path, auto, damage):
    folder = shutil.copytree(experts[0], tmp_path / "damaged")
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        auto.from_pretrained(folder)
    assert str(folder) in str(caught.value) or damage == "substrate tampered with"
    if damage != "substrate tampered with" and "center" not in damage:  # what stage 1 needs is whole
        FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=1)


def test_a_damaged_shard_is_named_without_head(experts, tmp_path):
    folder = shutil.copytree(experts[0], tmp_path / "damaged")
    rewrite(folder / "blocks-2.safetensors", lambda tensors: tensors.pop("model.layers.1.mlp.fc_in.bias"))
    with pytest.raises(ValueError, match=r"missing: layers.1.mlp.fc_in.bias \(blocks-2.safetensors\)"):
        AutoModel.from_pretrained(folder)


def test_a_damaged_merged_folder_is_refused(merged_folder, tmp_path):
    folder = shutil.copytree(merged_folder, tmp_path / "damaged")
    rewrite(folder / "expert-1.safetensors", lambda tensors: tensors.pop("model.experts.1.norm.weight"))
    with pytest.raises(ValueError, match=r"missing: model\.experts\.1\.norm\.weight \(expert-1\.safetensors\)"):
        AutoModelForCausalLM.from_pretrained(folder)
    rewrite(folder / "substrate.safetensors", flip_one_bit)
    shutil.copy(merged_folder / "expert-1.safetensors", folder)
    with pytest.raises(ValueError, match="has fingerprint"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_settings_are_checked_at_loading(merged_folder, experts):
    with pytest.raises(ValueError, match="rule='posteriori' is not known; allowed: mean, weighted, probability, "):
        AutoModelForCausalLM.from_pretrained(merged_folder, rule="posteriori")
    with pytest.raises(ValueError, match=r"num_frozen_layers=5 must lie in 0\.\.num_hidden_layers=2"):
        AutoModelForCausalLM.from_pretrained(experts[0], num_frozen_layers=5)


def test_loading_information_is_still_given(experts):
    model, info = FrozenGlyphForCausalLM.from_pretrained(experts[0], output_loading_info=True)
    assert isinstance(model, FrozenGlyphForCausalLM)
    assert not info["missing_keys"]


@pytest.mark.parametrize("auto", [FrozenGlyphForCausalLM, AutoModelForCausalLM])
def test_a_pickle_is_never_loaded(build_model, tmp_path, auto):
    model = build_model(seed=3, num_hidden_layers=1)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        auto.from_pretrained(tmp_path)
