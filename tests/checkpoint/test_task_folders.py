"""A folder with a task head: ``inspect`` says what it is, a push takes it, what needs a language model refuses it."""

import json
import shutil

import pytest
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from frozen_glyph import (
    evaluate_models,
    export_dense,
    extract_expert,
    grow_from_recipe,
    load_recipe,
    measure_health,
    merge_experts,
    reweigh_experts,
    tune_head,
)
from frozen_glyph.checkpoint.config import TASKS, task_of
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.cli.tables import checkpoint_table
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.tune_recipe import TuneRecipe
from frozen_glyph.model import configuration_frozen_glyph as model_room


@pytest.fixture(scope="module")
def home(experts, merged_folder, tmp_path_factory):
    """``grown`` and ``merged`` with heads, and a text."""
    home = tmp_path_factory.mktemp("tasks")
    AutoModelForQuestionAnswering.from_pretrained(experts[0]).save_pretrained(home / "grown")
    AutoModelForSequenceClassification.from_pretrained(merged_folder).save_pretrained(home / "merged")
    (home / "text.txt").write_text("The cat sat on the mat.\n\n" * 40, encoding="utf-8")
    return home


def test_tasks_are_those_of_the_model_room():
    assert list(TASKS) == [f"For{task}" for task in model_room.TASKS]
    assert task_of({"architectures": ["FrozenGlyphForCausalLM"]}) is None and task_of({}) is None


@pytest.mark.parametrize(("kind", "task"), [("grown", "question answering"), ("merged", "sequence classification")])
def test_inspect_says_what_the_head_is_for(home, kind, task):
    facts = describe_checkpoint(home / kind, verify=True)
    assert (facts["task"], facts["problems"]) == (task, {})
    first = checkpoint_table(facts)[0]
    assert f"{kind}: plain, {task}, " in (first if isinstance(first, str) else first.title)


@pytest.mark.parametrize("kind", ["grown", "merged"])
def test_a_push_takes_all_that_loads_it_elsewhere(home, kind):
    files = set(files_to_push(home / kind))
    assert files == {path.name for path in (home / kind).iterdir()}
    code = {
        f"{place.partition('.')[0]}.py"
        for place in json.loads((home / kind / "config.json").read_text())["auto_map"].values()
    }
    assert code <= files


def grow_on(home, out, training):
    recipe = {"name": "x", "model": {"hidden_size": 48, "num_attention_heads": 4}, "stages": [{"steps": 1}]}
    recipe |= {"parent": {"source": str(home / "grown")}, "training": training}
    (home / "on.yaml").write_text(json.dumps(recipe))
    return grow_from_recipe(load_recipe(home / "on.yaml"), out, [home / "text.txt"])


COMMANDS = {
    "merge": lambda home, out, training: merge_experts([home / "grown", home / "grown"], out),
    "extract": lambda home, out, training: extract_expert(home / "merged", "ru", out),
    "reweigh": lambda home, out, training: reweigh_experts(home / "merged", "posterior"),
    "to-dense": lambda home, out, training: export_dense(home / "grown", out),
    "tune-head": lambda home, out, training: tune_head(
        home / "merged", out, TuneRecipe(steps=1, training=training), [home / "text.txt"]
    ),
    "eval": lambda home, out, training: evaluate_models([str(home / "grown")], home, out),
    "inspect --health": lambda home, out, training: measure_health(home / "grown", home / "text.txt"),
    "grow": grow_on,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_needs_a_language_model_refuses(home, tiny_training, tmp_path, command):
    """Before anything is written, and saying what the folder holds."""
    before = shutil.copytree(home, tmp_path / "before")
    with pytest.raises(FrozenGlyphError, match=r"holds a model for (question answering|sequence classification)"):
        COMMANDS[command](home, tmp_path / "out", tiny_training)
    assert not (tmp_path / "out").exists()
    for path in before.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (home / path.relative_to(before)).read_bytes()
