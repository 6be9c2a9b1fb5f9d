"""Measure one model on one text or one task, as a small JSON-serialisable part with a value for every item."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.evaluation.harness import run_lm_eval

if TYPE_CHECKING:
    from frozen_glyph.evaluation.choices import ChoiceQuestion


class TextPart(TypedDict):
    """Nats, characters and UTF-8 bytes of every block of a text."""

    nats: list[float]
    characters: list[int]
    bytes: list[int]
    tokens: int


class Translations(TypedDict):
    """What corpus BLEU is computed from: one hypothesis and one reference an item."""

    hypotheses: list[str]
    references: list[str]
    tokenize: str  # sacrebleu's name of a tokenizer: "13a", or "zh" into Chinese


class TaskPart(TypedDict):
    """Metric values of every item of a task, in item order; ``items`` identifies the items for paired tests."""

    protocol: str
    values: dict[str, list[float]]  # by metric; the first metric is the one compared
    options: list[int] | None  # how many options each item has; None for free text
    items: str
    published: NotRequired[bool]  # the papers' own protocol: reported apart
    groups: NotRequired[list[str]]  # of each item: MMLU's subject
    translations: NotRequired[Translations]  # then ``values`` is empty


def measure_text(model: Any, tokenizer: Any, text: str, context_length: int) -> TextPart:
    """Return the loss of every block of ``text``, read with ``context_length`` tokens of context."""
    from frozen_glyph.text.loss import text_loss

    loss = text_loss(model, tokenizer, text, context_length=context_length)
    return {
        "nats": [float(value) for value in loss.nats],
        "characters": [int(value) for value in loss.characters],
        "bytes": [int(value) for value in loss.bytes],
        "tokens": int(loss.tokens),
    }


def measure_questions(model: Any, tokenizer: Any, questions: "Sequence[ChoiceQuestion]") -> TaskPart:
    """Score questions whose choices follow the prompt literally."""
    from frozen_glyph.evaluation.choices import score_questions

    results = score_questions(model, tokenizer, questions)
    return {
        "protocol": "log-likelihood of each choice after the prompt, zero-shot",
        "values": {"acc": [float(result.correct) for result in results]},
        "options": [len(question.choices) for question in questions],
        "items": sha256_json([[question.prompt, list(question.choices), question.answer] for question in questions]),
    }


def measure_task(lm: Any, task: str, data_dir: Path, limit: int | None, seed: int) -> TaskPart:
    """Run one lm-eval task and keep every item's metric values."""
    results = run_lm_eval(lm, [task], data_dir, limit=limit, seed=seed)
    config = results["configs"][task]
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    metrics = [metric["metric"] for metric in config["metric_list"]]
    multiple_choice = config["output_type"] == "multiple_choice"
    return {
        "protocol": f"{config['metadata']['protocol']} (version {config['metadata']['version']})",
        "values": {metric: [float(sample[metric]) for sample in samples] for metric in metrics},
        "options": [len(sample["arguments"]) for sample in samples] if multiple_choice else None,
        "items": sha256_json([sample["doc_hash"] for sample in samples]),
    }
