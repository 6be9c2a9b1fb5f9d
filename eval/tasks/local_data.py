"""Loaders that let lm-evaluation-harness read MMLU, SQuAD, ARC, CommonsenseQA and BoolQ from a plain local folder.

Each ``load_*`` function is a YAML's ``custom_dataset``: lm-eval calls it with the task metadata, the model arguments
and ``--metadata`` merged into keyword arguments, and expects splits by name. The folder is
``--metadata '{"data": "DIR"}'``, else the environment variable FROZEN_GLYPH_DATA, else ``./data``; the files in it keep
their published formats. Items come in one fixed random order, so that ``--limit N`` takes a fair sample and not the
first subject or article. Only lm-eval (which brings ``datasets``) is needed, frozen_glyph itself is not.
"""

import csv
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

ORDER_SEED = 0
PUBLISHED_QUESTIONS = 256
PUBLISHED_SEED = 42
PUBLISHED_ANSWER_CHARACTERS = 8


def data_folder(data: str | None) -> Path:
    """Return the data folder: ``data`` if given, else FROZEN_GLYPH_DATA, else ``./data``."""
    return Path(data or os.environ.get("FROZEN_GLYPH_DATA") or "data")


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(
            f"evaluation data {str(path)!r} does not exist; give the folder that holds {name!r} with "
            '--metadata \'{"data": "DIR"}\' or the environment variable FROZEN_GLYPH_DATA (default: ./data)'
        )
    return path


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _in_random_order(records: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(random.Random(ORDER_SEED).sample(records, len(records)))


def load_mmlu(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``mmlu/test/SUBJECT_test.csv``: question, four options, answer letter, without a header row."""
    folder = _existing(data_folder(data), "mmlu/test")
    records = []
    for path in sorted(folder.glob("*_test.csv")):
        subject = path.stem.removesuffix("_test")
        with path.open(encoding="utf-8", newline="") as rows:
            for question, *choices, letter in csv.reader(rows):
                answer = "ABCD".index(letter)
                records.append({"subject": subject, "question": question, "choices": choices, "answer": answer})
    if not records:
        raise FileNotFoundError(f"evaluation data folder {str(folder)!r} holds no SUBJECT_test.csv file")
    return {"test": _in_random_order(records)}


def _lettered_questions(path: Path) -> Dataset:
    """Read the AI2 form that ARC and CommonsenseQA share; keys may be letters or digits, choices three to five."""
    records = []
    for record in _json_lines(path):
        choices = record["question"]["choices"]
        records.append(
            {
                "id": record["id"],
                "question": record["question"]["stem"],
                "choices": [choice["text"] for choice in choices],
                "answer": [choice["label"] for choice in choices].index(record["answerKey"]),
            }
        )
    return _in_random_order(records)


def load_arc_easy(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``arc/ARC-Easy-Test.jsonl``."""
    return {"test": _lettered_questions(_existing(data_folder(data), "arc/ARC-Easy-Test.jsonl"))}


def load_arc_challenge(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``arc/ARC-Challenge-Test.jsonl``."""
    return {"test": _lettered_questions(_existing(data_folder(data), "arc/ARC-Challenge-Test.jsonl"))}


def load_commonsense_qa(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``commonsense_qa/dev_rand_split.jsonl``; the official test split has no public answers."""
    path = _existing(data_folder(data), "commonsense_qa/dev_rand_split.jsonl")
    return {"validation": _lettered_questions(path)}


def load_boolq(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``boolq/dev.jsonl``: question, passage, and a boolean answer that becomes the index into ["no", "yes"]."""
    path = _existing(data_folder(data), "boolq/dev.jsonl")
    records = [
        {"passage": r["passage"], "question": r["question"], "answer": int(r["answer"])} for r in _json_lines(path)
    ]
    return {"validation": _in_random_order(records)}


def _squad_questions(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the answerable questions of a SQuAD v1.1 or v2.0 file, in file order."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                if question["answers"] and not question.get("is_impossible", False):
                    yield {
                        "id": question["id"],
                        "title": article["title"],
                        "context": paragraph["context"],
                        "question": question["question"].strip(),
                        "answers": [answer["text"] for answer in question["answers"]],
                    }


def load_squad(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``squad/dev-v1.1.json``, every question."""
    path = _existing(data_folder(data), "squad/dev-v1.1.json")
    return {"validation": _in_random_order(list(_squad_questions(path)))}


def load_squad_published(data: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """``squad/dev-v2.0.json``: 256 answerable questions, first gold answer of at most 8 characters."""
    path = _existing(data_folder(data), "squad/dev-v2.0.json")
    records = [
        {**record, "answer": record["answers"][0]}
        for record in _squad_questions(path)
        if len(record["answers"][0]) <= PUBLISHED_ANSWER_CHARACTERS
    ]
    chosen = random.Random(PUBLISHED_SEED).sample(records, min(PUBLISHED_QUESTIONS, len(records)))
    return {"validation": Dataset.from_list(chosen)}
