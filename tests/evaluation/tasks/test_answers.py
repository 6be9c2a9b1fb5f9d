"""Answers are kept as text that nothing runs: exactly, for one model and request, and whatever a kill left of them."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.evaluation.tasks.answers import GENERATION, LIKELIHOOD, ROLLING, Answers

ASKED: list[tuple[str, tuple[Any, ...], Any]] = [
    (LIKELIHOOD, ("Who?", " I"), (-1.1, True)),
    (LIKELIHOOD, ("Who?", " you"), (-0.1 - 0.2, False)),
    (ROLLING, ("Кто?\u2028",), -7.0),
    (GENERATION, ("Who?", {"until": ["\n"], "max_gen_toks": 4}), "I\n\x00 😀 Я"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "answers" / "model.jsonl"
    answers = Answers(path, "model")
    for kind, arguments, answer in ASKED[:2] + ASKED[:3]:
        answers.add(kind, arguments, answer)
    return path


def test_the_next_run_finds_every_answer_to_the_bit(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) == 3  # none twice
    for kind, arguments, answer in ASKED[:3]:
        assert Answers(path, "model").find(kind, arguments) == answer
    assert Answers(path, "model").find(LIKELIHOOD, ("Who?", " he")) is None
    assert Answers(path, "model").find(ROLLING, ("Who?", " I")) is None
    assert Answers(path, "another model").find(*ASKED[0][:2]) is None


def test_a_link_or_pipe_in_a_received_folder_leads_nowhere(path: Path, tmp_path: Path) -> None:
    (tmp_path / "bashrc").write_text("mine")
    (path.parent / "link.jsonl").symlink_to(tmp_path / "bashrc")
    os.mkfifo(path.parent / "pipe.jsonl")
    for name in ("link", "pipe"):
        with pytest.raises(CheckpointError, match=rf"{name}\.jsonl.*(leads out of its folder|no regular file)"):
            Answers(path.parent / f"{name}.jsonl", "model").add(*ASKED[0])
    assert (tmp_path / "bashrc").read_text() == "mine"


@pytest.mark.parametrize("cut", [1, 2, 30, 90])
def test_a_kill_loses_the_line_that_was_being_written(path: Path, cut: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    answers = Answers(path, "model")
    assert [answers.find(*asked[:2]) for asked in ASKED[:2]] == [asked[2] for asked in ASKED[:2]]
    answers.add(GENERATION, ("next", {}), "answer")
    again = Answers(path, "model")
    assert again.find(GENERATION, ("next", {})) == "answer" and again.find(*ASKED[1][:2]) == ASKED[1][2]
    assert again.find(*ASKED[2][:2]) == (ASKED[2][2] if cut == 1 else None)


def test_what_is_sampled_or_no_number_is_asked_again(path: Path) -> None:
    answers = Answers(path, "model")
    answers.add(GENERATION, ("p", {"do_sample": True}), "drawn")
    answers.add(LIKELIHOOD, ("p", "c"), (math.nan, True))
    answers.add(LIKELIHOOD, (object(), "c"), (-1.0, True))
    assert len(path.read_text("utf-8").splitlines()) == 3
    assert answers.find(LIKELIHOOD, (object(), "c")) is None


@pytest.mark.parametrize(
    "answer", [None, "text", [], [-1.0], [-1.0, 1], [-1, True], {"a": 1}, math.nan, [[[-1.0]], True]]
)
def test_a_line_of_other_types_is_no_answer(path: Path, answer: Any) -> None:
    entry = json.loads(path.read_text("utf-8").splitlines()[0])
    path.write_text(json.dumps(entry | {"answer": answer}) + "\n[]\n7\n\x00\n" + "[" * 99_999 + "\n")
    assert Answers(path, "model").find(*ASKED[0][:2]) is None


def test_generated_text_keeps_every_character(path: Path) -> None:
    kind, arguments, answer = ASKED[3]
    Answers(path, "model").add(kind, arguments, answer)
    assert Answers(path, "model").find(kind, arguments) == answer
