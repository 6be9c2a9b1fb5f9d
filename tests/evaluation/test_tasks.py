"""The lm-eval tasks: loaders, scores, prompts, and the plain command line of a user."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from frozen_glyph.evaluation.harness import MissingDataError, load_tasks, task_names, tasks_folder

ALL_TASKS = [
    "fg_arc_challenge", "fg_arc_easy", "fg_boolq", "fg_commonsense_qa", "fg_mmlu", "fg_squad", "fg_squad_published",
]  # fmt: skip


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, tasks_folder() / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tasks(data_folder: Path) -> dict[str, Any]:
    return load_tasks(ALL_TASKS, data_folder)["tasks"]


def requests_of(task: Any) -> list[Any]:
    task.build_all_requests(rank=0, world_size=1)
    return task.instances


def test_every_task_is_listed_in_the_readme_with_a_version() -> None:
    readme = (tasks_folder() / "README.md").read_text(encoding="utf-8")
    assert task_names() == ALL_TASKS
    for name in ALL_TASKS:
        text = (tasks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# Protocol: ") and "metadata version 1.0" in text
        assert f"`{name}`" in readme


def test_mmlu_reads_the_original_csv(tasks: dict[str, Any]) -> None:
    docs = {doc["question"]: doc for doc in tasks["fg_mmlu"].eval_docs}
    assert docs["Which, of these?"] == {
        "subject": "anatomy", "question": "Which, of these?", "choices": ["a", "b", "c", "d"], "answer": 1,
    }  # fmt: skip
    assert docs["Two\nlines?"]["choices"] == ["x, y", "z", "u", "v"]
    requests = [request.args for request in requests_of(tasks["fg_mmlu"]) if "Two" in request.args[0]]
    prompt = (
        "The following are multiple choice questions (with answers) about world religions.\n\n"
        "Two\nlines?\nA. x, y\nB. z\nC. u\nD. v\nAnswer:"
    )
    assert sorted(requests) == [(prompt, f" {letter}") for letter in "ABCD"]


def test_arc_takes_digit_keys_and_three_choices(tasks: dict[str, Any]) -> None:
    docs = {doc["id"]: doc for doc in tasks["fg_arc_easy"].eval_docs}
    assert (docs["q1"]["answer"], docs["q2"]["answer"]) == (2, 0)
    assert len(requests_of(tasks["fg_arc_challenge"])) == 4 + 3


def test_boolq_answers_index_no_and_yes(tasks: dict[str, Any]) -> None:
    docs = {doc["question"]: doc["answer"] for doc in tasks["fg_boolq"].eval_docs}
    assert docs == {"is water wet": 1, "is fire cold": 0}


def test_published_squad_budget_is_the_golds_length(tasks: dict[str, Any]) -> None:
    requests = requests_of(tasks["fg_squad_published"])
    budgets = {request.doc["answer"]: request.args[1]["max_gen_toks"] for request in requests}
    assert budgets == {"one": 3, "two": 3, "three": 5}  # longer and unanswerable questions are left out
    assert requests[0].args[0].endswith("\nAnswer:")


def test_items_come_in_one_fixed_random_order(data_folder: Path) -> None:
    order = [doc["id"] for doc in load_tasks(["fg_squad"], data_folder)["tasks"]["fg_squad"].eval_docs]
    again = [doc["id"] for doc in load_tasks(["fg_squad"], data_folder)["tasks"]["fg_squad"].eval_docs]
    assert order == again
    assert sorted(order) == ["s0", "s1", "s2", "s3"] and order != sorted(order)


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        (" The Denver Broncos!", ["Denver Broncos"], (1.0, 1.0, 1.0)),
        ("it was the Denver Broncos in 2016", ["Broncos"], (0.0, 2 / 7, 1.0)),
        ("Carolina", ["Denver Broncos", "carolina."], (1.0, 1.0, 1.0)),
        ("", ["Denver"], (0.0, 0.0, 0.0)),
        ("anything", ["the"], (0.0, 0.0, 0.0)),  # a gold that normalises to nothing is in no text
    ],
)
def test_squad_scores(prediction: str, golds: list[str], expected: tuple[float, float, float]) -> None:
    scores = load_module("squad_scoring").score_completion({"answers": golds}, [prediction])
    assert (scores["exact_match"], scores["f1"], scores["contains"]) == pytest.approx(expected)


def test_published_squad_counts_a_substring_in_any_case() -> None:
    score = load_module("squad_published").score_substring
    assert score({"answer": "Paris"}, ["  pARIS, "]) == {"hit": 1.0}
    assert score({"answer": "Paris"}, ["Pari"]) == {"hit": 0.0}


@pytest.mark.parametrize(("data", "variable", "expected"), [("a", "b", "a"), (None, "b", "b"), (None, None, "data")])
def test_data_folder_choice(
    monkeypatch: pytest.MonkeyPatch, data: str | None, variable: str | None, expected: str
) -> None:
    monkeypatch.delenv("FROZEN_GLYPH_DATA", raising=False)
    if variable:
        monkeypatch.setenv("FROZEN_GLYPH_DATA", variable)
    assert load_module("local_data").data_folder(data) == Path(expected)


def test_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    for task, name in [("fg_mmlu", "mmlu/test"), ("fg_squad_published", "squad/dev-v2.0.json")]:
        with pytest.raises(MissingDataError, match=f"{name}.*--metadata.*FROZEN_GLYPH_DATA"):
            load_tasks([task], tmp_path)


def test_real_data_have_the_expected_shape(real_data: Path) -> None:
    tasks = load_tasks(ALL_TASKS, str(real_data))["tasks"]
    sizes = {name: len(task.eval_docs) for name, task in tasks.items()}
    assert sizes["fg_squad_published"] == 256
    assert sizes["fg_arc_easy"] == 2376 and sizes["fg_arc_challenge"] == 1172
    assert sizes["fg_commonsense_qa"] == 1221 and sizes["fg_boolq"] == 3270
    assert sizes["fg_mmlu"] > 11_000 and sizes["fg_squad"] > 9_000
    # The first items already cover most subjects.
    subjects = {doc["subject"] for doc in tasks["fg_mmlu"].eval_docs.select(range(500))}
    assert len(subjects) > 40


PLAIN = ["-m", "lm_eval"]
# The same command line without lm-eval's own 14,000 task files, whose reading takes longer than all the rest.
WITHOUT_STOCK_TASKS = [
    "-c",
    "import functools, lm_eval.tasks as t\n"
    "t.TaskManager.__init__ = functools.partialmethod(t.TaskManager.__init__, include_defaults=False)\n"
    "import lm_eval.__main__ as main\n"
    "main.cli_evaluate()\n",
]


@pytest.mark.parametrize("start", [WITHOUT_STOCK_TASKS, pytest.param(PLAIN, marks=pytest.mark.slow)])
def test_lm_eval_command_of_the_readme(
    start: list[str], model_folders: list[Path], data_folder: Path, tmp_path: Path
) -> None:
    """What a user types, in another process."""
    environment = {**os.environ, "FROZEN_GLYPH_DATA": str(data_folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        *[sys.executable, *start, "--model", "hf", "--device", "cpu", "--limit", "2"],
        *["--model_args", f"pretrained={model_folders[0]},trust_remote_code=True"],
        *["--include_path", str(tasks_folder()), "--tasks", ",".join(ALL_TASKS), "--output_path", str(tmp_path)],
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(next(tmp_path.rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    assert sorted(results) == ALL_TASKS
    for name in ALL_TASKS:
        definition = (tasks_folder() / f"{name}.yaml").read_text(encoding="utf-8").replace("!function", "")
        for metric in yaml.safe_load(definition)["metric_list"]:
            assert 0 <= results[name][f"{metric['metric']},none"] <= 1
