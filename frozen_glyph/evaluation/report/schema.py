"""The one shape of a report: what evaluation and the demo fill in and the HTML, Markdown and JSON writers read.

Every section of ``Report`` but the title is optional; a writer leaves out what is not there. Values are plain JSON
types, except ``Picture.png``. Losses are nats per character. Shares (scores, chance) are between 0 and 1.

A model is known by its identity, the ``id`` of its ``ModelFacts``: ``model``, ``first`` and ``second`` of rows and the
keys of ``growth`` hold it. Labels are only shown (see labels.py); versions before had them in all these places.
"""

from typing import Any, NotRequired, TypedDict

from frozen_glyph.evaluation.measurements import Contamination


class Estimate(TypedDict):
    """A value with its 95% interval.

    All three are NaN, in JSON null, where a model gave no number; the ends alone where too few units tell of none.
    """

    value: float
    low: float
    high: float


class GroupScore(Estimate):
    """The part of a score that one group of items makes up, for example one subject of MMLU."""

    group: str
    correct: float
    total: int


class Score(Estimate):
    """How many items of a task a model got right; ``correct`` is the sum of a metric that may be fractional (F1).

    A published-protocol score stands in a section of its own: it must never be read as a log-likelihood score.
    ``runs`` are the values of repeated sampled runs; ``value`` is then their mean and ``low``, ``high`` still cover
    the choice of items, ``runs_low``, ``runs_high`` sampling alone.
    BLEU is a score with ``metric`` "bleu", on the scale from 0 to 1.
    """

    model: str
    task: str
    metric: str
    correct: float | None  # None: BLEU, which is no sum over items
    total: int
    chance: float | None  # None: free text, nothing to guess from
    verdict: str | None
    protocol: NotRequired[str]
    published: NotRequired[bool]
    baselines: NotRequired[dict[str, float]]  # share right of answers that nobody had to read a question for, by name
    unscored: NotRequired[int]  # answers that the model could not give, of all runs; they count as wrong
    groups: NotRequired[list[GroupScore]]
    runs: NotRequired[list[float]]
    runs_low: NotRequired[float]
    runs_high: NotRequired[float]


class Loss(Estimate):
    """Held-out loss of a model on a text."""

    model: str
    text: str
    tokens: int
    characters: int
    blocks: int
    documents: int  # the units of its interval; of a single one the units are blocks
    bits_per_byte: NotRequired[Estimate]


class Comparison(TypedDict):
    """``second`` minus ``first`` on the same items of a task or blocks of a text; for a loss, below zero is better."""

    kind: str  # "loss" or "score"
    name: str  # the text or the task
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float | None  # None: too few units to tell
    test: str
    adjusted_p: NotRequired[float | None]  # Holm over all comparisons of the report
    effect: NotRequired[float]
    effect_name: NotRequired[str]  # "Cohen's g" of right-or-wrong items, else "Cohen's d" of the paired differences


class Trend(Estimate):
    """Change of a score or loss for one more block, over the growth stages of one model, on the same items."""

    model: str
    kind: str  # "loss" or "score"
    name: str  # the text or the task
    p_value: float | None
    adjusted_p: float | None
    test: str


class StageScore(Estimate):
    """A task's score after one growth stage."""

    correct: float | None
    total: int
    chance: float | None


class Stage(TypedDict):
    """One growth stage of an expert: its depth, what was trained, and what it could do afterwards."""

    stage: int
    num_hidden_layers: int
    trainable_parameters: int
    flops: NotRequired[int]  # of all training up to it, where its folder tells
    losses: dict[str, Estimate]  # by text
    scores: dict[str, StageScore]  # by task


class Picture(TypedDict):
    """A PNG image shown in the report; in JSON its bytes are base64."""

    title: str
    caption: str
    png: bytes


class Sample(TypedDict):
    """One generation; samples of the same prompt are shown side by side."""

    model: str
    prompt: str
    text: str


class ModelFacts(TypedDict):
    """Which weights an identity stands for, and what it is called where people read."""

    id: NotRequired[str]  # not in reports of versions that told models apart by their labels
    label: str
    folder: str
    rule: str | None
    num_hidden_layers: int | None
    parameters: int | None
    substrate_fingerprint: str | None
    weights_sha256: str


class Provenance(TypedDict, total=False):
    """Everything needed to say where the numbers come from; further keys are shown as they are."""

    models: list[ModelFacts]
    protocols: dict[str, str]  # by task
    versions: dict[str, str]  # by package
    seed: int
    limit: int | None
    created: str
    seconds: float
    remarks: list[str]
    settings: dict[str, Any]


class Report(TypedDict):
    """A whole report."""

    title: str
    note: NotRequired[str]  # shown prominently, for example that the data are synthetic
    growth: NotRequired[dict[str, list[Stage]]]  # by model
    losses: NotRequired[list[Loss]]
    scores: NotRequired[list[Score]]
    trends: NotRequired[list[Trend]]
    comparisons: NotRequired[list[Comparison]]
    contamination: NotRequired[list[Contamination]]
    pictures: NotRequired[list[Picture]]
    samples: NotRequired[list[Sample]]
    provenance: NotRequired[Provenance]
