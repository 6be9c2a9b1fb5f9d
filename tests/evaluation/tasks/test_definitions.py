"""Tasks and suites: what they read, ask and score; stock tasks run unmodified over a mirror; a user's command line."""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sacrebleu

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.tasks.mirror import Mirror, write_mirror
from frozen_glyph.evaluation.tasks.suites import (
    DATASETS,
    load_suite,
    read_suite,
    stock_folders,
    suite_names,
    suites_folder,
    tasks_folder,
)

OWN = sorted(path.stem for path in tasks_folder().glob("*.yaml"))
PAPER = [name for name in OWN if name.startswith("paper_")]
LETTERS = ["paper_mmlu", "paper_arc_easy", "paper_arc_challenge", "paper_commonsense_qa"]
README = (tasks_folder() / "README.md").read_text("utf-8")


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, tasks_folder() / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_tasks(root: Path, names: Iterable[str] = DATASETS) -> Any:
    """Load tasks from a mirror."""
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(root):
        manager = TaskManager(include_path=[*stock_folders(), root / "eval" / "tasks"], include_defaults=False)
        return manager.load(list(names))


@pytest.fixture(scope="module")
def loaded(mirror: Mirror) -> Any:
    return load_tasks(mirror.root)


@pytest.fixture(scope="module")
def tasks(loaded: Any) -> dict[str, Any]:
    return loaded["tasks"]


@pytest.fixture(scope="module")
def results(loaded: Any, mirror: Mirror, model_folders: list[Path]) -> Any:
    """Every task of every suite, on the tiny model."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    with contextlib.chdir(mirror.root):  # where ``evaluate`` finds squad_v2
        lm = HFLM(pretrained=str(model_folders[0]), device="cpu", batch_size=8)
        return evaluate(lm, loaded, bootstrap_iters=0, log_samples=True)


def requests_of(task: Any) -> list[Any]:
    task.build_all_requests(rank=0, world_size=1)
    return task.instances


def samples_of(results: Any, task: str) -> list[Any]:
    return sorted(results["samples"][task], key=lambda sample: sample["doc_id"])


def test_suites_cover_every_task_and_an_unknown_name_gets_the_nearest() -> None:
    assert suite_names() == ["paper", "quick", "standard", "text"]
    assert sorted(load_suite("paper")) == PAPER
    assert set(load_suite("quick")) < set(load_suite("standard"))
    assert {task for suite in suite_names() for task in load_suite(suite)} == set(DATASETS)
    assert set(OWN) < set(DATASETS)
    for suite in suite_names():
        arguments = read_suite(suite)
        assert set(arguments) - {"limit"} == {"model", "include_path", "tasks", "batch_size"}
        assert f"eval/suites/{suite}.yaml" in (suites_folder() / f"{suite}.yaml").read_text("utf-8")
    with pytest.raises(FrozenGlyphError, match=r"'papers' is unknown.*Did you mean 'paper'"):
        load_suite("papers")


def test_the_readme_lists_every_task() -> None:
    listed = {name for row in README.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row)}
    assert set(DATASETS) <= listed


def test_own_tasks_say_version_and_protocol(tasks: dict[str, Any]) -> None:
    for name in OWN:
        metadata = tasks[name].config.metadata
        assert metadata["version"] == 1.0
        assert metadata.get("published", False) == (name in PAPER)
        assert metadata["protocol"].startswith("published protocol") == (name in PAPER)
        assert "\n" not in metadata["protocol"]


def test_tasks_read_the_datasets_of_the_table(loaded: Any, mirror: Mirror) -> None:
    for name, (dataset, configuration) in DATASETS.items():
        if name == "mmlu":
            assert {task.DATASET_PATH for task in loaded["tasks"].values() if task.task_name.startswith("mmlu_")} == {
                dataset
            }
            continue
        task = loaded["tasks"][name]
        expected = None if dataset == "text" else configuration
        assert dataset == task.DATASET_PATH and expected == task.DATASET_NAME
    assert [mirror.why_missing(*where) for where in DATASETS.values()] == [None] * len(DATASETS)
    assert loaded["group_map"] == {"mmlu": ["mmlu_anatomy", "mmlu_world_religions"]}


def test_stock_tasks_are_lm_evals_own(tasks: dict[str, Any]) -> None:
    import lm_eval.tasks

    stock = Path(lm_eval.tasks.__file__).parent
    for name, task in tasks.items():
        source = task.config.metadata.get("config_source")
        if name == "squadv2":  # its class keeps no source
            assert type(task).__module__ == "lm_eval.tasks.squadv2.task"
        else:
            assert Path(source).is_relative_to(stock) == (name not in OWN)


def test_every_task_scores_every_item(tasks: dict[str, Any], results: Any) -> None:
    """What a reader of samples relies on (see the README)."""
    for name in OWN:
        metrics = [metric["metric"] for metric in tasks[name].config.metric_list]
        samples = samples_of(results, name)
        assert len(samples) == len(tasks[name].eval_docs) > 0
        for sample in samples:
            if metrics == ["bleu"]:
                reference, hypothesis = sample["bleu"]
                assert reference == sample["target"] and isinstance(hypothesis, str)
            elif name.startswith("text_"):
                nats, size = sample["bits_per_byte"]
                assert nats < 0 and size == len(sample["doc"]["text"].encode())
            else:
                assert all(0 <= sample[metric] <= 1 for metric in metrics)
    for name in LETTERS:
        assert all(len(sample["doc"]["options"]) in (3, 4, 5) for sample in samples_of(results, name))
    assert {sample["doc"]["subject"] for sample in samples_of(results, "paper_mmlu")} == {"anatomy", "world_religions"}
    assert {sample["doc"]["subject"] for sample in samples_of(results, "mmlu_anatomy")} == {"anatomy"}
    score = load_module("squad_scoring").score_answer
    for metric in ("exact", "f1"):
        pairs = [sample[metric] for sample in samples_of(results, "squadv2")]
        values = [score(one["prediction_text"], other["answers"]["text"])[metric] for one, other in pairs]
        assert results["results"]["squadv2"][f"{metric},none"] == pytest.approx(100 * sum(values) / len(values))


def test_the_group_of_the_mirror_is_named_after_what_it_holds(results: Any) -> None:
    assert results["groups"]["mmlu"]["alias"] == "mmlu (2 of 57 subjects)"
    correct = [
        sample["acc"] for name in ("mmlu_anatomy", "mmlu_world_religions") for sample in samples_of(results, name)
    ]
    assert results["results"]["mmlu"]["acc,none"] == pytest.approx(sum(correct) / 3)


def test_prompts_budgets_and_answers_are_the_published_ones(tasks: dict[str, Any]) -> None:
    prompts = {request.args[0]: request.args[1] for name in LETTERS for request in requests_of(tasks[name])}
    religions = "Question: Two\nlines?\nOptions: A) x, y B) z C) u D) v\nAnswer:"
    blood = "Question: Colour of blood?\nOptions: A) red B) green C) blue\nAnswer:"  # keys 1 to 3 in the file
    cars = "Question: Where are cars?\nOptions: A) bank B) mall C) zoo D) sea E) road\nAnswer:"
    for prompt, budget in ((religions, 1), (blood, 2), (cars, 2)):
        assert prompts[prompt]["max_gen_toks"] == budget
        assert prompts[prompt]["do_sample"] is False and prompts[prompt]["until"] == []
    answers = {doc["question"]: doc["answer"] for name in LETTERS for doc in tasks[name].eval_docs}
    assert (answers["Two\nlines?"], answers["Colour of blood?"], answers["Where are cars?"]) == ("A", "A", "E")
    (squad, *_) = requests_of(tasks["paper_squad"])
    assert re.fullmatch(
        r"Context: one two three the fourth answer\nQuestion: What is number \d\?\nAnswer:", squad.args[0]
    )
    bleu = {request.args[0] for request in requests_of(tasks["paper_bleu_zh_en"])}
    assert bleu == {"Chinese: 你好。\nEnglish:", "Chinese: 再见。\nEnglish:"}


def test_published_squad_budget_is_the_golds_length(tasks: dict[str, Any]) -> None:
    budgets = {
        request.doc["answers"]["text"][0]: request.args[1]["max_gen_toks"]
        for request in requests_of(tasks["paper_squad"])
    }
    assert budgets == {"one": 3, "two": 3, "three": 5}  # longer and unanswerable questions are left out


def test_sampling_is_one_option(mirror: Mirror) -> None:
    """``--gen_kwargs`` updates a task's settings and leaves the budgets."""
    tasks = load_tasks(mirror.root)["tasks"]
    for name, budgets in (("paper_mmlu", {1}), ("paper_squad", {3, 5})):
        sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0}
        tasks[name].set_config("generation_kwargs", sampled, update=True)
        settings = [request.args[1] for request in requests_of(tasks[name])]
        assert all(setting.items() >= sampled.items() for setting in settings)
        assert {setting["max_gen_toks"] for setting in settings} == budgets


@pytest.mark.parametrize(
    ("completion", "hit"), [("B", 1), (" b", 1), ("(B)", 1), ("\n", 0), ("", 0), ("A B", 0), ("3B", 1), ("Б", 0)]
)
def test_first_latin_letter_decides_whatever_stands_around_it(completion: str, hit: int) -> None:
    assert load_module("paper_protocol").score_first_letter({"answer": "B"}, [completion]) == {"first_letter": hit}


def test_a_substring_in_any_case_is_a_hit() -> None:
    score, doc = load_module("paper_protocol").score_substring, {"answers": {"text": ["Paris", "the city"]}}
    assert score(doc, ["  pARIS, "]) == {"hit": 1.0}
    assert score(doc, ["Pari"]) == score(doc, ["the city"]) == {"hit": 0.0}  # the first gold counts


def test_bleu_is_sacrebleus_and_counts_chinese_by_character(results: Any) -> None:
    pairs = [("老人去海边了", "老人去了海边"), ("再见，朋友们", "再见，朋友们")]
    references, hypotheses = zip(*pairs, strict=True)
    bleu = load_module("paper_protocol").chinese_bleu
    assert bleu([("再见，我的朋友们", "再见，我的朋友们")]) == pytest.approx(100)
    by_character = sacrebleu.corpus_bleu(
        [" ".join(text) for text in hypotheses], [[" ".join(text) for text in references]]
    )
    assert bleu(pairs) == pytest.approx(by_character.score) and 0 < by_character.score < 100
    for name in ("paper_bleu_en_ru", "paper_bleu_zh_en"):
        references, hypotheses = zip(*(sample["bleu"] for sample in samples_of(results, name)), strict=True)
        expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
        assert results["results"][name]["bleu,none"] == pytest.approx(expected)


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
def test_squad_takes_the_best_gold(prediction: str, golds: list[str], expected: tuple[float, float, float]) -> None:
    scores = load_module("squad_scoring").score_completion({"answers": {"text": golds}}, [prediction])
    assert (scores["exact_match"], scores["f1"], scores["contains"]) == pytest.approx(expected)


def test_items_come_in_one_fixed_random_order(tasks: dict[str, Any], mirror: Mirror) -> None:
    again = load_tasks(mirror.root)["tasks"]
    for name, key in (("fg_squad", "id"), ("paper_mmlu", "question")):
        order = [doc[key] for doc in tasks[name].eval_docs]
        assert order == [doc[key] for doc in again[name].eval_docs]
    assert sorted(doc["id"] for doc in tasks["fg_squad"].eval_docs) == ["s0", "s1", "s2", "s3"]
    assert [doc["id"] for doc in tasks["fg_squad"].eval_docs] != ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize("name", ["fg_squad", "paper_squad", "paper_arc_easy"])
def test_questions_are_put_in_order_once(tasks: dict[str, Any], name: str) -> None:
    """lm-eval asks for them at every turn, the first time for each question that is drawn."""
    assert tasks[name].eval_docs is tasks[name].eval_docs


def test_text_tasks_read_whole_documents(tasks: dict[str, Any], data_folder: Path) -> None:
    for name in ("en", "ru", "zh"):
        documents = [doc["text"].strip("\n") for doc in tasks[f"text_{name}"].eval_docs]
        assert "\n\n".join(documents) + "\n" == (data_folder / f"text/{name}.valid.txt").read_text("utf-8")
    assert len(tasks["text_zh"].eval_docs) == 2


def test_real_data_have_the_expected_shape(real_data: Path, tmp_path: Path) -> None:
    names = [*PAPER, "mmlu_anatomy", "arc_easy", "boolq"]
    tasks = load_tasks(write_mirror(real_data, tmp_path / "mirror").root, names)["tasks"]
    sizes = {name: len(task.eval_docs) for name, task in tasks.items()}
    assert sizes["paper_squad"] == 256 and sizes["paper_arc_challenge"] == 299 and sizes["paper_arc_easy"] == 570
    assert sizes["arc_easy"] == 2376 and sizes["boolq"] == 3270 and sizes["paper_commonsense_qa"] == 1221
    assert sizes["mmlu_anatomy"] == 135 and sizes["paper_mmlu"] > 11_000
    # The first items already cover most subjects, and ARC has three to five options.
    assert len({doc["subject"] for doc in tasks["paper_mmlu"].eval_docs.select(range(500))}) > 40
    assert {len(doc["options"]) for doc in tasks["paper_arc_easy"].eval_docs} == {3, 4, 5}
    for name in LETTERS:
        assert all(doc["answer"] in "ABCDE"[: len(doc["options"])] for doc in tasks[name].eval_docs)


FEW = [sys.executable, str(Path(__file__).with_name("lm_eval_on_cpu.py"))]
PLAIN = [sys.executable, "-m", "lm_eval"]
SHARING = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *FEW[1:]]


def lm_eval_run(start: list[str], suite: str, mirror: Mirror, model: Path, out: Path, *more: str) -> Any:
    """Run the README's command in another process; return its results and, by task, its samples in order."""
    command = [*start, "run", "--config", f"eval/suites/{suite}.yaml", "--model_args", f"pretrained={model}"]
    command += ["--device", "cpu", "--log_samples", "--output_path", str(out), *more]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "HF_DATASETS_CACHE": str(out / "c"),
    }
    done = subprocess.run(command, env=environment, cwd=mirror.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(next(out.rglob("results_*.json")).read_text("utf-8"))["results"]
    samples = {}
    for path in out.rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        samples[task] = sorted(rows, key=lambda row: row["doc_id"])
    return results, samples


@pytest.mark.parametrize(
    ("start", "suite"),
    [
        (FEW, "paper"),
        *[pytest.param(PLAIN, suite, marks=pytest.mark.slow) for suite in ("quick", "standard", "paper", "text")],
    ],
)
def test_the_command_of_the_readme(
    start: list[str], suite: str, mirror: Mirror, model_folders: list[Path], tmp_path: Path
) -> None:
    results, _ = lm_eval_run(start, suite, mirror, model_folders[0], tmp_path)
    assert set(load_suite(suite)) <= set(results)


@pytest.mark.slow
def test_two_processes_score_as_one(mirror: Mirror, model_folders: list[Path], tmp_path: Path) -> None:
    """They share odd and even numbers of items, of every kind of request; squadv2 mixes two kinds."""
    tasks = ["mmlu_anatomy", "arc_easy", "squadv2", "fg_squad", "paper_squad", "text_zh"]
    (one, samples), (two, shared) = (
        lm_eval_run(start, "standard", mirror, model_folders[0], tmp_path / name, "--tasks", ",".join(tasks))
        for name, start in (("one", FEW), ("two", SHARING))
    )
    assert set(samples) == set(shared) == set(tasks)
    for task in tasks:
        assert [row["doc_hash"] for row in samples[task]] == [row["doc_hash"] for row in shared[task]]
        numbers = {name: value for name, value in one[task].items() if isinstance(value, float)}
        assert numbers and numbers == pytest.approx({name: two[task][name] for name in numbers}, rel=1e-4)
