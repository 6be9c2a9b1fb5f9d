"""Read MMLU, ARC, CommonsenseQA, BoolQ, SQuAD and line-aligned translations in the formats they are published in.

Every reader returns rows with the columns that the benchmark's dataset on the Hugging Face Hub has. A line that does
not fit is one ``DataError`` that names the file and the line.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.formats import FormatError, check_type, parse_json

Row = dict[str, Any]


class DataError(FrozenGlyphError):
    """A benchmark's file is malformed, or the data folder is none."""


class _Choice(TypedDict):
    label: str
    text: str


class _Question(TypedDict):
    stem: str
    choices: list[_Choice]
    question_concept: NotRequired[str]


class _Lettered(TypedDict):
    id: str
    question: _Question
    answerKey: str


class _YesNo(TypedDict):
    question: str
    passage: str
    answer: bool


class _Answer(TypedDict):
    text: str
    answer_start: int


class _Asked(TypedDict):
    id: str
    question: str
    answers: list[_Answer]


class _Paragraph(TypedDict):
    context: str
    qas: list[_Asked]


class _Article(TypedDict):
    title: str
    paragraphs: list[_Paragraph]


class _Squad(TypedDict):
    data: list[_Article]


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


def _json_lines(path: Path, kind: Any, expected: str) -> list[Any]:
    """The JSON objects in the lines of a file, each of ``kind``."""
    records = []
    for number, line in _lines(path):
        try:
            record = parse_json(line)
            check_type(record, kind)
        except FormatError as error:
            raise _malformed(path, f"line {number}", error, expected) from None
        records.append(record)
    return records


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


def _lettered(path: Path, expected: str) -> list[Row]:
    """The AI2 form of ARC and CommonsenseQA; labels may be letters or digits."""
    rows: list[Row] = []
    for number, record in enumerate(_json_lines(path, _Lettered, expected), start=1):
        choices, answer = record["question"]["choices"], record["answerKey"]
        labels, texts = [choice["label"] for choice in choices], [choice["text"] for choice in choices]
        if answer not in labels:
            problem = f"answerKey {answer!r} is none of the labels {labels}"
            raise _malformed(path, f"question {number}", problem, expected)
        question = {"id": record["id"], "question": record["question"]["stem"]}
        rows.append({**question, "choices": {"text": texts, "label": labels}, "answerKey": answer})
        if "question_concept" in record["question"]:
            rows[-1]["question_concept"] = record["question"]["question_concept"]
    return rows


def read_arc(path: Path) -> list[Row]:
    """JSON lines with id, question (stem, choices) and answerKey."""
    return _lettered(path, "id, question (stem, choices with text and label) and answerKey")


def read_commonsense_qa(path: Path) -> list[Row]:
    """JSON lines as of ARC; the question has a question_concept besides."""
    expected = "id, question (stem, question_concept, choices) and answerKey"
    rows = _lettered(path, expected)
    for number, row in enumerate(rows, start=1):
        if "question_concept" not in row:
            raise _malformed(path, f"question {number}", "question.question_concept is missing", expected)
    return rows


def read_boolq(path: Path) -> list[Row]:
    """JSON lines with question, passage and a boolean answer."""
    records = _json_lines(path, _YesNo, "question, passage and answer (true or false)")
    return [
        {"question": record["question"], "passage": record["passage"], "label": int(record["answer"]), "idx": index}
        for index, record in enumerate(records)
    ]


def read_squad(path: Path) -> list[Row]:
    """The JSON of SQuAD v1.1 or v2.0; a question without an answer has two empty lists."""
    try:
        content = parse_json(_text(path))
        check_type(content, _Squad)
    except FormatError as error:
        raise _malformed(path, "as a whole", error, "the JSON of SQuAD: data > paragraphs > qas > answers") from None
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


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
