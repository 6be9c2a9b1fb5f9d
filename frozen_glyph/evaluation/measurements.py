"""What is measured of one model, a value for every item: kept in parts/ as JSON and summarised by report/."""

from dataclasses import dataclass, field
from typing import NotRequired, TypedDict


class TextPart(TypedDict):
    """Nats, characters, UTF-8 bytes and document of every block of a text; None: the model gave no number of nats."""

    nats: list[float | None]
    characters: list[int]
    bytes: list[int]
    documents: list[int]
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
    unscored: NotRequired[dict[str, int]]  # by reason: items that the model could not answer, which count as wrong
    baselines: NotRequired[dict[str, float]]  # share right of answers that nobody had to read a question for, by name
    groups: NotRequired[list[str]]  # of each item: MMLU's subject
    clusters: NotRequired[list[int]]  # of each item the number of the text that it is about, where several share one
    translations: NotRequired[Translations]  # then ``values`` is empty


def number_of_items(part: TaskPart) -> int:
    """How many items of a task were asked."""
    return len(part["translations"]["hypotheses"] if "translations" in part else next(iter(part["values"].values())))


class Facts(TypedDict):
    """What a loaded model says of itself."""

    num_hidden_layers: int | None
    parameters: int
    trainable_parameters: int


@dataclass
class Measurements:
    """Everything measured of one model at one growth stage."""

    facts: Facts
    texts: dict[str, TextPart]
    tasks: dict[str, TaskPart]
    runs: dict[str, list[TaskPart]] = field(default_factory=dict)  # repeated sampled runs, by task
    continuations: dict[str, str] = field(default_factory=dict)  # by prompt


class Contamination(TypedDict):
    """How many items of a task share a run of ``ngram`` words or characters with the training text.

    Items of fewer than ``ngram`` units are ``too_short`` to share any: they count as ``items`` and never as ``shared``.
    """

    task: str
    items: int
    shared: int
    too_short: int
    ngram: int
    unit: str  # "words" or "characters"
    examples: list[str]
