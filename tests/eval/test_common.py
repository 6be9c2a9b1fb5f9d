"""What all studies share: texts in three parts, arms at their own best rate, and what a report says of its making."""

import json
from dataclasses import replace

import pytest

from eval.studies.common import arms
from eval.studies.common.ground import (
    LONGEST,
    development_text,
    reported_text,
    source_file,
    split_texts,
    training_file,
)
from eval.studies.common.jobs import carry_out, result_file, study_arguments
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.scale import Scale
from eval.studies.common.tables import between_seeds, circumstances, circumstances_line, made_by, signed
from frozen_glyph.checkpoint.files import write_json
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import split_documents

SCALE = Scale(learning_rate=1.0)


def test_reported_documents_are_kept_out_of_training_and_choosing(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    (data / "text").mkdir(parents=True)
    documents = [f"document {number} " + "x" * (SCALE.shown + number) for number in range(60)]
    novel = "a novel " + "y" * LONGEST
    source_file(data, "en").write_text("\n\n".join([*documents, novel]), "utf-8")
    source_file(data, "en", development=True).write_text("to choose on", "utf-8")
    split_texts(data, ["en"], SCALE, work)
    training = split_documents(training_file(work, "en").read_text("utf-8"))
    reported = split_documents(reported_text(work, "en"))
    assert len(reported) == 15 and len(training) == 46 and novel in training
    assert {len(document) for document in reported} == {SCALE.shown}
    heads = [document.split(" x")[0] for document in reported]
    assert not any(document.startswith(f"{head} ") for head in heads for document in training)
    assert development_text(data, "en", replace(SCALE, development=5)) == "to ch"
    stamp = training_file(work, "en").stat().st_mtime_ns
    split_texts(data, ["en"], SCALE, work)
    assert training_file(work, "en").stat().st_mtime_ns == stamp


def test_too_few_documents_to_report_on_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    source_file(tmp_path, "en").write_text("one\n\ntwo\n\nthree", "utf-8")
    with pytest.raises(FrozenGlyphError, match="has 3 documents"):
        split_texts(tmp_path, ["en"], SCALE, tmp_path / "work")


def test_every_arm_runs_at_its_own_best_rate():
    """Chosen at seed 0 by the development loss; an arm that has not tried all rates, or lacks a seed, is left out."""
    losses = {("a", 0.5): 3.0, ("a", 1.0): 1.0, ("a", 2.0): 2.0, ("b", 0.5): 1.0, ("b", 1.0): 2.0, ("b", 2.0): 3.0}
    results = {(arm, rate, 0): {"development": loss} for (arm, rate), loss in losses.items()}
    results["c", 1.0, 0] = {"development": 0.0}
    names = ("a", "b", "c")
    assert set(arms.rate_jobs(names, SCALE)) >= set(results)
    assert arms.chosen_rates(results, names, SCALE) == {"a": 1.0, "b": 0.5}
    due = arms.seed_jobs(names, SCALE, range(3))(results)
    assert due == [("a", 1.0, 1), ("b", 0.5, 1), ("a", 1.0, 2), ("b", 0.5, 2)]
    assert arms.finished(results, names, SCALE, range(3)) == {}
    results |= {job: {"development": 9.0, "job": job} for job in due if job[0] == "a"}
    assert list(arms.finished(results, names, SCALE, range(3))) == ["a"]
    assert arms.finished(results, names, SCALE, range(3))["a"][2]["job"] == ("a", 1.0, 2)
    line = arms.rates_line(results, names, SCALE, range(3))
    assert "a 1, b 0.5 (the end of those tried)" in line and "not reported: b, c" in line
    assert arms.beyond_jobs(names, SCALE)(results) == [("b", 0.25, 0)]
    results["b", 0.25, 0] = {"development": 1.5}
    assert "b 0.5." in arms.rates_line(results, names, SCALE, range(3))
    results["b", 0.25, 0] = {"development": 0.5}
    assert arms.chosen_rates(results, names, SCALE)["b"] == 0.25


def test_a_difference_has_two_intervals_or_says_what_is_missing():
    text = {"characters": [10.0] * 8, "documents": [0, 0, 1, 2, 3, 4, 5, 6]}
    first = [[20.0] * 8] * 3
    second = [[21.0, 21.5, 20.5, 21.0, 20.8, 21.2, 21.1, 20.9]] * 2 + [[22.0] * 8]
    found = difference_of(first, second, text)
    assert found["units"] == 7 and 0 < found["low"] < found["difference"] < found["high"]
    assert found["seeds_low"] < found["difference"] < found["seeds_high"] and found["p_value"] < 0.05
    few = difference_of(first[:2], second[:2], text | {"documents": [0] * 4 + [1] * 4})
    assert (few["low"], few["p_value"], few["seeds_low"]) == (None, None, None)
    assert signed(few) == "+0.100 (text none; seeds 3 seeds needed, 2 run)"
    assert between_seeds(loss_of(first, text)) == "2.000 to 2.000"


def test_a_report_names_commit_precision_and_machine_of_its_runs():
    made = made_by()
    found = circumstances([made, made | {"commit": "0123"}])
    assert found["commit"] == sorted({made["commit"], "0123"}) and found["precision"] == [made["precision"]]
    line = circumstances_line(found)
    assert all(name in line for name in ("Commit: ", "0123", "Precision: ", "Machine: "))


def test_a_study_reports_on_its_results_alone(tmp_path):
    """What made a run stands beside its result in the file, and reaches the report without the study's doing."""
    made, seen = made_by() | {"commit": "0123"}, []

    def summarise(results):
        seen.append(results)
        return {"sum": sum(value for result in results.values() for value in result.values())}

    for job in (("a", 1), ("b", 2)):
        write_json(result_file(tmp_path, job), {"made_by": made, "value": job[1]})
    arguments = study_arguments("x", None, "nothing").parse_args(
        ["--data", str(tmp_path), "--work", str(tmp_path), "--out", str(tmp_path / "out"), "--report"]
    )
    carry_out(
        arguments,
        prepare=lambda: None,
        phases=[[("a", 1)], lambda results: [("b", 1 + results["a", 1]["value"])]],
        run=lambda *parts: {},
        summarise=summarise,
        as_markdown=circumstances_line,
    )
    assert seen == [{("a", 1): {"value": 1}, ("b", 2): {"value": 2}}]
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert (report["sum"], report["commit"]) == (3, ["0123"]) and "0123" in (tmp_path / "out.md").read_text("utf-8")
