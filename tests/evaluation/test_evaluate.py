"""Whole evaluations of tiny models: measured values, statistics, resuming, and errors that name the remedy."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation import candidates as candidates_module
from frozen_glyph.evaluation.candidates import find_candidates, load_model
from frozen_glyph.evaluation.evaluate import evaluate_models, find_texts
from frozen_glyph.evaluation.measure import SAMPLED_RUNS, opening
from frozen_glyph.evaluation.parts import Parts
from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.summarise import ALL_TEXTS
from frozen_glyph.evaluation.report.write import report_json
from frozen_glyph.evaluation.tasks.harness import LoadedTask, MissingDataError, Tasks, as_lm
from frozen_glyph.evaluation.tasks.mirror import write_mirror
from frozen_glyph.merge.reweigh import reweigh_experts

TASKS = ["mmlu", "arc_easy", "fg_squad"]
TEXTS = ["en", "ru", "zh"]


@pytest.fixture(scope="module")
def out_dir(model_folders: list[Path], data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    evaluate_models(model_folders, data_folder, folder, tasks=TASKS, seed=3)
    return folder


@pytest.fixture(scope="module")
def report(out_dir: Path) -> Any:
    return shown(json.loads((out_dir / "report.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def tasks(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    mirror = tmp_path_factory.mktemp("mirrors") / "mirror"
    write_mirror(data_folder, mirror)
    return Tasks(mirror)


def test_all_three_reports_are_written(out_dir: Path) -> None:
    written = {path.name for path in out_dir.iterdir()}
    assert written == {"report.json", "report.md", "report.html", "parts", "answers", "mirror"}


def test_scores_have_intervals_chance_and_verdicts(report: Any) -> None:
    cells = {(score["model"], score["task"], score["metric"]): score for score in report["scores"]}
    metrics = [("mmlu", "acc"), ("arc_easy", "acc"), ("arc_easy", "acc_norm")]
    free = [("fg_squad", "exact_match"), ("fg_squad", "f1"), ("fg_squad", "contains")]
    assert set(cells) == {(model, *metric) for model in ("first", "second") for metric in metrics + free}
    mmlu, arc, squad = (cells["first", task, metric] for task, metric in (metrics[0], metrics[1], free[0]))
    assert mmlu["chance"] == 0.25 and mmlu["total"] == sum(group["total"] for group in mmlu["groups"])
    assert arc["chance"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert squad["chance"] is None and squad["verdict"] is None
    for (_, task, _), score in cells.items():
        if task == "fg_squad":  # two articles: too few units for an interval
            assert score["low"] is None and score["high"] is None
        else:
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert score["value"] == pytest.approx(score["correct"] / score["total"])
        assert "(version " in score["protocol"]
    assert mmlu["verdict"] == "at chance"  # a few items can show nothing
    for score in (mmlu, arc):
        assert [name.split(" '")[0] for name in score["baselines"]] == [
            "always", "the shortest answer", "the longest answer",
        ]  # fmt: skip
        assert all(0 <= value <= 1 for value in score["baselines"].values())
    assert "baselines" not in squad


def test_items_are_clustered_by_what_several_of_them_are_about() -> None:
    def clusters(*docs: Any, chosen: list[int] | None = None) -> list[int] | None:
        task = LoadedTask("t", {"leaf": SimpleNamespace(eval_docs=docs)}, "", [], None, False)
        return task.clusters({"leaf": chosen or [*range(len(docs))]})

    def asked(*titles: str) -> list[dict[str, str]]:
        return [{"title": title, "context": str(number)} for number, title in enumerate(titles)]

    assert clusters(*asked("a", "b", "a")) == [0, 1, 0]
    assert clusters(*asked("a", "b", "a", "b"), chosen=[3, 1, 2]) == [0, 1, 0]  # b, a, b: in the order of the items
    assert clusters(*asked("a", "a")) is None  # one text: they speak of it alone
    assert clusters({"passage": "x"}, {"passage": "y"}, {"passage": "x"}) == [0, 1, 0]
    assert clusters({"question": "x"}, {"question": "x"}) is None and clusters("x", "x", "y") is None


def test_losses_pool_the_texts(report: Any) -> None:
    cells = {(loss["model"], loss["text"]): loss for loss in report["losses"]}
    assert set(cells) == {(model, text) for model in ("first", "second") for text in (*TEXTS, ALL_TEXTS)}
    en, ru, pooled = (cells["first", text] for text in ("en", "ru", ALL_TEXTS))
    own = [cells["first", text] for text in TEXTS]
    assert pooled["characters"] == sum(loss["characters"] for loss in own)
    weighted = sum(loss["value"] * loss["characters"] for loss in own)
    assert pooled["value"] == pytest.approx(weighted / pooled["characters"])
    assert en["value"] > 0.5 * math.log(300)  # a random model guesses among about 300 tokens, one a character
    assert en["bits_per_byte"]["value"] == pytest.approx(en["value"] / math.log(2))  # English: one byte a character
    assert ru["bits_per_byte"]["value"] < 0.7 * ru["value"] / math.log(2)  # Cyrillic: two


def test_later_models_are_compared_with_the_first(report: Any) -> None:
    found = {(c["kind"], c["name"]): c for c in report["comparisons"]}
    assert set(found) == {("loss", text) for text in (*TEXTS, ALL_TEXTS)} | {("score", task) for task in TASKS}
    loss = {(loss["model"], loss["text"]): loss["value"] for loss in report["losses"]}
    difference = found["loss", "en"]["difference"]
    assert difference == pytest.approx(loss["second", "en"] - loss["first", "en"])
    assert found["score", "mmlu"]["test"] == "exact McNemar test"
    assert all(c["first"] == "first" and c["second"] == "second" for c in found.values())
    few = {name for (_, name), c in found.items() if c["p_value"] is None}
    assert few == {*TEXTS, ALL_TEXTS, "fg_squad"}  # one or two documents or articles each
    assert found["score", "fg_squad"]["test"] == "studentised bootstrap over 2 texts that the items are about"
    assert all(c["p_value"] <= c["adjusted_p"] <= 1 for c in found.values() if c["name"] not in few)


def test_every_model_continues_the_opening_of_every_text(report: Any) -> None:
    assert {(sample["model"], sample["prompt"][:3]) for sample in report["samples"]} == {
        (model, start) for model in ("first", "second") for start in ("The", "Жил", "从前有")
    }
    assert opening("短" * 90 + "\nmore") == "短" * 20 and opening("one two\nthree") == "one two"
    assert opening("word " * 30) == ("word " * 12).strip()


def test_provenance_says_where_numbers_come_from(report: Any) -> None:
    provenance = report["provenance"]
    assert [model["label"] for model in provenance["models"]] == ["first", "second"]
    assert len({model["weights_sha256"] for model in provenance["models"]}) == 2
    assert provenance["seed"] == 3 and provenance["limit"] is None
    assert provenance["settings"]["context length of held-out loss"] == 512
    assert set(provenance["protocols"]) == set(TASKS) and "transformers" in provenance["versions"]


def test_finished_parts_are_reused_and_changed_weights_are_not(
    out_dir: Path, model_folders: list[Path], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(out_dir, again)
    loads: list[Path] = []
    load = candidates_module.load_model

    def counting_load(folder: Path, *arguments: Any, **overrides: Any) -> Any:
        loads.append(folder)
        return load(folder, *arguments, **overrides)

    monkeypatch.setattr(candidates_module, "load_model", counting_load)
    first = evaluate_models(model_folders, data_folder, again, tasks=TASKS, seed=3)
    assert loads == []
    original = json.loads((out_dir / "report.json").read_text(encoding="utf-8"))
    repeated = json.loads(report_json(first))
    assert repeated["scores"] == original["scores"] and repeated["losses"] == original["losses"]
    damaged = next((again / "parts").glob("mmlu-*.json"))
    damaged.write_text(damaged.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    repaired = evaluate_models(model_folders, data_folder, again, tasks=["mmlu"], seed=3)
    assert len(loads) == 1
    assert [s["value"] for s in repaired["scores"]] == [s["value"] for s in original["scores"] if s["task"] == "mmlu"]


def test_answers_given_before_a_stop_are_not_asked_for_again(
    model_folders: list[Path], tasks: Tasks, tmp_path: Path
) -> None:
    """Stopped in the middle of a task: the next run computes only what is left, and scores the same."""
    task = tasks.load("arc_easy")
    everything = task.choose(None, 0)
    whole = task.run(as_lm(*load_model(model_folders[0])), everything, 0)
    asked = []

    def stop_after_one_batch(module: Any, inputs: Any, output: Any) -> None:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt

    database = tmp_path / "answers.db"
    lm = as_lm(*load_model(model_folders[0]), batch_size=1, answers=database)
    hook = lm.model.register_forward_hook(stop_after_one_batch)
    with pytest.raises(KeyboardInterrupt):
        task.run(lm, everything, 0)
    hook.remove()
    again = as_lm(*load_model(model_folders[0]), batch_size=1, answers=database)
    again.model.register_forward_hook(lambda *_: asked.append(1))
    before = len(asked)
    resumed = task.run(again, everything, 0)
    questions = sum(len(sample["arguments"]) for sample in whole["samples"]["arc_easy"])
    assert len(asked) - before == questions - 1
    assert resumed["results"]["arc_easy"]["acc,none"] == whole["results"]["arc_easy"]["acc,none"]


def test_part_of_another_key_counts_as_absent(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.save("task", "a" * 64, {"values": [1]})
    assert parts.load("task", "a" * 64) == {"values": [1]}
    assert parts.load("task", "a" * 16 + "b" * 48) is None
    assert parts.load("task", "c" * 64) is None


@pytest.mark.parametrize("old, new", [("[0.25", "[0.75"), (r'"sha256": "\w+", ', ""), (r'"(sha256": ")\w', r'"\1x')])
def test_a_part_that_was_changed_is_measured_again(
    tmp_path: Path, old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Parts(tmp_path)
    parts.save("task", "a" * 64, {"values": [0.25, 1]})
    (path,) = tmp_path.iterdir()
    changed = re.sub(old.replace("[0", r"\[0"), new, path.read_text(encoding="utf-8"))
    assert changed != path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    assert parts.load("task", "a" * 64) is None
    assert "it is measured again" in caplog.text


def test_a_merged_model_is_scored_under_its_rule_or_those_asked_for(model_folders: list[Path], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(model_folders[0], merged)
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    (merged / "config.json").write_text(json.dumps({**config, "rule": "posterior"}), encoding="utf-8")
    models = [str(merged), str(model_folders[1])]
    assert [c.label for c in find_candidates(models)] == ["merged (posterior)", "second"]
    asked = find_candidates(models, rules=["mean", "evidence"])
    assert [(c.label, c.rule) for c in asked] == [
        ("merged (mean)", "mean"), ("merged (evidence)", "evidence"), ("second", None)
    ]  # fmt: skip
    with pytest.raises(FrozenGlyphError, match=r"rule 'meen' of merged is unknown.*Did you mean 'mean'"):
        find_candidates(models, rules=["meen"])


def test_weighted_at_equal_weights_is_not_told_beside_the_mean(merged_folder: Path, tmp_path: Path) -> None:
    def rules_of(folder: Path, *rules: str) -> list[str | None]:
        return [candidate.rule for candidate in find_candidates([str(folder)], rules=rules)]

    assert rules_of(merged_folder, "weighted", "mean", "posterior") == ["mean", "posterior"]
    assert rules_of(merged_folder, "weighted") == ["weighted"]
    other = Path(shutil.copytree(merged_folder, tmp_path / "other"))
    reweigh_experts(other, "weighted", [0.7, 0.3])
    assert rules_of(other, "weighted", "mean") == ["weighted", "mean"]


def test_growth_and_merge_views(experts: list[Path], merged_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Two grown experts and their merge, under two rules, on the fixtures that the model room's tests use."""
    out = tmp_path / "out"
    models = [merged_folder, *experts]
    report = shown(evaluate_models(models, data_folder, out, tasks=["boolq"], rules=["mean", "evidence"], limit=6))
    assert {label: [stage["num_hidden_layers"] for stage in stages] for label, stages in report["growth"].items()} == {
        "ru": [1, 2], "zh": [1, 3]
    }  # fmt: skip
    last = report["growth"]["zh"][-1]
    losses = {(loss["model"], loss["text"]): loss["value"] for loss in report["losses"]}
    assert last["losses"]["en"]["value"] == losses["zh", "en"] and "boolq" in last["scores"]
    assert {(row["model"], row["kind"], row["name"]) for row in report["trends"]} == {
        (model, kind, name)
        for model in ("ru", "zh")
        for kind, name in (*(("loss", text) for text in TEXTS), ("score", "boolq"))
    }
    first = report["growth"]["zh"][0]["losses"]["en"]["value"]
    slope = next(row for row in report["trends"] if (row["model"], row["name"]) == ("zh", "en"))
    assert slope["value"] == pytest.approx((last["losses"]["en"]["value"] - first) / 2)
    labels = ["ru-zh (mean)", "ru-zh (evidence)"]
    assert {(c["first"], c["second"]) for c in report["comparisons"]} == {(e, m) for e in ("ru", "zh") for m in labels}
    assert "Only 6 items" in report["note"]
    facts = {model["label"]: model["num_hidden_layers"] for model in report["provenance"]["models"]}
    assert facts == {labels[0]: 5, labels[1]: 5, "ru": 2, "zh": 3}
    shallow = evaluate_models([f"{experts[1]}@1", experts[1]], data_folder, out, tasks=[], limit=6, every_stage=False)
    assert [model["label"] for model in shallow["provenance"]["models"]] == ["zh@1", "zh"]
    assert not shallow["growth"] and shallow["losses"][0]["value"] == pytest.approx(first)
    with pytest.raises(FrozenGlyphError, match="growth stage 3 is not there; it has 2"):
        find_candidates([f"{experts[0]}@3"])


def test_the_published_protocol_stands_apart_and_is_sampled_ten_times(
    model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    def run(out: str) -> Any:
        names = ["paper_arc_easy", "paper_bleu_en_ru"]
        return evaluate_models(model_folders[:1], data_folder, tmp_path / out, tasks=names, sampling=True, texts=[])

    report = run("out")
    greedy, bleu, sampled = report["scores"]
    assert all(score["published"] and score["protocol"].startswith("published protocol") for score in report["scores"])
    assert len(sampled["runs"]) == SAMPLED_RUNS and sampled["task"] == greedy["task"] == "paper_arc_easy"
    assert sampled["value"] == pytest.approx(sum(sampled["runs"]) / SAMPLED_RUNS)
    assert greedy["chance"] == sampled["chance"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert bleu["metric"] == "bleu" and 0 <= bleu["value"] <= 1
    assert run("again")["scores"] == report["scores"]  # the same seeds sample the same text


def test_models_and_texts_of_one_name_have_rows_of_their_own(
    model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    models = [tmp_path / "h" / number / "x" / "ru" for number in "12"]
    texts = [tmp_path / number / "en.txt" for number in "12"]
    for source, target in zip(model_folders, models, strict=True):
        shutil.copytree(source, target)
    for source, text in zip(("en", "ru"), texts, strict=True):
        text.parent.mkdir()
        shutil.copyfile(data_folder / "text" / f"{source}.valid.txt", text)
    report = shown(evaluate_models(models, data_folder, tmp_path / "out", tasks=["boolq", "boolq"], texts=texts))
    labels = ["1/x/ru", "2/x/ru"]
    assert [model["label"] for model in report["provenance"]["models"]] == labels
    cells = {(loss["model"], loss["text"]): loss["value"] for loss in report["losses"]}
    assert cells.keys() == {(label, text) for label in labels for text in ("1/en", "2/en", ALL_TEXTS)}
    assert len(set(cells.values())) == 6
    assert [score["model"] for score in report["scores"] if score["metric"] == "acc"] == labels
    assert {(row["first"], row["second"]) for row in report["comparisons"]} == {tuple(labels)}
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert all(f"| {label} | {cells[label, '1/en']:.3f} " in markdown for label in labels)


def test_models_are_known_by_identity_and_shown_by_label(
    model_folders: list[Path], experts: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    """Two copies of one model have rows of their own; another name of a folder changes no key."""

    def run(name: str, models: list[Path]) -> Any:
        evaluate_models(models, data_folder, tmp_path / name, tasks=[])
        return json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))

    twin = shutil.copytree(experts[0], tmp_path / "twin")
    report = run("out", [experts[0], twin])
    ids = [model["id"] for model in report["provenance"]["models"]]
    assert len(set(ids)) == 2 and {loss["model"] for loss in report["losses"]} == set(report["growth"]) == set(ids)
    assert {row["model"] for row in report["samples"] + report["trends"]} == set(ids)
    assert {(row["first"], row["second"]) for row in report["comparisons"]} == {tuple(ids)}
    renamed = run("again", [twin.rename(tmp_path / "other")])
    assert set(renamed["growth"]) == {ids[0]} and [m["label"] for m in renamed["provenance"]["models"]] == ["other"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert all("ru" in written and "twin" in written and ids[0] not in written for written in (page, text))


def test_a_report_of_the_version_before_is_shown_as_it_was(report: Any) -> None:
    """It knew models by their labels alone; one label for two models cannot be mended afterwards, but two ids can."""
    before = json.loads(json.dumps(report))
    for model in before["provenance"]["models"]:
        del model["id"]
    assert shown(before) == before
    assert report_markdown(before) == report_markdown(report)
    models = [{"id": key, "label": "ru", "rule": None} for key in ("a", "b")]
    losses = [{"model": key, "text": "en", "value": value} for key, value in (("a", 1.0), ("b", 2.0))]
    found: Any = shown({"title": "t", "losses": losses, "provenance": {"models": models}})  # type: ignore[typeddict-item]
    assert [(loss["model"], loss["value"]) for loss in found["losses"]] == [("ru", 1.0), ("ru (2)", 2.0)]


def test_items_found_in_training_text_are_counted(
    model_folders: list[Path], data_folder: Path, tasks: Tasks, tmp_path: Path
) -> None:
    seen = max(tasks.load("boolq").prompts(), key=len)
    (tmp_path / "train.txt").write_text(f"Before. {seen} {seen} After.", encoding="utf-8")
    options: dict[str, Any] = {"tasks": ["boolq", "arc_easy"], "training_texts": [tmp_path / "train.txt"]}
    report = evaluate_models(model_folders[:1], data_folder, tmp_path / "out", **options)
    assert {row["task"] for row in report["contamination"]} == {"boolq", "arc_easy"}


def test_limit_keeps_whole_paragraphs(data_folder: Path, tmp_path: Path) -> None:
    texts = sorted(data_folder.glob("text/*.valid.txt"))
    assert len(find_texts(texts, 5)["en"].splitlines()) == 5
    own = tmp_path / "x.txt"
    own.write_text("one\n\ntwo\nthree\n", encoding="utf-8")
    assert find_texts([own], 2) == {"x": "one\n\ntwo"}
    with pytest.raises(FrozenGlyphError, match="a text is given twice"):
        find_texts([own, own], None)


def test_limit_draws_the_same_items_for_every_model(tasks: Tasks) -> None:
    task = tasks.load("mmlu")
    every = task.choose(None, 0)
    some = task.choose(2, seed=5)
    assert sum(map(len, some.values())) == 2 and task.choose(2, seed=5) == some
    assert all(set(items) <= set(every[leaf]) for leaf, items in some.items())
    assert len({json.dumps(task.choose(2, seed)) for seed in range(20)}) > 1


def test_without_a_choice_tasks_without_data_are_skipped_and_said_so(
    model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_folder / "boolq", tmp_path / "data" / "boolq")
    report = evaluate_models(model_folders[:1], tmp_path / "data", tmp_path / "out", suite="standard")
    assert {score["task"] for score in report["scores"]} == {"boolq"}
    assert any(remark.startswith("mmlu was not run") for remark in report["provenance"]["remarks"])


@pytest.mark.slow  # lm-eval reads all its task files before it can say that none has this name
def test_an_unknown_task_is_answered_with_the_nearest(tasks: Tasks) -> None:
    with pytest.raises(FrozenGlyphError, match=r"task 'arc_easi' is unknown.*Did you mean 'arc_easy'"):
        tasks.load("arc_easi")


def test_bad_input_is_answered(model_folders: list[Path], data_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[list[Any], Path, dict[str, Any], str]] = [
        ([], data_folder, {}, "no model given"),
        ([empty], data_folder, {}, r"has no config\.json"),
        ([model_folders[0]] * 2, data_folder, {}, "given twice"),
        ([f"{model_folders[0]}@x"], data_folder, {}, "growth stage 'x' must be a number"),
        ([f"{model_folders[0]}@2"], data_folder, {}, "growth stage 2 is not there; it has none"),
        (model_folders, tmp_path / "none", {}, "data folder .* does not exist"),
        (model_folders, empty, {}, "holds no benchmark and no text/NAME.valid.txt"),
        (model_folders, data_folder, {"suite": "text", "texts": [tmp_path / "no.txt"]}, "no.txt' does not exist"),
        (model_folders, data_folder, {"limit": 0}, "limit 0 is out of range"),
        (model_folders, data_folder, {"suite": "quik"}, r"suite 'quik' is unknown.*Did you mean 'quick'"),
    ]
    for models, data, options, message in cases:
        with pytest.raises(FrozenGlyphError, match=message):
            evaluate_models(models, data, tmp_path / "out", **options)
    some = tmp_path / "some"
    shutil.copytree(data_folder / "text", some / "text")
    with pytest.raises(MissingDataError, match="no data of task 'boolq' in the mirror"):
        evaluate_models(model_folders, some, tmp_path / "out", tasks=["boolq"])
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_device_that_is_not_there_is_named(model_folders: list[Path]) -> None:
    """lm-eval would measure on another one, and the report would name the one that was asked for."""
    with pytest.raises(FrozenGlyphError, match=r"device 'cuda:99' cannot be used \(.*\); give cpu, cuda or"):
        load_model(model_folders[0], "cuda:99")


def test_texts_are_measured_without_lm_eval(
    model_folders: list[Path], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes seconds to import, and only tasks need it."""
    for module in ["lm_eval", *(name for name in sys.modules if name.startswith("lm_eval."))]:
        monkeypatch.setitem(sys.modules, module, None)
    text = data_folder / "text" / "en.valid.txt"
    report = evaluate_models(model_folders[:1], "hub", tmp_path, suite="text", texts=[text])
    assert [loss["text"] for loss in report["losses"]] == ["en"]


def test_a_grown_model_that_was_saved_is_one_model_without_stages(experts, tmp_path):
    """Trainer and ``save_pretrained`` keep the ladder, which tells how the model grew, and write no earlier stage."""
    load_model(experts[0], "cpu")[0].save_pretrained(tmp_path / "saved")
    assert find_candidates([str(experts[0])])[0].stages == (1, 2)
    assert find_candidates([str(tmp_path / "saved")])[0].stages == (None,)
    with pytest.raises(FrozenGlyphError, match="growth stage 1 is not there; it has none"):
        find_candidates([f"{tmp_path / 'saved'}@1"])
