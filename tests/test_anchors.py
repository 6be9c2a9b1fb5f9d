"""Written folders keep their names and bytes, and seeded training its losses, whatever is redrawn inside the package.

Weights follow from integers, so that the same bytes are written on every processor. A change of these numbers is a
change of the format or of the method: say so in the change log, with what it means for folders that exist.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from frozen_glyph import extract_expert, grow, grow_from_recipe, merge_experts
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.growth.recipe import load_recipe

FINGERPRINT = "sha256:2fab8a6d5066ddc2a0244a356d69d9f1d979c449fcc38646071b895f3e0a098a"
WHITENED_FINGERPRINT = "sha256:7f97ae0d56f5ad9305d52486afc3f88d5ab4ea4bcfba5548e3aaf1140efb8b6a"
WHITENED = {"substrate.safetensors": "9f00e6fc9a0ff25f", "tokenizer.json": "9b825395096fa3ee"}
GROWN = {
    "blocks-1.safetensors": "17529316137940cd",
    "blocks-2.safetensors": "4123593927ae27c0",
    "head-1.safetensors": "661ebfbc186c92a1",
    "head-2.safetensors": "790f87c23c70ba24",
    "model.safetensors.index.json": "f7bd4b0f16ce7f6c",
    "stage-1.safetensors.index.json": "ddd3e1a57df04e86",
    "stage-2.safetensors.index.json": "f7bd4b0f16ce7f6c",
    "substrate.safetensors": "5073643aa74ff9e7",
    "tokenizer.json": "9b825395096fa3ee",
}
MERGED = {
    "expert-0.safetensors": "9538446c888d9c41",
    "expert-1.safetensors": "73160ae498c25455",
    "head.safetensors": "c06a8d275598307d",
    "model.safetensors.index.json": "39501b5c22f0923a",
    "substrate.safetensors": "5073643aa74ff9e7",
    "tokenizer.json": "9b825395096fa3ee",
    "trunk.safetensors": "e5872da9433079b5",
}
EXTRACTED = {
    "blocks-1.safetensors": "17529316137940cd",
    "blocks-2.safetensors": "5dc2b2abd38d89ed",
    "head.safetensors": "3ed79da3662d35b1",
    "model.safetensors.index.json": "2ba91cb6760c7974",
    "substrate.safetensors": "5073643aa74ff9e7",
    "tokenizer.json": "9b825395096fa3ee",
}
RECIPE_SHA256 = "784b073335754fb9a9c8c9d00490c83dc534daf375b9deaecbbef1494e6e9516"
TRAIN_LOSSES = [2.68339, 1.36275]
HELD_OUT_LOSSES = [1.78648, 2.01991]
RUN_FILES = {
    ".work",
    "README.md",
    "blocks-1.safetensors",
    "blocks-1.stage-2.safetensors",
    "blocks-2.safetensors",
    "config.json",
    "generation_config.json",
    "growth.html",
    "growth.png",
    "head-1.safetensors",
    "head-2.safetensors",
    "metrics-1.jsonl",
    "metrics-2-lora.jsonl",
    "metrics-2.jsonl",
    "model.safetensors.index.json",
    "provenance.json",
    "stage-1.safetensors.index.json",
    "stage-2.safetensors.index.json",
    "substrate.json",
    "substrate.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
RECORD = {
    "files",
    "flops",
    "health",
    "init",
    "layers",
    "learning_rate",
    "memory_bytes",
    "nats_per_character",
    "num_hidden_layers",
    "parameters",
    "patience",
    "phases",
    "seconds",
    "stage",
    "steps",
    "tokens",
    "train",
    "train_loss",
    "trainable_parameters",
    "uniform_nats_per_character",
}


def fill(model: torch.nn.Module, salt: int) -> None:
    """Give everything that trains values between -0.5 and 0.5 that depend on their place and ``salt`` alone."""
    with torch.no_grad():
        for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
            places = torch.arange(parameter.numel(), dtype=torch.int64) + 7919 * number + 104729 * salt
            parameter.copy_(((places * 2654435761 % 1009 - 504).float() / 1008).reshape(parameter.shape))


def digests(folder: Path) -> dict[str, str]:
    """The first 16 digits of the sha256 of what the package itself decides: shards, indexes, tokenizer."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith((".safetensors", ".index.json")) or path.name == "tokenizer.json":
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def plain_config(folder: Path) -> dict:
    """``config.json`` without the version of transformers."""
    content = json.loads((folder / "config.json").read_text("utf-8"))
    content.pop("transformers_version")
    return content


@pytest.fixture(scope="module")
def grown(plain_substrate, build_plain_model, tmp_path_factory):
    """Two experts on one trunk of one block: stages of 1 and 2, and of 1 and 3 blocks."""
    folders, trunk = [], None
    for number, blocks in enumerate((1, 2)):
        folder = tmp_path_factory.mktemp("anchors") / f"expert-{number}"
        plain_substrate.save_pretrained(folder)
        trunk = build_plain_model(0, num_hidden_layers=1, ladder=[1])
        fill(trunk, 1)
        stages = [{"stage": 1, "files": write_stage(folder, trunk, 1)}]
        model = grow(trunk, blocks, init="random")
        fill(model, 2 + number)
        stages.append({"stage": 2, "files": write_stage(folder, model, 2)})
        write_provenance(folder, "growth", {"recipe": {"name": folder.name}, "stages": stages})
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def merged(grown, tmp_path_factory):
    return merge_experts(grown, tmp_path_factory.mktemp("anchors") / "merged", "posterior", weights=[0.25, 0.75])


def test_fingerprint_of_a_substrate(plain_substrate):
    assert plain_substrate.fingerprint == FINGERPRINT


def test_bytes_of_a_whitened_substrate(substrate, tmp_path):
    assert substrate.fingerprint == WHITENED_FINGERPRINT
    substrate.save_pretrained(tmp_path)
    assert digests(tmp_path) == WHITENED


def test_bytes_of_a_grown_folder(grown):
    assert digests(grown[0]) == GROWN


def test_bytes_of_a_merged_folder(merged):
    assert digests(merged) == MERGED
    names = ("rule", "expert_weights", "expert_names", "num_shared_layers", "evidence_window", "architectures")
    config = plain_config(merged)
    assert [config[name] for name in names] == [
        "posterior", [0.25, 0.75], ["expert-0", "expert-1"], 1, 16, ["FrozenGlyphMoEForCausalLM"],
    ]  # fmt: skip
    assert [expert["num_hidden_layers"] for expert in config["experts"]] == [1, 2]


def test_bytes_of_an_extracted_folder(merged, tmp_path):
    assert digests(extract_expert(merged, "expert-1", tmp_path / "out")) == EXTRACTED


def test_losses_of_a_seeded_run(plain_substrate, tmp_path):
    """Training, held-out scoring and the provenance's names; losses agree between processors to a thousandth."""
    plain_substrate.save_pretrained(tmp_path / "glyphs")
    cats = [f"The cat {verb} on the mat, and {verb} there. Кот сидел на окне {verb}." for verb in ("sat", "is") * 24]
    (tmp_path / "train.txt").write_text("\n\n".join(cats), encoding="utf-8")
    (tmp_path / "valid.txt").write_text("The hat is on the cat.\n\nКот тоже сидел там.\n", encoding="utf-8")
    (tmp_path / "growth.yaml").write_text(
        "name: tiny\nmodel: {hidden_size: 48, num_attention_heads: 4}\n"
        "stages: [{steps: 12}, {steps: 12, init: copy}]\nlora: {rank: 2, steps: 4}\nseed: 5\n"
        "training: {context_length: 32, batch_tokens: 128, learning_rate: 1.0e-2, warmup_steps: 2, precision: fp32}\n",
        encoding="utf-8",
    )
    provenance = grow_from_recipe(
        load_recipe(tmp_path / "growth.yaml"),
        tmp_path / "run",
        [tmp_path / "train.txt"],
        [tmp_path / "valid.txt"],
        tmp_path / "glyphs",
    )
    assert provenance["recipe_sha256"] == RECIPE_SHA256
    assert [stage["train_loss"] for stage in provenance["stages"]] == pytest.approx(TRAIN_LOSSES, rel=1e-3)
    losses = [stage["nats_per_character"]["valid.txt"] for stage in provenance["stages"]]
    assert losses == pytest.approx(HELD_OUT_LOSSES, rel=1e-3)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {name for name in written if not name.endswith(".py")} == RUN_FILES
    assert "modeling_frozen_glyph.py" in written
    assert provenance["stages"][1].keys() == RECORD
