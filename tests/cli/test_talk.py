"""`frozen-glyph generate` and `chat`: what they write to pipes and terminals, and how they end."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from frozen_glyph.cli.answers import Columns, shown
from frozen_glyph.evaluation.attribution import Attribution
from frozen_glyph.talk.speaking import Piece

SPOKEN = ("--temperature", "0", "--tokens", "4", "--device", "cpu")


def test_a_text_and_what_follows_it(run, experts, monkeypatch):
    code, out, err = run("generate", f"{experts[0]}@1", "The cat", *SPOKEN)
    assert (code, err, out[:7], out[-1]) == (0, "", "The cat", "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("The cat\n"))
    code, piped, _ = run("generate", f"{experts[0]}@1", "-", "--no-echo", *SPOKEN)
    assert (code, "The cat" + piped) == (0, out)


def test_json_says_what_made_the_texts(run, merged_folder):
    words = ("generate", merged_folder, "The", "--json", "--samples", "2", "--seed", "3", "--tokens", "4")
    code, out, _ = run(*words, "--rule", "weighted", "--weights", "3,1")
    facts = json.loads(out)
    assert code == 0
    assert (facts["rule"], facts["prompt"], facts["sampling"]["tokens"]) == ("weighted", "The", 4)
    assert [sample["seed"] for sample in facts["samples"]] == [3, 4]
    assert facts["samples"][0]["finish"] in ("length", "end")
    assert run(*words, "--rule", "weighted", "--weights", "3,1")[1] == out


def test_a_prompt_that_is_cut_is_told(run, experts):
    code, _, err = run("generate", experts[0], "The cat sat on the mat. " * 40, *SPOKEN)
    assert (code, err.split(";")[1]) == (0, " the model reads the last 124\n")


def test_refusals_are_one_line(refused, experts):
    assert "temperature=-1.0 must be" in refused("generate", experts[0], "The", "--temperature", "-1")
    assert "has no experts" in refused("generate", experts[0], "The", "--rule", "mean")
    assert "no growth stage 9" in refused("chat", f"{experts[0]}@9")


def test_help_keeps_to_the_terminal(run, experts, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys, "stdin", io.StringIO("/help\n"))
    code, _, err = run("chat", experts[0], *SPOKEN)
    rows = err.splitlines()
    assert code == 0 and max(map(len, rows)) <= 50
    command = next(place for place, row in enumerate(rows) if row.startswith("/compare"))
    assert rows[command + 1].startswith(" " * 22 + rows[command + 1].strip())


def test_a_talk_through_a_pipe(run, experts, monkeypatch):
    """Answers go to standard output; what slashes bring, and what is wrong with them, to standard error."""
    lines = "The cat\n/stage 1\n/stage 9\n/compare\nThe cat\n/quit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    code, out, err = run("chat", experts[0], *SPOKEN)
    assert code == 0
    first, *compared = out.rstrip("\n").split("\n")
    assert [row[:6] for row in compared] == ["ru@1: ", "ru@2: "] and compared[1] == f"ru@2: {first}"
    told = ["ru@1", "error: 'ru' has no growth stage 9; its stages: 1 to 2", "side by side: ru@1, ru@2"]
    assert err.splitlines() == told


def test_what_models_say_commands_no_terminal(monkeypatch):
    assert shown("a\x1b[2J\n\tб\u202e") == "a\\x1b[2J\n\tб\\u202e"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    with Columns(["one", "two"]) as columns:
        columns.add(0, Piece("left \x1b[2J", [1]))
        columns.add(1, Piece("right", [2], Attribution("weights", ["ru"], ["right"], [[1.0]])))
    assert "\x1b[2J" not in terminal.getvalue()
    assert "left \\x1b[2J" in terminal.getvalue() and "right" in terminal.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_ctrl_c_ends_an_answer_and_then_the_talk(experts):
    """In a real terminal: the first stops what is said, the next, at the prompt, ends with exit code 0."""
    import pty

    keyboard, terminal = pty.openpty()
    words = [sys.executable, "-m", "frozen_glyph", "chat", str(experts[0]), "--tokens", "100000", "--seed", "0"]
    # Where the tests themselves run in the background, interrupts would be ignored.
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    talk = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, **reset)
    os.close(terminal)
    seen = ""

    def wait_for(text: str) -> None:
        nonlocal seen
        until = time.monotonic() + 120
        while text not in seen and time.monotonic() < until:
            seen += os.read(keyboard, 4096).decode("utf-8", "replace")
        assert text in seen
        seen = seen.partition(text)[2]

    wait_for("> ")
    os.write(keyboard, b"/set repetition_penalty 1.1\n")
    wait_for("repetition_penalty 1.1")
    wait_for("> ")
    os.write(keyboard, b"The cat\n")
    wait_for("The cat\r\n")
    talk.send_signal(signal.SIGINT)
    wait_for("> ")
    talk.send_signal(signal.SIGINT)
    assert talk.wait(60) == 0


@pytest.mark.slow
def test_a_reader_that_leaves_ends_it_without_a_trace(experts):
    words = [
        sys.executable,
        "-m",
        "frozen_glyph",
        "generate",
        str(experts[0]),
        "The",
        "--tokens",
        "100",
        "--samples",
        "50",
    ]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.read(5)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait(60) == 1
