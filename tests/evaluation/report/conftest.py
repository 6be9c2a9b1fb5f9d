"""A report with every section, the same with hostile texts, and a reader of HTML."""

import base64
from html.parser import HTMLParser
from typing import Any

import pytest

from frozen_glyph.evaluation.report.schema import Report

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


HEADINGS = [
    "Growth",
    "Held-out loss",
    "Questions and benchmarks",
    "Published protocol",
    "Merged against each expert",
    "Contamination",
    "Substrate",
    "Samples",
    "Provenance",
]
VOID = {"meta", "img", "br", "hr"}


class Outline(HTMLParser):
    """Checks nesting and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture
def report() -> Report:
    def stage(number: int) -> Any:
        recall = {**estimate(0.3 * number, 0.05), "correct": 30 * number, "total": 100, "chance": 0.25}
        guessed = {**estimate(0.2, 0.05), "correct": 20, "total": 100, "chance": 0.25}
        return {
            "stage": number, "num_hidden_layers": 3 * number, "trainable_parameters": 1234567,
            "losses": {"Russian": estimate(3.0 - number / 2, 0.1)}, "scores": {"recall": recall, "paper_mmlu": guessed},
        }  # fmt: skip

    def trend(kind: str, name: str, slope: float, adjusted_p: float) -> Any:
        return {
            "model": "<ru> & co", "kind": kind, "name": name, **estimate(slope, 0.02), "p_value": 0.0004,
            "adjusted_p": adjusted_p, "test": "a test",
        }  # fmt: skip

    def score(model: str, task: str, value: float, verdict: str, **more: Any) -> Any:
        return {
            "model": model, "task": task, "metric": "acc", "correct": 1000 * value, "total": 1000, "chance": 0.25,
            "verdict": verdict, **estimate(value, 0.03), **more,
        }  # fmt: skip

    def comparison(kind: str, name: str, difference: float) -> Any:
        return {
            "kind": kind, "name": name, "first": "merged", "second": "<ru> & co", "p_value": 0.0002, "test": "a test",
            "difference": difference, "low": difference - 0.01, "high": difference + 0.01, "adjusted_p": 0.0123,
            "effect": -0.31, "effect_name": "Cohen's g" if kind == "score" else "Cohen's d",
        }  # fmt: skip

    subjects = [
        {"group": f"subject_{index}", "correct": index, "total": 100, **estimate(index / 100, 0.04)}
        for index in range(57)
    ]
    runs = {"published": True, "runs": [0.19, 0.21], "runs_low": 0.195, "runs_high": 0.205}
    bleu = {"metric": "bleu", "correct": None, "chance": None, "published": True}
    sizes = {"tokens": 9, "characters": 20, "blocks": 2, "documents": 2}
    return {
        "title": "A < B",
        "note": "Synthetic corpus.",
        "growth": {"<ru> & co": [stage(1), stage(2), stage(3)]},
        "trends": [
            trend("loss", "Russian", -0.5, 0.001),
            trend("score", "recall", 0.3, 0.06),
            trend("score", "paper_mmlu", 0.04, 0.001),
        ],
        "losses": [
            {
                "model": "merged", "text": "Russian", **estimate(2.5, 0.1), **sizes,
                "bits_per_byte": estimate(1.75, 0.05),
            },
            {"model": "<ru> & co", "text": "Russian", **estimate(2.25, 0.1), **sizes},  # type: ignore[typeddict-item]
        ],
        "scores": [
            score("merged", "mmlu", 0.31, "above chance", groups=subjects),
            score("<ru> & co", "mmlu", 0.2, "below chance"),
            score("merged", "paper_mmlu", 0.2, "below chance", **runs),
            score("<ru> & co", "paper_bleu", 0.04, None, **bleu),  # type: ignore[arg-type]
        ],
        "comparisons": [
            comparison("loss", "Russian", -0.25),
            comparison("score", "mmlu", -0.11),
            comparison("score", "paper_mmlu", -0.02),
        ],
        "contamination": [
            {"task": "mmlu", "items": 1000, "shared": 12, "ngram": 13, "unit": "words", "examples": ["a <shared> run"]}
        ],
        "pictures": [{"title": "Glyphs", "caption": "of tokens", "png": PNG}],
        "samples": [
            {"model": "merged", "prompt": "Жил | был", "text": "старик\n<script>"},
            {"model": "<ru> & co", "prompt": "Жил | был", "text": "从前有座山"},
        ],
        "provenance": {
            "models": [
                {
                    "label": "merged", "folder": "runs/merged", "rule": "mean", "num_hidden_layers": 4,
                    "parameters": 1000, "substrate_fingerprint": "f" * 64, "weights_sha256": "a" * 64,
                }
            ],
            "versions": {"torch": "2.13"},
            "limit": None,
            "seed": 7,
        },
    }  # fmt: skip


HOSTILE = (
    "<img src=x onerror=alert(1)>|\"'> a\\|b\n# c `d *e* __f__ [g](http://h) ![i](http://j) &lt;k\r\n| l | {{ 7 * 7 }}"
    "\u2028</script></title></style><b>"
)


def hostile(report: Report) -> Any:
    """The report with ``HOSTILE`` before every text in it, names that serve as keys included."""
    texts: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, dict | list):
            for own in value.values() if isinstance(value, dict) else value:
                collect(own)

    def attack(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return value if key == "kind" else HOSTILE + value
        if isinstance(value, list):
            return [attack(own) for own in value]
        if isinstance(value, dict):
            return {HOSTILE + name if name in texts else name: attack(own, name) for name, own in value.items()}
        return value

    collect(report)
    return attack(report)
