"""The records of ``provenance.json``, key by key: what a stage, a phase, an expert and an origin are said to be.

A file that an earlier version wrote may lack what is marked ``NotRequired``.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class SourceRecord(TypedDict):
    """A file or dataset that was read: by contents, never by place."""

    name: str
    sha256: NotRequired[str]  # of a file or local dataset
    revision: NotRequired[str]  # of a dataset of the Hub, with subset and split
    subset: NotRequired[str | None]
    split: NotRequired[str]


class ParentRecord(TypedDict):
    """A checkpoint that another was made of; ``parents`` are its own, ``name`` a folder's name or a Hub id."""

    name: str
    config_sha256: str
    weights_sha256: NotRequired[str]
    revision: NotRequired[str]  # commit of the Hub
    stage: NotRequired[int]
    adapter: NotRequired[dict[str, str]]  # name, and sha256 by file
    parents: NotRequired[list["ParentRecord"]]


class LogEntry(TypedDict, total=False):
    """What was logged after a step; losses are nats per token."""

    step: int
    tokens: int
    loss: float
    eval_loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    tokens_per_second: float
    flops: int  # of training, from the beginning of the phase


class PhaseRecord(TypedDict):
    """What a phase of training came to; seconds over all resumes, losses the last ones in nats per token."""

    steps: int
    tokens: int
    seconds: float
    train_loss: float
    eval_loss: float | None
    flops: NotRequired[int]  # counted, not measured


class TrainedPhase(PhaseRecord):
    """The same as training returns it: ``history`` goes into the metrics file."""

    history: NotRequired[list[LogEntry]]


class StageRecord(TypedDict):
    """A growth stage: the fields of its recipe, what it came to, and the sha256 of every shard that it uses."""

    stage: int
    layers: int
    num_hidden_layers: int
    parameters: int
    trainable_parameters: int
    nats_per_character: dict[str, float]  # by name of the held-out text
    files: dict[str, str]
    # Of a stage that was trained here, not of a checkpoint without stages that was gone on from.
    steps: NotRequired[int | None]
    tokens: NotRequired[int]
    flops: NotRequired[int]
    memory_bytes: NotRequired[int]  # of one device at its peak, as the dry run foretells it
    patience: NotRequired[int | None]
    min_gain: NotRequired[float]
    init: NotRequired[str]
    train: NotRequired[list[str]]
    learning_rate: NotRequired[float | None]
    active: NotRequired[int]
    rotate: NotRequired[int]
    draw: NotRequired[int]
    always: NotRequired[int]
    lora_below: NotRequired[int]
    optimizer: NotRequired[str]
    seconds: NotRequired[float]
    train_loss: NotRequired[float]
    phases: NotRequired[dict[str, PhaseRecord]]
    uniform_nats_per_character: NotRequired[dict[str, float]]
    health: NotRequired[dict[str, Any] | None]
    samples: NotRequired[list[dict[str, str]]]  # prompt and text, how it goes on with held-out text
    parents: NotRequired[list[ParentRecord]]


class CorpusRecord(TypedDict):
    """What was packed to train on: tokens of each source, its share of all, and in a mixture the share asked for."""

    tokens: int
    normalized: bool  # byte order marks left out, CR LF read as LF
    sources: list[dict[str, Any]]  # name, tokens, share, asked
    ended: NotRequired[str]  # the source whose end left others with text that was not read


class GrowthRecord(TypedDict):
    """A growth run; ``parent`` says how many of the stages came from elsewhere."""

    recipe: dict[str, Any]
    recipe_sha256: str
    data: list[SourceRecord]
    valid: list[SourceRecord]
    seed: int
    stages: list[StageRecord]
    parent: NotRequired[dict[str, int]]
    corpus: NotRequired[CorpusRecord]
    diverged: NotRequired[dict[str, Any]]  # stage, phase and message of one that has not gone on since
    changes: NotRequired[list[dict[str, Any]]]  # of the recipe on the way: field, from, to, stage, and why


class ExpertRecord(TypedDict):
    """An expert of a merged checkpoint; ``parent`` is its place among the parents, ``blocks`` what tells each apart."""

    name: str
    parent: int
    content_sha256: NotRequired[str]
    blocks: list[str | None]
    adapter: NotRequired[dict[str, str]]
    tuned: NotRequired[bool]
    converted: NotRequired[list[dict[str, str]]]  # from which types of numbers to which, when it was merged


class ExpertFacts(TypedDict):
    """An expert of a merged checkpoint, or of a merge that is planned; ``layers`` counts those that it shares."""

    name: str
    layers: int
    shared_layers: int
    weight: float
    adapter: dict[str, Any] | None
    origin: Mapping[str, Any] | None  # a parent without its own
    content_sha256: NotRequired[str | None]
    parameters: NotRequired[int]


class TuningLosses(TypedDict):
    """Held-out nats per character of one text; differences are tuned minus the other, with their 95% interval.

    Ends of an interval and p-values are None where too few documents tell of none.
    """

    experts: dict[str, float]
    merged: float
    tuned: float
    change: dict[str, float | None]
    best_expert: NotRequired[str]
    against_best_expert: NotRequired[dict[str, float | None]]
