"""Experts of other types of numbers: converted while they stream, to the bits that torch would give."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, merge_experts, tune_head
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.dtypes import STORED, convert
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.merge.experts import ExpertsDoNotMatch
from frozen_glyph.merge.recipe import load_merge_recipe
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.recipes.errors import RecipeError

TYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DTYPES = sorted(STORED)


def raw(tensor):
    return tensor.view(torch.uint8).numpy()


def numbers(stored):
    """Every kind of number: random bits, halfway between two of the other types, subnormal, infinite, none."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 4096, dtype=np.uint32)
    ties = (np.arange(0x3F000000, 0x3F200000, 0x8000, dtype=np.uint32)).astype(np.uint32)
    small = generator.integers(0, 0x00FFFFFF, 512, dtype=np.uint32)
    special = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x3F808000, 0x3F818000], np.uint32)
    found = torch.from_numpy(np.concatenate([bits, ties, ties + 1, ties - 1, small, special]).view(np.float32).copy())
    if stored == "F64":
        found = torch.cat([found.double(), found.double() * (1 + 2**-30), found.double() * (1 + 2**-25)])
    return found.to(TYPES[stored])


@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize("target", ["F32", "BF16", "F16"])
def test_bits_are_those_of_torch(source, target):
    """For all numbers that the target can hold; any not-a-number is as good as another."""
    given = numbers(source)
    expected = given.to(TYPES[target])
    held = ~(given.isfinite() & expected.isinf())
    given, expected = given[held].reshape(1, -1), expected[held].reshape(1, -1)
    found = torch.from_numpy(convert(raw(given), source, target)).view(TYPES[target])
    assert torch.equal(found.isnan(), expected.isnan())
    kept = ~expected.isnan()
    assert torch.equal(found[kept].view(torch.uint8), expected[kept].view(torch.uint8))
    assert expected.isinf().any() and expected.isnan().any() and held.sum() > 2500


@pytest.mark.parametrize(("source", "target"), [("F32", "F16"), ("BF16", "F16"), ("F64", "BF16"), ("F64", "F32")])
def test_a_number_beyond_the_type_is_refused(source, target):
    with pytest.raises(ValueError, match=r"is beyond .*; choose another dtype"):
        convert(raw(torch.tensor([[1.0, 1e39 if source == "F64" else 1e6]], dtype=TYPES[source])), source, target)


@pytest.fixture
def half(experts, tmp_path):
    """The second expert in bfloat16."""
    FrozenGlyphForCausalLM.from_pretrained(experts[1], dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same_bits(folder, other):
    first, second = tensors_of(folder), tensors_of(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), second[name].view(torch.uint8)), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_of_two_types_merge_as_if_converted_before(experts, half, tmp_path, dtype):
    merged = merge_experts([experts[0], half], tmp_path / "merged", names=["ru", "zh"], dtype=dtype)
    for name, folder in (("ru", experts[0]), ("zh", half)):
        model = FrozenGlyphForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        model.save_pretrained(tmp_path / f"{name}-before")
    before = [tmp_path / "ru-before", tmp_path / "zh-before"]
    same_bits(merged, merge_experts(before, tmp_path / "expected", names=["ru", "zh"]))
    loaded = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert str(loaded.dtype) == f"torch.{dtype}" and loaded.config.dtype == loaded.dtype
    assert not describe_checkpoint(merged, verify=True)["problems"]
    assert json.loads((merged / "provenance.json").read_text())["recipe"]["dtype"] == dtype


def test_extraction_gives_the_converted_bits_and_says_so(experts, half, tmp_path):
    merged = merge_experts([experts[0], half], tmp_path / "merged", names=["ru", "zh"], dtype="bfloat16")
    records = json.loads((merged / "provenance.json").read_text())["experts"]
    how = [{"from": "float32", "to": "bfloat16"}]
    assert [record.get("converted") for record in records] == [how, None]
    for name, before, said in (("ru", experts[0], how), ("zh", half, None)):
        out = extract_expert(merged, name, tmp_path / name)
        model = FrozenGlyphForCausalLM.from_pretrained(before, dtype=torch.bfloat16)
        again = FrozenGlyphForCausalLM.from_pretrained(out, dtype="auto")
        assert again.dtype == torch.bfloat16
        assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
        assert json.loads((out / "provenance.json").read_text()).get("converted") == said
        assert ("converted from float32 to bfloat16" in (out / "README.md").read_text()) == bool(said)


def test_without_a_dtype_bits_stay_and_other_types_are_refused_with_the_remedy(experts, half, tmp_path):
    with pytest.raises(ExpertsDoNotMatch, match=r"differ in type of lm_head.weight.*convert them: --dtype bfloat16"):
        merge_experts([experts[0], half], tmp_path / "merged")
    plain = merge_experts(experts, tmp_path / "plain")
    asked = merge_experts(experts, tmp_path / "asked", dtype="float32")
    same_bits(plain, asked)
    for folder in (plain, asked):
        assert all("converted" not in e for e in json.loads((folder / "provenance.json").read_text())["experts"])


def test_converted_blocks_are_not_taken_for_those_they_were_made_from(trunk, branches, tmp_path):
    """Nor are they shared with them; among themselves they are."""
    half = merge_experts(branches, tmp_path / "half", dtype="bfloat16")
    assert json.loads((half / "config.json").read_text())["num_shared_layers"] == 2
    back = merge_experts([half, branches[0]], tmp_path / "back", dtype="float32")
    assert json.loads((back / "config.json").read_text())["num_shared_layers"] == 0
    expected = FrozenGlyphForCausalLM.from_pretrained(branches[0], dtype=torch.bfloat16).float().state_dict()
    out = extract_expert(back, json.loads((back / "config.json").read_text())["expert_names"][0], tmp_path / "out")
    found = FrozenGlyphForCausalLM.from_pretrained(out).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads((out / "provenance.json").read_text())["converted"] == [
        {"from": "float32", "to": "bfloat16"},
        {"from": "bfloat16", "to": "float32"},
    ]


def test_adapters_are_converted_too(trunk, adapted, tmp_path):
    lora = adapted("a")
    merged = merge_experts([f"{trunk}@2", f"{trunk}@2+{lora}"], tmp_path / "m", names=["x", "y"], dtype="bfloat16")
    types = {tensor.dtype for tensor in tensors_of(merged).values()}
    assert torch.float32 not in types and torch.bfloat16 in types
    assert not describe_checkpoint(merged, verify=True)["problems"]


def test_damage_is_found_while_converting(experts, tmp_path):
    import shutil

    damaged = shutil.copytree(experts[0], tmp_path / "damaged")
    with (damaged / "blocks-1.safetensors").open("rb+") as file:
        file.seek(-3, 2)
        byte = file.read(1)
        file.seek(-3, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CheckpointError, match=r"blocks-1\.safetensors' is damaged"):
        merge_experts([damaged, experts[1]], tmp_path / "m", dtype="bfloat16")
    assert not (tmp_path / "m").exists()


def test_a_tuned_head_keeps_the_record(experts, make_training, tmp_path):
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 200)
    merged = merge_experts(experts, tmp_path / "m", dtype="bfloat16")
    tune_head(merged, tmp_path / "tuned", TuneRecipe(steps=1, training=make_training()), [tmp_path / "text.txt"])
    records = json.loads((tmp_path / "tuned" / "provenance.json").read_text())["experts"]
    assert all(record["converted"] for record in records)


def test_an_unknown_dtype_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"dtype.*'int8'.*float16"):
        load_merge_recipe(None, experts=["a", "b"], dtype="int8")
