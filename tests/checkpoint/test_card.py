"""Cards as the Hub reads them: metadata that its rules accept, results, what is taken over, usage that runs."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from hub_cards import card_errors
from huggingface_hub import ModelCard

from frozen_glyph import export_dense, merge_experts
from frozen_glyph.checkpoint.card import inherited, model_card
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe
from frozen_glyph.growth.run_folder import run_card

RECIPE = GrowthRecipe("tiny", {}, [StageRecipe()], license="apache-2.0", language=["ru", "en"])
PROVENANCE = {
    "data": [{"name": "ru.txt", "sha256": "0"}, {"name": "user/texts", "split": "train", "revision": "1"}],
    "stages": [
        {"stage": stage, "num_hidden_layers": stage, "trainable_parameters": 1000, "files": {},
         "nats_per_character": losses,
         "uniform_nats_per_character": dict.fromkeys(losses, 5.5)}
        for stage, losses in enumerate([{}, {"ru.valid.txt": 1.7211}, {"ru.valid.txt": 1.6634}], start=1)
    ],
}  # fmt: skip


def metadata(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def test_card_of_a_run():
    known = {"license": None, "language": ["zh"], "datasets": ["user/others"]}
    card = run_card("ru", RECIPE, PROVENANCE, known, "frozen")
    assert card_errors(card) == []
    found = metadata(card)
    assert (found["library_name"], found["pipeline_tag"], found["license"]) == (
        "transformers", "text-generation", "apache-2.0",
    )  # fmt: skip
    assert (found["language"], found["datasets"]) == (["zh", "ru", "en"], ["user/others", "user/texts"])
    (result,) = found["model-index"][0]["results"]
    assert [(metric["value"], metric["args"]["growth_stage"]) for metric in result["metrics"]] == [
        (1.7211, 2), (1.6634, 3),
    ]  # fmt: skip
    assert "A uniform guess among all tokens (chance) would score: ru.valid.txt 5.5000." in card
    assert "| 1 | 1 | 1,000 | - |" in card
    assert "](growth.png)" in card
    assert found["widget"] == [{"text": text} for text in ("从前", "Однажды", "Once upon a time")]
    usage, stages = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert [line.partition(" = ")[0] for line in stages.splitlines()] == ["stage_1", "stage_2", "stage_3"]
    assert 'from_pretrained("ru", growth_stage=2, trust_remote_code=True)' in stages
    compile(usage + stages, "card", "exec")
    assert [(result.dataset_name, result.metric_value) for result in ModelCard(card).data.eval_results] == [
        ("ru.valid.txt", 1.7211), ("ru.valid.txt", 1.6634),
    ]  # fmt: skip


def test_only_ids_of_the_hub_are_parents():
    card = model_card("x", "", {}, [], base_model=["user/ru", "zh", "user/ru"], base_model_relation="merge")
    assert card_errors(card) == []
    assert (metadata(card)["base_model"], metadata(card)["base_model_relation"]) == (["user/ru"], "merge")
    local = metadata(model_card("x", "", {}, [], base_model=["zh"], base_model_relation="merge"))
    assert not {"base_model", "base_model_relation", "license", "model-index"} & local.keys()


def test_what_experts_agree_on_is_taken_over(experts, tmp_path):
    for number, (expert, license) in enumerate(zip(experts, ("mit", "mit"), strict=True)):
        card = model_card(expert.name, "", {}, [], license=license, language=[("ru", "zh")[number], "en"])
        (expert / "README.md").write_text(card)
    merged = merge_experts(experts, tmp_path / "merged")
    card = (merged / "README.md").read_text()
    assert card_errors(card) == []
    assert (metadata(card)["license"], metadata(card)["language"]) == ("mit", ["ru", "en", "zh"])
    dense = metadata((export_dense(merged, tmp_path / "dense") / "README.md").read_text())
    assert (dense["license"], dense["tags"]) == ("mit", ["frozen-glyph", "dense"])
    (experts[1] / "README.md").write_text(model_card("zh", "", {}, [], license="gpl-3.0"))
    assert inherited(experts)["license"] is None
    for expert in experts:
        (expert / "README.md").unlink()
    assert inherited(experts) == {"license": None, "language": [], "datasets": []}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"license": "Apache 2.0"}, '"license" with value'),
        ({"language": ["english"]}, '"language" with value'),
        ({"base_model_relation": "child", "base_model": ["user/ru"]}, '"base_model_relation" with value'),
    ],
)
def test_the_rules_find_what_is_wrong(fields, complaint):
    assert any(complaint in error for error in card_errors(model_card("x", "", {}, [], **fields)))


def test_the_usage_of_a_card_runs(merged_folder, tmp_path):
    card = (merged_folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=merged_folder.parent, capture_output=True, text=True, timeout=300,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Once") or len(done.stdout) > 4
