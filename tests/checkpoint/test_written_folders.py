"""What every verb leaves in a folder, what of it goes to the Hub and whose hash is recorded, is what the plan says."""

import fnmatch
import json

import pytest

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, grow_from_recipe, merge_experts, tune_head
from frozen_glyph.checkpoint.contract import DEFAULT_INDEX, PLAN, Entry, copied_by, is_ours, pattern
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.tune_recipe import TuneRecipe

VERBS = {"grow", "import", "merge", "extract", "tune", "dense", "save"}
TEXT = "\n\n".join(f"The cat {verb} on the mat, and {verb} there." for verb in ("sat", "is", "stood") * 12)
SELDOM = {  # what a tokenizer may have, what adapters merged into blocks leave, a model too large for one file
    *("special_tokens_map.json", "blocks-{group}.stage-{stage}.safetensors"),
    "model-{shard}-of-{shards}.safetensors",
}


def entry_of(name: str) -> Entry:
    (entry,) = [entry for entry in PLAN if pattern(entry.name).fullmatch(name)]
    return entry


@pytest.fixture(scope="module")
def folders(substrate, tiny_training, make_training, tmp_path_factory):
    """Folders of every verb but ``import``: a run with adapters, one that goes on from it, what is made of them."""
    home = tmp_path_factory.mktemp("written")
    (home / "text.txt").write_text(TEXT, encoding="utf-8")
    substrate.save_pretrained(home / "glyphs")
    training = tiny_training | {"batch_tokens": 64}

    def run(name: str, **fields):
        recipe = {"name": name, "training": training, "data": {"sources": [{"files": [str(home / "text.txt")]}]}}
        (home / f"{name}.yaml").write_text(json.dumps(recipe | fields), encoding="utf-8")
        grow_from_recipe(
            load_recipe(home / f"{name}.yaml"), home / name, substrate=None if "parent" in fields else home / "glyphs"
        )
        return home / name

    model = {"hidden_size": 48, "num_attention_heads": 4}
    lora = {"rank": 2, "steps": 1, "from_stage": 1, "merge": False}
    grown = run("grown", model=model, stages=[{"steps": 1}, {"steps": 1, "init": "random"}], lora=lora)
    (grown / "LICENSE").write_text("MIT")
    (grown / "chat_template.jinja").write_text("{{ messages }}")
    (grown / "additional_chat_templates").mkdir()
    (grown / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}{{ messages }}")
    branch = run("branch", model=model, stages=[{"steps": 1}], parent={"source": str(grown), "stage": 1})
    merged = merge_experts([branch, f"{grown}@1+{grown}/lora-1"], home / "merged")
    extracted = [extract_expert(merged, name, home / f"{name}-again") for name in ("branch", "grown")]
    tune_head(merged, home / "tuned", TuneRecipe(steps=1, training=make_training()), [home / "text.txt"])
    FrozenGlyphForCausalLM.from_pretrained(grown).save_pretrained(home / "saved")
    return {
        "grow": [grown, branch],
        "merge": [merged],
        "extract": extracted,
        "tune": [home / "tuned"],
        "dense": [export_dense(grown, home / "dense")],
        "save": [home / "saved"],
    }


def listed(folder) -> set[str]:
    """Paths of the files in ``folder`` that are of the checkpoint: not those of a run's work folder."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in paths if not path.startswith(".work/")}


@pytest.mark.parametrize("verb", sorted(VERBS - {"import"}))
def test_a_verb_leaves_what_the_plan_says(folders, verb):
    """Every file is the plan's, written or copied by this verb, and every entry of the verb is seen."""
    seen = {entry_of(name).name for folder in folders[verb] for name in listed(folder)}
    planned = {entry.name for entry in PLAN if verb in (*entry.written.split(), *entry.copied.split())}
    assert seen - {"LICENSE*"} <= planned
    assert planned <= seen | SELDOM | ({DEFAULT_INDEX} if verb in ("dense", "save") else set())


@pytest.mark.parametrize("verb", sorted(VERBS - {"import"}))
def test_what_goes_to_the_hub(folders, verb):
    for folder in folders[verb]:
        expected = {name for name in listed(folder) if entry_of(name).pushed != "never"}
        assert set(files_to_push(folder)) == expected


@pytest.mark.parametrize("verb", sorted(VERBS - {"import", "save"}))
def test_whose_hash_is_recorded(folders, verb):
    for folder in folders[verb]:
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        recorded = {*provenance.get("files", {}), *provenance.get("contents", {})}
        recorded |= {name for stage in provenance.get("stages", []) for name in stage["files"]}
        assert recorded == {name for name in listed(folder) if entry_of(name).hashed}


def test_a_run_that_goes_on_copies_from_its_parent(folders):
    parent, run = folders["grow"]
    for name in copied_by("continue", 1):
        assert (run / name).exists() == (parent / name).exists()
    assert {"metrics-1.jsonl", "stage-1.safetensors.index.json"} <= set(copied_by("continue", 1))
    assert (run / "metrics-1.jsonl").read_bytes() == (parent / "metrics-1.jsonl").read_bytes()


def test_the_plan_uses_its_own_words():
    """A misspelt verb would read as a verb that does nothing; each name has one entry."""
    assert {verb for entry in PLAN for verb in entry.written.split()} == VERBS
    assert {verb for entry in PLAN for verb in entry.copied.split()} <= VERBS | {"continue"}
    assert len({entry.name for entry in PLAN}) == len(PLAN)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((f"{name}.safetensors", True) for name in ("substrate", "trunk", "head", "head-12", "blocks-3", "expert-10")),
        *((f"{name}.safetensors", True) for name in ("blocks-3.stage-14", "model", "model-00001-of-00002")),
        *((f"{name}.safetensors", False) for name in ("adapter_model", "head-x", "blocks-3.stage-", "xhead-1")),
        *((f"{name}.safetensors.index.json", True) for name in ("model", "stage-11")),
        *((name, True) for name in ("metrics-2.jsonl", "metrics-2-lora.jsonl", "lora-2/adapter_config.json")),
        *((name, True) for name in ("modeling_frozen_glyph_moe.py", "loss_frozen_glyph.py")),
        *((name, False) for name in ("metrics.jsonl", "notes.py", "code/x_frozen_glyph.py", "README.md", "growth.png")),
    ],
)
def test_what_a_push_may_remove(name, ours):
    """Files of other people in a repository stay."""
    assert is_ours(name) == ours


def test_where_to_look_and_what_to_match():
    for entry in PLAN:
        assert fnmatch.fnmatchcase(
            entry.name.format(stage=3, group=2, index=1, shard="00001", shards="00002"), entry.glob
        )
    assert pattern("blocks-{group}.stage-{stage}.safetensors").fullmatch("blocks-1.stage-20.safetensors").groups() == (
        "1", "20",
    )  # fmt: skip
