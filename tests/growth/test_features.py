"""What a recipe can ask for beyond plain stages, each carried out for real in a run of a second or two."""

import importlib.util
import json

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM, merge_experts
from frozen_glyph.checkpoint.files import CheckpointError, read_tensors, sha256_file
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.recipes.errors import RecipeError

LORA = {"lora": {"rank": 2, "from_stage": 2, "steps": 6}}
STAGES = [{"steps": 12}, {"layers": 2, "steps": 12, "init": "random"}]


def shards(folder) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("*.safetensors")}


def weights(folder, stage: int) -> dict[str, torch.Tensor]:
    return FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage).state_dict()


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def logged(folder, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_lora_phase_gives_the_changed_blocks_new_shards(grow_tiny, finished, tmp_path):
    plain, _ = finished
    provenance = grow_tiny(tmp_path / "run", LORA)
    assert {"blocks-1.safetensors", "blocks-1.stage-2.safetensors"} <= shards(tmp_path / "run").keys()
    assert not differing(weights(plain, 1), weights(tmp_path / "run", 1))
    changed = differing(weights(plain, 2), weights(tmp_path / "run", 2))
    below = {name.split(".")[-2] for name in changed if name.startswith("model.layers.0.")}
    assert below == {"q_proj", "k_proj", "v_proj", "o_proj", "fc_in", "fc_out"}
    assert "model.layers.0.mlp.fc_in.bias" not in changed
    phases = provenance["stages"][1]["phases"]
    assert (phases["blocks"]["steps"], phases["lora"]["steps"]) == (12, 6)
    assert provenance["stages"][1]["tokens"] == 18 * 128
    assert logged(tmp_path / "run", "metrics-2-lora.jsonl")[-1]["step"] == 6


def test_adapters_that_are_kept_leave_the_stage_as_it_was(grow_tiny, finished, tmp_path):
    from peft import PeftModel

    plain, _ = finished
    grow_tiny(tmp_path / "run", {"lora": LORA["lora"] | {"merge": False}})
    assert shards(tmp_path / "run") == shards(plain)
    base = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run")
    ids = torch.arange(3, 23).unsqueeze(0)
    before = base(ids).logits
    adapted = PeftModel.from_pretrained(base, tmp_path / "run" / "lora-2")(ids).logits
    assert (adapted - before).abs().max() > 1e-3


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_cached_prefix_trains_the_same_within_rounding(grow_tiny, finished, tmp_path, where):
    plain, provenance = finished
    cached = grow_tiny(tmp_path / "run", {"training.prefix_cache": where})
    assert not differing(weights(plain, 1), weights(tmp_path / "run", 1))
    before, after = provenance["stages"][1], cached["stages"][1]
    assert after["train_loss"] == pytest.approx(before["train_loss"], abs=0.02)
    assert after["nats_per_character"]["valid.txt"] == pytest.approx(
        before["nats_per_character"]["valid.txt"], abs=0.02
    )
    assert after["train_loss"] != before["train_loss"]  # the states are rounded to bfloat16: the cache was used


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_a_quantised_prefix_leaves_the_stored_blocks_alone(grow_tiny, finished, tmp_path):
    plain, provenance = finished
    quantised = grow_tiny(tmp_path / "run", {"training.quantize_frozen": "int8"})
    assert sha256_file(tmp_path / "run" / "blocks-1.safetensors") == sha256_file(plain / "blocks-1.safetensors")
    found = [run["stages"][1]["nats_per_character"]["valid.txt"] for run in (quantised, provenance)]
    assert found[0] == pytest.approx(found[1], abs=0.1)
    assert found[0] != found[1]


def test_a_stage_without_new_blocks_goes_on_with_the_newest(grow_tiny, finished, tmp_path):
    plain, _ = finished
    provenance = grow_tiny(tmp_path / "run", {"stages": [*STAGES, {"layers": 0, "steps": 6}]})
    assert [entry["num_hidden_layers"] for entry in provenance["stages"]] == [1, 3, 3]
    assert not differing(weights(plain, 2), weights(tmp_path / "run", 2))
    changed = differing(weights(tmp_path / "run", 2), weights(tmp_path / "run", 3))
    assert not [name for name in changed if name.startswith("model.layers.0.")]
    assert [name for name in changed if name.startswith("model.layers.2.")]


def test_a_trainable_table_trains_in_stage_one_only(grow_tiny, tmp_path):
    stages = [{"steps": 6, "train": ["blocks", "norm", "head", "embeddings"]}, {"steps": 6}]
    changes = {"substrate": {"vocab_size": 512, "layout": "trainable"}, "stages": stages}
    provenance = grow_tiny(tmp_path / "run", changes, substrate=None)
    first, second = weights(tmp_path / "run", 1), weights(tmp_path / "run", 2)
    assert torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])
    size = first["model.embed_tokens.weight"].numel()
    assert provenance["stages"][0]["trainable_parameters"] - provenance["stages"][1]["trainable_parameters"] == size
    unfrozen = grow_tiny(tmp_path / "fixed", changes | {"stages": [{"steps": 6}, {"steps": 6}]}, substrate=None)
    assert unfrozen["stages"][0]["trainable_parameters"] == provenance["stages"][1]["trainable_parameters"]


@pytest.mark.parametrize("layout", ["binary", "random", "float"])
def test_a_run_on_a_code(grow_tiny, tmp_path, layout):
    changes = {"substrate": {"vocab_size": 512, "layout": layout, "bits": 16}, "stages": [{"steps": 2}]}
    grow_tiny(tmp_path / "run", changes, substrate=None)
    model = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "run")
    assert (model.config.substrate_bits, model.config.hidden_size) == (16, 48)


def test_float_codes_stay_as_they_are_and_dock(grow_tiny, tmp_path):
    """Bits and rotation are the same in both experts' stages and after merging, in any dtype."""
    changes = {"substrate": {"vocab_size": 512, "layout": "float", "bits": 24}}
    grow_tiny(tmp_path / "a", changes, substrate=None)
    grow_tiny(tmp_path / "b", {"seed": 6}, substrate=tmp_path / "a")
    merged = FrozenGlyphMoEForCausalLM.from_pretrained(
        merge_experts([tmp_path / "a", tmp_path / "b"], tmp_path / "merged"), dtype=torch.bfloat16
    )
    experts = [
        FrozenGlyphForCausalLM.from_pretrained(tmp_path / name, growth_stage=stage) for name in "ab" for stage in (1, 2)
    ]
    vectors = merged.substrate.weight
    assert merged.substrate.projection.shape == (24, 24) and vectors.dtype == torch.float32
    assert torch.equal(vectors, vectors[:, ::2].repeat_interleave(2, dim=1)) and len(vectors.unique()) > 1000
    assert all(torch.equal(expert.substrate.weight, vectors) for expert in experts)


def test_two_branches_of_one_trunk_share_its_bits(grow_tiny, finished, tmp_path):
    trunk, _ = finished
    for name, seed in (("first", 1), ("second", 2)):
        changes = {"parent": {"source": str(trunk), "stage": 1}, "stages": [{"steps": 6}], "seed": seed}
        provenance = grow_tiny(tmp_path / name, changes, substrate=None)
        assert [entry["stage"] for entry in provenance["stages"]] == [1, 2]
        assert provenance["stages"][0]["parents"][-1]["stage"] == 1
        assert str(trunk.parent) not in (tmp_path / name / "provenance.json").read_text()
        assert not differing(weights(trunk, 1), weights(tmp_path / name, 1))
        assert grow_tiny(tmp_path / name, changes, substrate=None) == provenance
    first, second = shards(tmp_path / "first"), shards(tmp_path / "second")
    shared = {name for name in first if first[name] == second.get(name)}
    assert shared == {"substrate.safetensors", "blocks-1.safetensors", "head-1.safetensors"}


def test_patience_ends_a_stage_early(grow_tiny, texts, tmp_path):
    changes = {
        "training.eval_steps": 2,
        "training.learning_rate": 1e-12,
        "stages": [{"steps": 40, "patience": 2}],
    }
    provenance = grow_tiny(tmp_path / "run", changes, valid=[texts[0]])
    phase = provenance["stages"][0]["phases"]["blocks"]
    assert phase["steps"] < 40
    assert provenance["stages"][0]["tokens"] == phase["steps"] * 128
    assert [entry for entry in logged(tmp_path / "run", "metrics-1.jsonl") if "eval_loss" in entry]


def test_documents_can_be_kept_apart(grow_tiny, finished, texts, tmp_path):
    _, provenance = finished
    data = {"sources": [{"files": [str(texts[0])]}], "attend_across_documents": False}
    apart = grow_tiny(tmp_path / "run", {"data": data}, text=[])
    assert apart["data"] == provenance["data"]
    assert apart["stages"][0]["train_loss"] != provenance["stages"][0]["train_loss"]


def test_the_picture_of_the_growth_is_drawn(finished):
    assert (finished[0] / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_phase_that_was_finished_is_not_trained_again(grow_tiny, tmp_path, monkeypatch):
    """Killed between the phase's end and the stage's record: the run goes on from what the phase left."""
    from frozen_glyph.growth import stage as stage_module

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "write_stage", stop)
        with pytest.raises(KeyboardInterrupt):
            grow_tiny(tmp_path / "run", LORA)
    kept = read_tensors(tmp_path / "run" / ".work" / "stage-1" / "blocks" / "trained.safetensors")
    assert not list((tmp_path / "run" / ".work" / "stage-1" / "blocks").glob("checkpoint-*"))
    grow_tiny(tmp_path / "run", LORA)
    written = read_tensors(tmp_path / "run" / "blocks-1.safetensors")
    assert all(torch.equal(written[name], kept[name]) for name in written)
    straight = tmp_path / "straight"
    grow_tiny(straight, LORA)
    assert shards(tmp_path / "run") == shards(straight)


def test_a_parent_that_is_refused_leaves_the_folder_free(grow_tiny, finished, tmp_path):
    changes = {"parent": {"source": str(finished[0]), "stage": 9}, "stages": [{"steps": 2}]}
    with pytest.raises(CheckpointError, match="has no stage 9"):
        grow_tiny(tmp_path / "run", changes, substrate=None)
    changes["parent"]["stage"] = 1
    assert len(grow_tiny(tmp_path / "run", changes, substrate=None)["stages"]) == 2


def test_text_that_is_refused_after_the_parent_leaves_the_folder_free(grow_tiny, finished, tmp_path):
    changes = {"parent": {"source": str(finished[0]), "stage": 1}, "stages": [{"steps": 2}]}
    for content, message in ((b"Short.", "fewer than one window"), (b"\xff\xfe", "is not UTF-8")):
        (tmp_path / "text.txt").write_bytes(content)
        with pytest.raises(FrozenGlyphError, match=message):
            grow_tiny(tmp_path / "run", changes, text=[tmp_path / "text.txt"], substrate=None)
        assert [path.name for path in (tmp_path / "run").iterdir()] in ([], [".work"])
    assert len(grow_tiny(tmp_path / "run", changes, substrate=None)["stages"]) == 2


def test_evaluation_without_held_out_text_is_refused_before_anything_is_written(grow_tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"training\.eval_steps needs held-out text"):
        grow_tiny(tmp_path / "run", {"training.eval_steps": 2}, valid=[])
    assert not (tmp_path / "run").exists()
