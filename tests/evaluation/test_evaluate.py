"""Whole evaluations of tiny models: measured values, statistics, resuming, and errors that name the remedy."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation import evaluate as evaluation
from frozen_glyph.evaluation.evaluate import evaluate_models, find_tasks, find_texts
from frozen_glyph.evaluation.harness import check_tasks, run_lm_eval, task_names
from frozen_glyph.evaluation.parts import Parts
from frozen_glyph.evaluation.summarise import ALL_TEXTS
from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES

TASKS = ["fg_mmlu", "fg_arc_easy", "fg_squad"]


@pytest.fixture(scope="module")
def out_dir(model_folders: list[Path], data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    evaluate_models(model_folders, data_folder, folder, tasks=TASKS, seed=3)
    return folder


@pytest.fixture(scope="module")
def report(out_dir: Path) -> Any:
    return json.loads((out_dir / "report.json").read_text(encoding="utf-8"))


def test_all_three_reports_are_written(out_dir: Path) -> None:
    assert {path.name for path in out_dir.iterdir()} == {"report.json", "report.md", "report.html", "parts"}


def test_scores_have_intervals_chance_and_verdicts(report: Any) -> None:
    cells = {(score["model"], score["task"], score["metric"]): score for score in report["scores"]}
    metrics = [("fg_mmlu", "acc"), ("fg_arc_easy", "acc"), ("fg_arc_easy", "acc_norm")]
    free = [("fg_squad", "exact_match"), ("fg_squad", "f1"), ("fg_squad", "contains")]
    assert set(cells) == {(model, *metric) for model in ("first", "second") for metric in metrics + free}
    mmlu, arc, squad = (cells["first", task, metric] for task, metric in (metrics[0], metrics[1], free[0]))
    assert mmlu["total"] == 3 and mmlu["chance"] == 0.25
    assert arc["chance"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert squad["chance"] is None and squad["verdict"] is None
    for score in cells.values():
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert score["value"] == pytest.approx(score["correct"] / score["total"])
        assert "(version 1.0)" in score["protocol"]
    assert mmlu["verdict"] == "at chance"  # three items can show nothing


def test_losses_pool_the_texts(report: Any) -> None:
    cells = {(loss["model"], loss["text"]): loss for loss in report["losses"]}
    assert set(cells) == {(model, text) for model in ("first", "second") for text in ("en", "ru", ALL_TEXTS)}
    en, ru, pooled = (cells["first", text] for text in ("en", "ru", ALL_TEXTS))
    assert pooled["characters"] == en["characters"] + ru["characters"]
    weighted = en["value"] * en["characters"] + ru["value"] * ru["characters"]
    assert pooled["value"] == pytest.approx(weighted / pooled["characters"])
    assert en["value"] > 0.5 * math.log(300)  # a random model guesses among about 300 tokens, one a character


def test_later_models_are_compared_with_the_first(report: Any) -> None:
    found = {(c["kind"], c["name"]): c for c in report["comparisons"]}
    assert set(found) == {("loss", text) for text in ("en", "ru", ALL_TEXTS)} | {("score", task) for task in TASKS}
    loss = {(loss["model"], loss["text"]): loss["value"] for loss in report["losses"]}
    difference = found["loss", "en"]["difference"]
    assert difference == pytest.approx(loss["second", "en"] - loss["first", "en"])
    assert found["score", "fg_mmlu"]["test"] == "exact McNemar test"
    assert all(c["first"] == "first" and c["second"] == "second" for c in found.values())


def test_provenance_says_where_numbers_come_from(report: Any, model_folders: list[Path]) -> None:
    provenance = report["provenance"]
    assert [model["label"] for model in provenance["models"]] == ["first", "second"]
    assert len({model["weights_sha256"] for model in provenance["models"]}) == 2
    assert provenance["seed"] == 3 and provenance["limit"] is None
    assert provenance["settings"]["context length of held-out loss"] == 256
    assert set(provenance["protocols"]) == set(TASKS) and "transformers" in provenance["versions"]


def test_finished_parts_are_reused_and_changed_weights_are_not(
    out_dir: Path, model_folders: list[Path], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(out_dir / "parts", again / "parts")
    loads: list[Path] = []
    load = evaluation.harness.load_lm

    def counting_load(folder: Path, *arguments: Any, **overrides: Any) -> Any:
        loads.append(folder)
        return load(folder, *arguments, **overrides)

    monkeypatch.setattr(evaluation.harness, "load_lm", counting_load)
    first = evaluate_models(model_folders, data_folder, again, tasks=TASKS, seed=3)
    assert loads == []
    original = json.loads((out_dir / "report.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(first["scores"])) == original["scores"] and first["losses"] == original["losses"]
    damaged = next((again / "parts").glob("fg_mmlu-*.json"))
    damaged.write_text(damaged.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    repaired = evaluate_models(model_folders, data_folder, again, tasks=["fg_mmlu"], seed=3)
    assert len(loads) == 1
    assert [s["value"] for s in repaired["scores"]] == [
        s["value"] for s in original["scores"] if s["task"] == "fg_mmlu"
    ]


def test_part_of_another_key_counts_as_absent(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.save("task", "a" * 64, {"values": [1]})
    assert parts.load("task", "a" * 64) == {"values": [1]}
    assert parts.load("task", "a" * 16 + "b" * 48) is None
    assert parts.load("task", "c" * 64) is None


def test_a_merged_model_is_scored_under_every_rule(
    model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(model_folders[0], merged)
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    (merged / "config.json").write_text(json.dumps({**config, "rule": "posterior"}), encoding="utf-8")
    report = evaluate_models([merged, model_folders[1]], data_folder, tmp_path / "out", tasks=[], limit=4)
    labels = [model["label"] for model in report["provenance"]["models"]]
    rules = ["posterior", *(rule for rule in MERGE_RULES if rule != "posterior")]
    assert labels == [*(f"merged ({rule})" for rule in rules), "second"]
    assert [model["rule"] for model in report["provenance"]["models"]] == [*rules, None]
    assert "first 4 items" in report["note"] and report["scores"] == []


def test_limit_keeps_whole_paragraphs(data_folder: Path, tmp_path: Path) -> None:
    assert len(find_texts(data_folder, 5)["en"].splitlines()) == 5
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.valid.txt").write_text("one\n\ntwo\nthree\n", encoding="utf-8")
    assert find_texts(tmp_path, 2) == {"x": "one\n\ntwo"}


def test_without_a_choice_tasks_without_data_are_skipped_and_said_so(data_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder / "boolq", tmp_path / "boolq")
    tasks, remarks = find_tasks(None, tmp_path)
    assert tasks == ["fg_boolq"] and len(remarks) == len(task_names()) - 1
    assert any("fg_mmlu was not run" in remark and "mmlu/test" in remark for remark in remarks)


def test_run_lm_eval_keeps_every_item(model_folders: list[Path], data_folder: Path) -> None:
    results = run_lm_eval(model_folders[0], ["fg_boolq"], data_folder, limit=1)
    (sample,) = results["samples"]["fg_boolq"]
    assert sample["acc"] in (0.0, 1.0) and len(sample["arguments"]) == 2


def test_bad_input_is_answered(model_folders: list[Path], data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FrozenGlyphError, match=r"task 'fg_mlu' is unknown.*Did you mean 'fg_mmlu'"):
        check_tasks(["fg_mlu"])
    cases: list[tuple[list[Path], Path, dict[str, Any], str]] = [
        ([], data_folder, {}, "no model folder given"),
        ([tmp_path], data_folder, {}, r"has no config\.json"),
        ([model_folders[0]] * 2, data_folder, {}, "given twice"),
        (model_folders, tmp_path / "none", {}, "data folder .* does not exist"),
        (model_folders, tmp_path, {}, "holds nothing to evaluate"),
        (model_folders, tmp_path, {"tasks": ["fg_boolq"]}, r"boolq/dev\.jsonl.* does not exist"),
        (model_folders, data_folder, {"limit": 0}, "limit 0 is out of range"),
    ]
    for models, data, options, message in cases:
        with pytest.raises(FrozenGlyphError, match=message):
            evaluate_models(models, data, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "report.json").exists()
