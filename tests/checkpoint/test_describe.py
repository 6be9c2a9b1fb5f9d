"""What is said of a checkpoint is what it is: numbers against the loaded models, damages by name, headers only."""

import json
import shutil

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, grow
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, write_tensors
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.stages import write_stage


@pytest.fixture(scope="module")
def described(substrate, build_model, tmp_path_factory):
    """A folder with provenance: stages of 1, 2 and again 2 blocks; the third trains block 2 on."""
    folder = tmp_path_factory.mktemp("described") / "run"
    substrate.save_pretrained(folder)
    model = build_model(seed=1, num_hidden_layers=1, ladder=[1])
    stages = []
    for stage in (1, 2, 3):
        if stage == 2:
            model = grow(model, 1, init="random")
        model.config.ladder = [1, 2, 2][:stage]
        stages.append(
            {
                "stage": stage,
                "trainable_parameters": 100 * stage,
                "nats_per_character": {"ru.txt": 3 - stage / 4},
                "flops": stage,
                "memory_bytes": 7,
                "files": write_stage(folder, model, stage),
            }
        )
    recipe = {"recipe": {"name": "tiny"}, "seed": 7, "stages": stages}
    write_provenance(folder, "growth", recipe)
    return folder


def test_numbers_are_those_of_the_loaded_models(described):
    facts = describe_checkpoint(described, verify=True)
    assert (facts["name"], facts["kind"], facts["seed"], facts["recipe"]["name"]) == ("run", "growth", 7, "tiny")
    assert [stage["layers"] for stage in facts["stages"]] == [1, 2, 2]
    for stage in facts["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(described, growth_stage=stage["stage"])
        assert stage["parameters"] == model.num_parameters()
        assert stage["bytes"] == sum(tensor.nbytes for tensor in model.state_dict().values())
        assert stage["trained_parameters"] == 100 * stage["stage"]
        assert stage["nats_per_character"] == {"ru.txt": 3 - stage["stage"] / 4}
    assert facts["parameters"] == model.num_parameters()
    assert facts["bytes"] == sum(stage["own_bytes"] for stage in facts["stages"])
    on_disk = sum(path.stat().st_size for path in described.glob("*.safetensors"))
    assert facts["bytes"] < on_disk < 1.1 * facts["bytes"]
    assert facts["stages"][0]["own_bytes"] == facts["stages"][0]["bytes"]
    blocks = model.model.layers[1].state_dict().values()
    head = [*model.model.norm.parameters(), *model.lm_head.parameters()]
    assert facts["stages"][2]["own_bytes"] == sum(tensor.nbytes for tensor in (*blocks, *head))
    assert [(stage["flops"], stage["memory_bytes"]) for stage in facts["stages"]] == [(1, 7), (2, 7), (3, 7)]
    assert facts["problems"] == {}
    assert json.loads(json.dumps(facts)) == facts


def test_the_control_beside_a_run_is_told(described, tmp_path):
    run, control = (shutil.copytree(described, tmp_path / name) for name in ("run", "run-control"))
    losses = [{"ru.txt": 3 - stage / 4} for stage in (1, 2, 3)]
    assert [stage["control"] for stage in describe_checkpoint(run)["stages"]] == losses
    (control / "provenance.json").write_text("{", "utf-8")
    assert [stage["control"] for stage in describe_checkpoint(run)["stages"]] == [{}] * 3


def test_an_earlier_stage_is_described_as_it_was(described):
    """``NAME@STAGE``: the stages up to it, and the numbers of the model that loads there."""
    whole, facts = describe_checkpoint(described), describe_checkpoint(f"{described}@2")
    assert (facts["name"], facts["layers"], facts["stages"]) == ("run@2", 2, whole["stages"][:2])
    model = FrozenGlyphForCausalLM.from_pretrained(described, growth_stage=2)
    assert facts["parameters"] == model.num_parameters()
    with pytest.raises(CheckpointError, match=r"run' has no stage 4; its stages are 1\.\.3"):
        describe_checkpoint(f"{described}@4")


def test_only_headers_are_read(described, tmp_path):
    """The tensors' bytes are holes in the file here, yet everything is known of it."""
    folder = shutil.copytree(described, tmp_path / "run")
    for path in folder.glob("*.safetensors"):
        with path.open("rb+") as file:
            whole = path.stat().st_size
            file.truncate(8 + int.from_bytes(file.read(8), "little"))
            file.truncate(whole)
    assert describe_checkpoint(folder) == describe_checkpoint(described)
    assert len(describe_checkpoint(folder, verify=True)["problems"]) == len(list(folder.glob("*.safetensors")))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


DAMAGES = {
    "blocks-2.safetensors missing": (lambda path: path.unlink(), "cannot be read"),
    "blocks-2.safetensors truncated": (truncate, "its header says"),
    "blocks-2.safetensors foreign": (lambda path: write_tensors(path, {"x": torch.ones(3)}), "of another checkpoint"),
    "head-1.safetensors empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "stage-2.safetensors.index.json missing": (lambda path: path.unlink(), "missing"),
    "stage-3.safetensors.index.json damaged": (lambda path: path.write_text("{"), "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damages_are_named(described, tmp_path, damage):
    folder = shutil.copytree(described, tmp_path / "run")
    harm, message = DAMAGES[damage]
    name = damage.split()[0]
    harm(folder / name)
    problems = describe_checkpoint(folder)["problems"]
    assert list(problems) == [name]
    assert message in problems[name]


def test_a_flipped_bit_is_found_by_verifying(described, tmp_path):
    folder = shutil.copytree(described, tmp_path / "run")
    path = folder / "head-2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert describe_checkpoint(folder)["problems"] == {}
    problems = describe_checkpoint(folder, verify=True)["problems"]
    assert list(problems) == ["head-2.safetensors"]
    assert "is damaged: sha256" in problems["head-2.safetensors"]


def test_merged_and_plain_checkpoints(merged_folder, experts, tmp_path):
    facts = describe_checkpoint(merged_folder, verify=True)
    assert (facts["kind"], facts["rule"], facts["stages"], facts["problems"]) == ("merge", "mean", [], {})
    assert [(expert["name"], expert["layers"], expert["weight"]) for expert in facts["experts"]] == [
        ("ru", 2, 0.5),
        ("zh", 3, 0.5),
    ]
    assert [parent["name"] for parent in facts["parents"]] == ["ru", "zh"]
    model = FrozenGlyphForCausalLM.from_pretrained(experts[0])
    model.save_pretrained(tmp_path / "plain")
    plain = describe_checkpoint(tmp_path / "plain")
    assert (plain["kind"], plain["stages"], plain["layers"], plain["problems"]) == ("plain", [], 2, {})
    assert plain["parameters"] == model.num_parameters()


def test_what_is_no_checkpoint(tmp_path, described):
    with pytest.raises(
        CheckpointError, match="is no folder and cannot be fetched from the Hub: it is no Hub id either"
    ):
        describe_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has no config"):
        describe_checkpoint(tmp_path)
