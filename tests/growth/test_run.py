"""A recipe carried out: one folder with every stage, refused when it is not this run, never changed without need."""

import json
import math
import re
import shutil

import pytest
import torch
import yaml

from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate, grow_from_recipe, merge_experts
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.substrate.font import DEBIAN_HEX
from frozen_glyph.text.documents import TextFileError, read_text
from frozen_glyph.text.loss import text_loss


def snapshot(folder):
    """Identity and time of every file, which any write changes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def shard_hashes(folder) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


def test_provenance_says_what_was_done(finished, make_recipe, texts):
    folder, provenance = finished
    stored = json.loads((folder / "provenance.json").read_text())
    assert {key: stored[key] for key in provenance} == provenance
    recipe = make_recipe()
    assert (stored["kind"], stored["seed"]) == ("growth", 5)
    assert (stored["recipe"], stored["recipe_sha256"]) == (recipe.to_dict(), recipe.sha256)
    assert stored["data"] == [{"name": "train.txt", "sha256": sha256_file(texts[0])}]
    assert stored["valid"] == [{"name": "valid.txt", "sha256": sha256_file(texts[1])}]
    assert "torch" in stored["versions"]
    assert str(folder.parent) not in json.dumps(stored)
    for number, (entry, layers, depth) in enumerate(zip(stored["stages"], (1, 2), (1, 3), strict=True), start=1):
        assert [entry[key] for key in ("stage", "layers", "steps")] == [number, layers, 12]
        assert (entry["num_hidden_layers"], entry["tokens"]) == (depth, 12 * 4 * 32)
        assert all(sha256_file(folder / name) == digest for name, digest in entry["files"].items())
        model = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=number)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert (entry["parameters"], entry["trainable_parameters"]) == (model.num_parameters(), trainable)


def test_recorded_losses_are_those_of_the_written_stages(finished, texts, substrate):
    folder, provenance = finished
    for entry in provenance["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=entry["stage"])
        loss = text_loss(model, substrate.tokenizer, read_text(texts[1]))
        assert entry["nats_per_character"] == {"valid.txt": pytest.approx(loss.nats_per_character, rel=1e-5)}


def test_the_published_model_generates_with_a_cache(finished):
    for name in ("config.json", "generation_config.json"):
        assert json.loads((finished[0] / name).read_text()).get("use_cache", True)


def test_every_stage_learns(finished, substrate, texts):
    folder, _ = finished
    guessing = math.log(substrate.vocab_size)
    losses = [guessing]
    for stage in (1, 2):
        model = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage)
        loss = text_loss(model, substrate.tokenizer, read_text(texts[0]))
        losses.append(loss.nats.sum() / loss.tokens)
    assert losses[0] > 1.2 * losses[1] > 1.2 * losses[2], losses


def test_folder_is_a_complete_checkpoint(finished, substrate):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert {"blocks-1.safetensors", "blocks-2.safetensors", "head-1.safetensors", "head-2.safetensors"} <= names
    assert {"model.safetensors.index.json", "stage-1.safetensors.index.json", "generation_config.json"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert GlyphSubstrate.from_pretrained(folder).fingerprint == substrate.fingerprint
    config = json.loads((folder / "config.json").read_text())
    assert config["ladder"] == [1, 3]
    assert config["max_position_embeddings"] == 32
    assert config["eos_token_id"] == substrate.tokenizer.eos_token_id
    assert not list((folder / ".work").glob("stage-*"))


def test_metrics_hold_the_logged_steps(finished):
    for stage in (1, 2):
        lines = (finished[0] / f"metrics-{stage}.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert [entry["step"] for entry in entries] == [4, 8, 10, 12]  # each checkpoint, each tenth step, the last
        assert [entry["tokens"] for entry in entries] == [4 * 128, 8 * 128, 10 * 128, 12 * 128]
        for entry in entries:
            assert 0 < entry["learning_rate"] <= 1e-2
            assert min(entry["loss"], entry["grad_norm"], entry["seconds"], entry["tokens_per_second"]) > 0


def test_card_names_every_stage(finished):
    card = (finished[0] / "README.md").read_text("utf-8")
    metadata = yaml.safe_load(re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1])
    assert metadata["tags"] == ["frozen-glyph", "grown"]
    assert "# tiny" in card
    for entry in finished[1]["stages"]:
        loss = entry["nats_per_character"]["valid.txt"]
        assert (
            f"| {entry['stage']} | {entry['num_hidden_layers']} | {entry['trainable_parameters']:,} | {loss:.4f} |"
            in card
        )


def test_calling_a_finished_run_again_does_nothing(finished, grow_tiny):
    folder, provenance = finished
    before = snapshot(folder)
    assert grow_tiny(folder) == provenance
    assert grow_tiny(folder, substrate=None) == provenance  # the folder has its substrate
    assert snapshot(folder) == before


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(finished, grow_tiny, tmp_path):
    grow_tiny(tmp_path / "again")
    grow_tiny(tmp_path / "other", {"seed": 6})
    expected = shard_hashes(finished[0])
    assert shard_hashes(tmp_path / "again") == expected
    other = shard_hashes(tmp_path / "other")
    assert {name for name in expected if other[name] == expected[name]} == {"substrate.safetensors"}
    same = [json.loads((folder / "config.json").read_text()) for folder in (finished[0], tmp_path / "again")]
    assert same[0] == same[1]


def test_old_blocks_keep_their_bits_while_a_stage_trains(finished):
    first, second = (FrozenGlyphForCausalLM.from_pretrained(finished[0], growth_stage=k).state_dict() for k in (1, 2))
    kept = {name for name, tensor in first.items() if torch.equal(tensor, second[name])}
    assert {name for name in first if name.startswith(("model.layers.0.", "model.embed_tokens."))} == kept


class TestRefusals:
    """What does not belong to the run is named, and nothing in the folder changes."""

    @pytest.fixture
    def refuse(self, grow_tiny):
        def refuse(folder, error, message, changes=None, **arguments):
            before = snapshot(folder)
            with pytest.raises(error, match=message):
                grow_tiny(folder, changes, **arguments)
            assert snapshot(folder) == before

        return refuse

    def test_going_on_with_another_recipe_is_refused(self, finished, refuse):
        message = "tiny' holds a run of another recipe .*choose a new folder"
        refuse(finished[0], RunFolderError, message, {"training.learning_rate": 0.02})

    def test_going_on_with_other_texts_is_refused(self, finished, refuse, tmp_path):
        other = tmp_path / "train.txt"
        other.write_text("The cat sat. " * 50)
        refuse(finished[0], RunFolderError, "holds a run of other training text", text=[other])
        refuse(finished[0], RunFolderError, "holds a run of other held-out text", valid=[other])
        refuse(finished[0], RunFolderError, "holds a run of other held-out text", valid=[])

    def test_going_on_with_another_substrate_is_refused(self, finished, refuse, tokenizer, tmp_path, substrate):
        moved = GlyphSubstrate(tokenizer, substrate.packed_bits.flip(0), substrate.center, substrate.projection)
        moved.provenance.update(substrate.provenance)
        moved.save_pretrained(tmp_path / "moved")
        message = f"was started on substrate {substrate.fingerprint}, .*moved' has {moved.fingerprint}"
        refuse(finished[0], RunFolderError, message, substrate=tmp_path / "moved")

    def test_folder_with_foreign_files_is_refused(self, refuse, tmp_path):
        (tmp_path / "thesis.doc").write_text("years of work")
        refuse(tmp_path, RunFolderError, "exists and holds no growth run; choose an empty or new folder")

    def test_folder_of_a_merge_is_refused(self, finished, refuse, copied, tmp_path):
        merged = merge_experts([finished[0], copied], tmp_path / "merged", names=["a", "b"])
        refuse(merged, RunFolderError, "merged' holds a merge checkpoint; choose a new folder")

    @pytest.mark.parametrize("name", ["blocks-1.safetensors", "head-2.safetensors", "substrate.safetensors"])
    def test_damaged_or_missing_shard_is_named(self, copied, refuse, name):
        content = bytearray((copied / name).read_bytes())
        content[-1] ^= 1
        (copied / name).write_bytes(content)
        refuse(copied, CheckpointError, f"{name}' is damaged: sha256")
        (copied / name).unlink()
        refuse(copied, CheckpointError, f"{name}' is missing")

    def test_damaged_tokenizer_is_named(self, copied, refuse):
        path = copied / "tokenizer.json"
        content = json.loads(path.read_text("utf-8"))
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["s"] = vocabulary["s"], vocabulary["a"]
        path.write_text(json.dumps(content), encoding="utf-8")
        refuse(copied, FrozenGlyphError, r"tokenizer\.json' has other bytes than were written")

    def test_missing_or_ambiguous_texts_are_refused(self, refuse, tmp_path):
        refuse(tmp_path, TextFileError, r"absent\.txt' does not exist", text=[tmp_path / "absent.txt"])
        refuse(tmp_path, FrozenGlyphError, "no training text: name UTF-8 text files", text=[])
        refuse(tmp_path, FrozenGlyphError, "must have different file names", valid=["ru/v.txt", "zh/v.txt"])


class TestSecondTry:
    """What was refused before training leaves the folder free, so that the mended call succeeds there."""

    def test_after_a_text_that_is_too_short(self, grow_tiny, finished, tmp_path):
        short = tmp_path / "short.txt"
        short.write_text("The cat.")
        with pytest.raises(FrozenGlyphError, match="fewer than one window"):
            grow_tiny(tmp_path / "run", text=[short])
        grow_tiny(tmp_path / "run")
        assert shard_hashes(tmp_path / "run") == shard_hashes(finished[0])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model.hidden_size": 64}, "model.hidden_size=64, but stages and substrate make it 48"),
            ({"model.num_hidden_layers": 2}, "model.num_hidden_layers=2, but stages and substrate make it 3"),
            ({"model.vocab_size": 512}, "model.vocab_size=512, but"),
        ],
    )
    def test_after_a_model_that_does_not_fit(self, grow_tiny, finished, tmp_path, changes, message):
        with pytest.raises(RecipeError, match=message):
            grow_tiny(tmp_path / "run", changes)
        grow_tiny(tmp_path / "run", {"stages": [{"steps": 12}]})


def test_config_of_a_finished_run_can_be_the_model_of_another(grow_tiny, finished, tmp_path):
    config = json.loads((finished[0] / "config.json").read_text())
    provenance = grow_tiny(tmp_path / "run", {"model": config})
    assert len(provenance["stages"]) == 2
    assert shard_hashes(tmp_path / "run") == shard_hashes(finished[0])


def test_run_in_the_current_folder_is_named_after_it(copied, grow_tiny, tmp_path, monkeypatch):
    (tmp_path / "named").mkdir()
    monkeypatch.chdir(tmp_path / "named")
    grow_tiny(".", {"stages": [{"steps": 1}]})
    assert "# named\n" in (tmp_path / "named" / "README.md").read_text()


@pytest.mark.skipif(not DEBIAN_HEX.is_file(), reason="GNU Unifont is not installed (apt-get install unifont)")
def test_substrate_is_learnt_from_the_text_by_default(make_recipe, texts, finished, tmp_path):
    small = {"stages": [{"steps": 1}], "substrate": {"vocab_size": 512}}
    grow_from_recipe(make_recipe(small), tmp_path / "learnt", [texts[0]])
    learnt = GlyphSubstrate.from_pretrained(tmp_path / "learnt")
    assert learnt.provenance["font"]["name"] == "unifont.hex"
    assert len(learnt.tokenizer("The cat sat", add_special_tokens=False)["input_ids"]) == 3
    small["substrate"] = {"tokenizer": str(finished[0])}
    grow_from_recipe(make_recipe(small), tmp_path / "given", [texts[0]])
    given = GlyphSubstrate.from_pretrained(tmp_path / "given")
    assert given.tokenizer.get_vocab() == GlyphSubstrate.from_pretrained(finished[0]).tokenizer.get_vocab()
    shutil.rmtree(tmp_path / "learnt" / ".work")
    assert (
        len(
            grow_from_recipe(make_recipe(small | {"substrate": {"vocab_size": 512}}), tmp_path / "learnt", [texts[0]])[
                "stages"
            ]
        )
        == 1
    )
