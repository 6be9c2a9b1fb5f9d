"""Read MMLU, ARC, CommonsenseQA, BoolQ, SQuAD and line-aligned translations in the formats they are published in.

Every reader returns rows with the columns that the benchmark's dataset on the Hugging Face Hub has. A line that does
not fit is one ``DataError`` that names the file and the line.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from frozen_glyph.errors import FrozenGlyphError

Row = dict[str, Any]


class DataError(FrozenGlyphError):
    """A benchmark's file is malformed, or the data folder is none."""


def _malformed(path: Path, place: str, problem: object, expected: str) -> DataError:
    return DataError(f"{str(path)!r}, {place}: {problem}; expected {expected}. Fetch the published file again")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise _malformed(path, f"line {line}", error, "UTF-8 text") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and content of the lines that are not blank. Only line feeds end a line."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _json_lines(path: Path, read: Callable[[Any], Row], expected: str) -> list[Row]:
    rows = []
    for number, line in _lines(path):
        try:
            rows.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _malformed(path, f"line {number}", f"{type(error).__name__}: {error}", expected) from None
    return rows


def read_mmlu(path: Path) -> list[Row]:
    """``SUBJECT_SPLIT.csv`` without a header: question, four options, the letter of the answer."""
    subject, rows = path.stem.rpartition("_")[0], []
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    expected = "question, four options and a letter of A, B, C, D"
    start = 1
    try:
        for fields in reader:
            if len(fields) != 6 or fields[5] not in {"A", "B", "C", "D"}:
                raise _malformed(path, f"line {start}", f"{len(fields)} fields, the last {fields[-1:]}", expected)
            question, *choices, letter = fields
            rows.append({"question": question, "subject": subject, "choices": choices, "answer": "ABCD".index(letter)})
            start = reader.line_num + 1
    except csv.Error as error:
        raise _malformed(path, f"line {start}", error, expected) from None
    return rows


def _lettered(record: Any) -> Row:
    """The AI2 form of ARC and CommonsenseQA; labels may be letters or digits."""
    choices = record["question"]["choices"]
    labels, texts = [choice["label"] for choice in choices], [choice["text"] for choice in choices]
    if record["answerKey"] not in labels:
        raise ValueError(f"answerKey {record['answerKey']!r} is none of the labels {labels}")
    return {
        "id": record["id"],
        "question": record["question"]["stem"],
        "choices": {"text": texts, "label": labels},
        "answerKey": record["answerKey"],
    }


def read_arc(path: Path) -> list[Row]:
    """JSON lines with id, question (stem, choices) and answerKey."""
    return _json_lines(path, _lettered, "id, question (stem, choices with text and label) and answerKey")


def read_commonsense_qa(path: Path) -> list[Row]:
    """JSON lines as of ARC; the question has a question_concept besides."""

    def read(record: Any) -> Row:
        return {**_lettered(record), "question_concept": record["question"]["question_concept"]}

    return _json_lines(path, read, "id, question (stem, question_concept, choices) and answerKey")


def read_boolq(path: Path) -> list[Row]:
    """JSON lines with question, passage and a boolean answer."""

    def read(record: Any) -> Row:
        if not isinstance(record["answer"], bool):
            raise TypeError(f"answer {record['answer']!r} is not true or false")
        return {"question": record["question"], "passage": record["passage"], "label": int(record["answer"])}

    rows = _json_lines(path, read, "question, passage and answer (true or false)")
    return [{**row, "idx": index} for index, row in enumerate(rows)]


def read_squad(path: Path) -> list[Row]:
    """The JSON of SQuAD v1.1 or v2.0; a question without an answer has two empty lists."""
    expected = "the JSON of SQuAD: data > paragraphs > qas > answers"
    try:
        articles = json.loads(_text(path))["data"]
    except json.JSONDecodeError as error:
        raise _malformed(path, f"line {error.lineno} column {error.colno}", error.msg, expected) from None
    except (KeyError, TypeError) as error:
        raise _malformed(path, "line 1", f"{type(error).__name__}: {error}", expected) from None
    rows: list[Row] = []
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = question["answers"]
                    rows.append(
                        {
                            "id": question["id"],
                            "title": article["title"],
                            "context": paragraph["context"],
                            "question": question["question"],
                            "answers": {
                                "text": [answer["text"] for answer in answers],
                                "answer_start": [answer["answer_start"] for answer in answers],
                            },
                        }
                    )
    except (KeyError, TypeError) as error:
        place = f"after question {rows[-1]['id']!r}" if rows else "first question"
        raise _malformed(path, place, f"{type(error).__name__}: {error}", expected) from None
    return rows


def read_translations(path: Path) -> list[Row]:
    """``SOURCE.FROM-TO.tsv``: document id, sentence, its translation. ``source`` says where the sentences come from."""
    source, languages = path.stem.split(".")
    first, second = languages.split("-")
    rows = []
    for number, line in _lines(path):
        fields = line.split("\t")
        if len(fields) != 3:
            raise _malformed(path, f"line {number}", f"{len(fields)} fields", "document id, sentence, translation")
        rows.append({"translation": {first: fields[1], second: fields[2]}, "source": f"{source} {fields[0]}"})
    return rows


def check_text(path: Path) -> None:
    """Raise ``DataError`` unless the file is UTF-8."""
    _text(path)
