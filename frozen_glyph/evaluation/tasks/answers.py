"""What a model answered, a line of JSON an answer: kept as it comes, read by the next run, and nothing in it can run.

A line holds the sha256 of what was asked (the model's identity, the kind of request, its text and options) and the
answer. A process that is killed loses at most the line that it was writing.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import inside, sha256_json
from frozen_glyph.formats import JSON_BYTES

LIKELIHOOD, ROLLING, GENERATION = "loglikelihood", "loglikelihood_rolling", "generate_until"  # lm-eval's kinds
KINDS: dict[str, list[type]] = {
    LIKELIHOOD: [bool],
    ROLLING: [],
}  # beside the score: is it the greedy text
NOT_A_NUMBER = "the model gives no number (NaN)"  # why a request has no answer


class Answers:
    """The answers of one model in the file ``path``; without one they are forgotten.

    Args:
        identity: JSON that tells the model, and how it is asked, from every other: an answer counts for it alone.

    Raises:
        CheckpointError: the file is a link or a pipe, so that answers would be written elsewhere.
    """

    def __init__(self, path: Path | None, identity: Any = None) -> None:
        self._path, self._identity = path, identity
        self._known: dict[str, Any] = {}
        for line in kept_lines(path) if path is not None else ():
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = entry["answer"]
            except (ValueError, TypeError, KeyError, RecursionError):  # cut, empty, or not ours
                continue

    def _key(self, kind: str, arguments: Sequence[Any]) -> str | None:
        """What an answer is kept under; None of what is sampled, or asked with what is no JSON, as a picture is."""
        if kind == GENERATION and arguments[1].get("do_sample"):
            return None
        try:
            return sha256_json([self._identity, kind, list(arguments)])
        except TypeError:
            return None

    def find(self, kind: str, arguments: Sequence[Any]) -> Any:
        """The answer, None if there is none that fits ``kind``."""
        answer = self._known.get(self._key(kind, arguments) or "")
        if kind == GENERATION:
            return answer if isinstance(answer, str) else None
        score, *greedy = answer if kind == LIKELIHOOD and isinstance(answer, list) and answer else [answer]
        if type(score) is not float or not math.isfinite(score) or list(map(type, greedy)) != KINDS[kind]:
            return None
        return (score, *greedy) if greedy else score

    def add(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keep an answer, unless it is none: a score that is no number."""
        score = 0.0 if kind == GENERATION else answer[0] if kind == LIKELIHOOD else answer
        key = self._key(kind, arguments)
        if key is None or key in self._known or not math.isfinite(score):
            return
        self._known[key] = list(answer) if kind == LIKELIHOOD else answer
        if self._path is not None:
            append_line(self._path, json.dumps({"key": key, "answer": answer}))


def kept_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that need not be there."""
    if inside(path.parent, path.name).exists():
        with path.open("rb") as file:
            yield from iter(lambda: file.readline(JSON_BYTES), b"")


def append_line(path: Path, line: str) -> None:
    """Add a line to a file in one write; one that was cut before it stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())


def request_key(arguments: Sequence[Any]) -> str:
    """What tells a request's arguments from all others."""
    return json.dumps(list(arguments), default=repr)
