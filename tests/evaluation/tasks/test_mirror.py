"""Mirrors: what ``datasets`` and ``evaluate`` find in them, when they are written anew, and bad files."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, load_dataset

from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.evaluation.tasks.benchmark_files import DataError
from frozen_glyph.evaluation.tasks.mirror import Mirror, write_mirror
from frozen_glyph.evaluation.tasks.mirror_folder import MANIFEST


def load(mirror: Mirror, dataset: str, configuration: str | None = None) -> Any:
    """What a user of the Hub types, in the mirror."""
    with contextlib.chdir(mirror.root):
        return load_dataset(dataset, configuration)


@pytest.fixture
def copy(data_folder: Path, tmp_path: Path) -> Path:
    """A data folder to change."""
    return Path(shutil.copytree(data_folder, tmp_path / "data"))


def test_mmlu_as_on_the_hub(mirror: Mirror) -> None:
    anatomy = load(mirror, "cais/mmlu", "anatomy")
    assert set(anatomy) == {"test", "validation", "dev"}
    assert anatomy["test"].features["answer"] == ClassLabel(names=["A", "B", "C", "D"])
    assert anatomy["test"].to_list() == [
        {"question": "Which, of these?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 1},
        {"question": "How many?", "subject": "anatomy", "choices": ["1", "2", "3", "4"], "answer": 3},
    ]
    everything = load(mirror, "cais/mmlu", "all")
    assert [doc["subject"] for doc in everything["test"]] == ["anatomy", "anatomy", "world_religions"]
    assert everything["test"][2]["question"] == "Two\nlines?"


def test_other_datasets_as_on_the_hub(mirror: Mirror) -> None:
    arc = load(mirror, "allenai/ai2_arc", "ARC-Challenge")
    assert arc["test"].column_names == ["id", "question", "choices", "answerKey"]
    assert arc["validation"][0]["choices"] == {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]}
    assert arc["validation"][0]["answerKey"] == "1"
    commonsense = load(mirror, "tau/commonsense_qa")["validation"]
    assert commonsense.column_names == ["id", "question", "question_concept", "choices", "answerKey"]
    boolq = load(mirror, "aps/super_glue", "boolq")["validation"]
    assert boolq.features["label"] == ClassLabel(names=["False", "True"])
    assert [(doc["idx"], doc["label"]) for doc in boolq] == [(0, 1), (1, 0)]
    squad = load(mirror, "rajpurkar/squad")["validation"]
    assert squad.column_names == ["id", "title", "context", "question", "answers"]
    assert squad[1]["answers"] == {"text": ["two"], "answer_start": [0]}
    assert load(mirror, "lighteval/squad_v2")["validation"][4]["answers"] == {"text": [], "answer_start": []}
    russian = load(mirror, "Helsinki-NLP/opus-100", "en-ru")["test"]
    assert russian[0] == {"translation": {"en": "Hello.", "ru": "Привет."}, "source": "ntrex bbc.1"}


def test_training_splits_have_no_content(mirror: Mirror) -> None:
    for dataset, configuration in [("allenai/ai2_arc", "ARC-Easy"), ("aps/super_glue", "boolq")]:
        (row,) = load(mirror, dataset, configuration)["train"]
        assert "no training examples" in row["question"]


def test_says_what_is_missing_and_what_to_remark(mirror: Mirror) -> None:
    assert mirror.missing == {"cais/mmlu:marketing": "mmlu/test/marketing_test.csv does not exist"}
    assert mirror.why_missing("cais/mmlu", "all") is None
    assert mirror.why_missing("cais/mmlu", "marketing") == "mmlu/test/marketing_test.csv does not exist"
    assert mirror.why_missing("text", "de") == "the data folder has no files for text:de"
    remarks = "\n".join(mirror.remarks)
    assert "NTREX" in remarks and "2 of 57 subjects" in remarks and "4 of the official 10570" in remarks
    assert "NTREX" in (mirror.root / "Helsinki-NLP/opus-100/README.md").read_text("utf-8")


def test_a_data_folder_may_hold_little(tmp_path: Path) -> None:
    (tmp_path / "data/text").mkdir(parents=True)
    (tmp_path / "data/text/de.valid.txt").write_text("Ein Satz.\n", "utf-8")
    mirror = write_mirror(tmp_path / "data", tmp_path / "mirror")
    assert mirror.present == ["text:de"] and mirror.remarks == []
    assert mirror.why_missing("aps/super_glue", "boolq") == "boolq/dev.jsonl does not exist"
    assert mirror.why_missing("cais/mmlu", "all") == "the data folder has no files for cais/mmlu:all"


def test_writing_again_does_nothing_until_a_file_changes(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    first = write_mirror(copy, root)
    born = (root / MANIFEST).stat().st_mtime_ns
    assert write_mirror(copy, root) == first
    assert (root / MANIFEST).stat().st_mtime_ns == born
    assert load(first, "aps/super_glue", "boolq")["validation"]["label"] == [1, 0]
    lines = (copy / "boolq/dev.jsonl").read_text("utf-8").splitlines()
    (copy / "boolq/dev.jsonl").write_text("\n".join(reversed(lines)), "utf-8")
    second = write_mirror(copy, root)
    assert load(second, "aps/super_glue", "boolq")["validation"]["label"] == [0, 1]  # and not from a cache


def turn_round(path: Path) -> None:
    """Give a data file other contents."""
    path.write_text("\n".join(reversed(path.read_text("utf-8").splitlines())), "utf-8")


def test_what_others_put_into_a_mirror_stays(copy: Path, tmp_path: Path) -> None:
    """Results of lm-eval, which are written inside, and whatever else is not of the mirror."""
    root = tmp_path / "mirror"
    write_mirror(copy, root)
    for name in ("results/ru.json", "eval/tasks/mine.yaml", "cais/mmlu/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine", "utf-8")
    old = set(json.loads((root / MANIFEST).read_text("utf-8"))["files"])
    turn_round(copy / "boolq/dev.jsonl")
    mirror = write_mirror(copy, root)
    assert load(mirror, "aps/super_glue", "boolq")["validation"]["label"] == [0, 1]
    new = set(json.loads((root / MANIFEST).read_text("utf-8"))["files"])
    assert [name for name in old - new if (root / name).exists()] == []
    for name in ("results/ru.json", "eval/tasks/mine.yaml", "cais/mmlu/notes.txt"):
        assert (root / name).read_text("utf-8") == "mine"


def test_a_changed_file_of_a_mirror_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    mirror = write_mirror(copy, root)
    task = root / "eval/suites/quick.yaml"
    task.write_text("limit: 3", "utf-8")
    for change in (lambda: None, lambda: turn_round(copy / "boolq/dev.jsonl")):
        change()
        with pytest.raises(
            CheckpointError, match=r"quick\.yaml' has other bytes than the mirror was written with; move"
        ):
            write_mirror(copy, root)
    assert task.read_text("utf-8") == "limit: 3"
    task.unlink()
    assert write_mirror(copy, root) == mirror
    assert task.exists()


def test_a_file_in_the_way_of_a_mirror_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    write_mirror(copy, root)
    (root / "text/de.valid.txt").write_text("mine", "utf-8")
    (copy / "text/de.valid.txt").write_text("Ein Satz.\n", "utf-8")
    with pytest.raises(CheckpointError, match=r"de\.valid\.txt' is not of the mirror; move it"):
        write_mirror(copy, root)
    assert (root / "text/de.valid.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("content", ['{"name": "linux packages"}', "[]", '{"digest": "x"}', "no JSON"])
def test_a_foreign_mirror_json_makes_no_mirror(copy: Path, tmp_path: Path, content: str) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    (root / MANIFEST).write_text(content, "utf-8")
    (root / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(CheckpointError, match="mine' exists and is not empty"):
        write_mirror(copy, root)
    assert (root / "thesis.txt").exists() and (root / MANIFEST).read_text("utf-8") == content


def test_a_mirror_that_recorded_no_files_is_used_and_never_deleted(copy: Path, tmp_path: Path) -> None:
    """As the first version wrote them."""
    root = tmp_path / "mirror"
    mirror = write_mirror(copy, root)
    content = json.loads((root / MANIFEST).read_text("utf-8"))
    del content["files"]
    (root / MANIFEST).write_text(json.dumps(content), "utf-8")
    assert write_mirror(copy, root) == mirror
    turn_round(copy / "boolq/dev.jsonl")
    with pytest.raises(CheckpointError, match="did not record what it wrote; remove it"):
        write_mirror(copy, root)
    assert json.loads((root / MANIFEST).read_text("utf-8")) == content


def test_stopped_while_a_mirror_is_replaced(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file was the last, the next call finishes."""
    root = tmp_path / "mirror"
    write_mirror(copy, root)
    turn_round(copy / "boolq/dev.jsonl")
    for stop in (1, 3):
        moved, move = [], Path.replace

        def some(path: Path, target: Path, moved=moved, move=move, stop=stop) -> Path:
            if root in Path(target).parents and Path(target).name != MANIFEST:
                if len(moved) == stop:
                    raise KeyboardInterrupt
                moved.append(target)
            return move(path, target)

        monkeypatch.setattr(Path, "replace", some)
        with pytest.raises(KeyboardInterrupt):
            write_mirror(copy, root)
        monkeypatch.undo()
    mirror = write_mirror(copy, root)
    assert load(mirror, "aps/super_glue", "boolq")["validation"]["label"] == [0, 1]
    recorded = json.loads((root / MANIFEST).read_text("utf-8"))["files"]
    assert recorded.keys() | {MANIFEST} == {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mmlu/dev/anatomy_dev.csv", "q,a,b,c,d,A\nq,a,b,c,A\n", "anatomy_dev.csv', line 2: 5 fields"),
        ("mmlu/dev/anatomy_dev.csv", 'q,a,b,c,d,A\n"q\nq",a,b,c,d,E\n', "line 2: 6 fields, the last .'E'.*A, B, C, D"),
        ("mmlu/dev/anatomy_dev.csv", 'q,a,b,c,d,A\n"q', "line 2: unexpected end"),
        ("arc/ARC-Easy-Dev.jsonl", '\n{"id": 1\n', "ARC-Easy-Dev.jsonl', line 2: Expecting"),
        (
            "arc/ARC-Easy-Dev.jsonl",
            '{"id": "x", "question": {"stem": "?", "choices": []}, "answerKey": "A"}',
            "question 1: answerKey 'A' is none of the labels",
        ),
        ("commonsense_qa/dev_rand_split.jsonl", "[]", r"line 1: it is \[\]; it must be a mapping"),
        ("boolq/dev.jsonl", '{"question": "q", "passage": "p", "answer": 1}', "line 1: answer is 1; it must be true"),
        ("boolq/dev.jsonl", '{"question": "q", "answer": true}', "line 1: passage is missing"),
        ("squad/dev-v1.1.json", '{"data": [\n', "dev-v1.1.json', as a whole: .*line 2 column 1"),
        ("squad/dev-v2.0.json", '{"data": [{"paragraphs": [{}]}]}', "dev-v2.0.json'.*: data.0..title is missing"),
        ("opus/ntrex.en-ru.tsv", "bbc\tHello\tПривет\nbbc\tHello\n", "en-ru.tsv', line 2: 2 fields"),
        ("text/en.valid.txt", b"a\nb\xff\n", "en.valid.txt', line 2: .*UTF-8"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_its_line(
    copy: Path, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    root = tmp_path / "mirror"
    write_mirror(copy, root)
    before = (root / MANIFEST).read_bytes()
    (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        write_mirror(copy, root)
    assert (root / MANIFEST).read_bytes() == before  # the old mirror stays
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mirror"}


def test_refuses_what_is_no_mirror_and_no_data(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(CheckpointError, match="mine' exists and is not empty"):
        write_mirror(copy, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text("utf-8") == "years of work"
    with pytest.raises(DataError, match="none' does not exist"):
        write_mirror(tmp_path / "none", tmp_path / "mirror")
    with pytest.raises(DataError, match="holds no benchmark"):
        write_mirror(tmp_path / "mine", tmp_path / "mirror")


def test_the_module_is_light() -> None:
    heavy = {"torch", "datasets", "transformers"}
    code = f"import sys, frozen_glyph.evaluation.tasks.mirror; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def squad_v2(mirror: Mirror) -> Any:
    import evaluate

    with contextlib.chdir(mirror.root):
        return evaluate.load("squad_v2")


def answered(name: str, text: str, golds: list[str], no_answer: float) -> tuple[dict[str, Any], dict[str, Any]]:
    prediction = {"id": name, "prediction_text": text, "no_answer_probability": no_answer}
    return prediction, {"id": name, "answers": {"text": golds, "answer_start": [0] * len(golds)}}


def test_squad_v2_by_hand(squad_v2: Any) -> None:
    items = [
        answered("a", "The cat!", ["cat"], 0.125),  # exact
        answered("b", "x", [], 0.875),  # wrong: there is no answer
        answered("c", "cat dog", ["bird", "a dog"], 0.25),  # F1: 2 * 1 / (2 + 1)
        answered("d", "", [], 0.5),  # right
    ]
    predictions, references = zip(*items, strict=True)
    found = squad_v2.compute(predictions=list(predictions), references=list(references))
    assert found == pytest.approx(
        {
            "exact": 50, "f1": 100 * (1 + 0 + 2 / 3 + 1) / 4, "total": 4,
            "HasAns_exact": 50, "HasAns_f1": 100 * (1 + 2 / 3) / 2, "HasAns_total": 2,
            "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2,
            "best_exact": 75, "best_exact_thresh": 0.125, "best_f1": 100 * (1 + 2 / 3 + 2) / 4, "best_f1_thresh": 0.25,
        }
    )  # fmt: skip
    strict = squad_v2.compute(predictions=list(predictions), references=list(references), no_answer_threshold=0.2)
    assert (strict["exact"], strict["HasAns_exact"], strict["NoAns_exact"]) == (75, 50, 100)


def test_squad_v2_best_threshold_is_the_best_of_all(squad_v2: Any) -> None:
    random_numbers = random.Random(0)
    items = [
        answered(str(index), random_numbers.choice(["yes", "no", ""]), random_numbers.choice([["yes"], []]), index / 64)
        for index in random_numbers.sample(range(64), 40)
    ]
    predictions, references = (list(side) for side in zip(*items, strict=True))

    def score(threshold: float) -> float:
        right = 0
        for prediction, reference in items:
            gold = (reference["answers"]["text"] or [""])[0]
            answer = prediction["prediction_text"] if prediction["no_answer_probability"] <= threshold else ""
            right += answer == gold
        return 100 * right / len(items)

    found = squad_v2.compute(predictions=predictions, references=references)
    best = max(
        score(threshold) for threshold in [-1, *(prediction["no_answer_probability"] for prediction in predictions)]
    )
    assert found["best_exact"] == pytest.approx(best) == pytest.approx(score(found["best_exact_thresh"]))


def test_stock_squadv2_aggregates_with_it(squad_v2: Any, mirror: Mirror) -> None:
    from lm_eval.tasks.squadv2.task import SQuAD2

    items = [answered("a", "the old cat", ["cat"], 0.25), answered("b", "dog", ["a dog"], 0.5)]
    predictions, references = (list(side) for side in zip(*items, strict=True))
    with contextlib.chdir(mirror.root):
        stock = {name: aggregate(items) for name, aggregate in SQuAD2().aggregation().items()}
    found = squad_v2.compute(predictions=predictions, references=references)
    assert stock == {name: found.get(name, 0) for name in stock}
    assert stock["exact"] == 50 and stock["f1"] == pytest.approx(100 * (2 * 1 / 3 + 1) / 2) and stock["NoAns_f1"] == 0


def test_mirror_of_the_real_data_loses_no_rows(real_data: Path, tmp_path: Path) -> None:
    mirror = write_mirror(real_data, tmp_path / "mirror")
    sizes = {
        (dataset, configuration): {split: len(rows) for split, rows in load(mirror, dataset, configuration).items()}
        for dataset, configuration in [
            ("cais/mmlu", "all"), ("cais/mmlu", "anatomy"), ("allenai/ai2_arc", "ARC-Easy"),
            ("allenai/ai2_arc", "ARC-Challenge"), ("tau/commonsense_qa", None), ("aps/super_glue", "boolq"),
            ("rajpurkar/squad", None), ("lighteval/squad_v2", None), ("Helsinki-NLP/opus-100", "en-zh"),
        ]
    }  # fmt: skip
    assert sizes["cais/mmlu", "anatomy"] == {"test": 135, "validation": 14, "dev": 5}
    assert sizes["allenai/ai2_arc", "ARC-Easy"] == {"train": 1, "validation": 570, "test": 2376}
    assert sizes["allenai/ai2_arc", "ARC-Challenge"] == {"train": 1, "validation": 299, "test": 1172}
    assert sizes["tau/commonsense_qa", None]["validation"] == 1221
    assert sizes["aps/super_glue", "boolq"]["validation"] == 3270
    assert sizes["Helsinki-NLP/opus-100", "en-zh"] == {"test": 1000}
    # Nothing is lost: the rows of ``all`` are those of the files.
    absent = [name for name in mirror.missing if name.startswith("cais/mmlu")]
    assert sizes["cais/mmlu", "all"]["dev"] == 5 * (57 - len(absent))
    questions = json.loads((real_data / "squad/dev-v1.1.json").read_text("utf-8"))["data"]
    count = sum(len(paragraph["qas"]) for article in questions for paragraph in article["paragraphs"])
    assert sizes["rajpurkar/squad", None]["validation"] == count
