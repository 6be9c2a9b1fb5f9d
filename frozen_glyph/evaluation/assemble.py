"""Put what was measured of all models into the shape of a report: pure arithmetic, no model in sight."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.evaluation.candidates import Candidate
from frozen_glyph.evaluation.measurements import Measurements, TaskPart, number_of_items
from frozen_glyph.evaluation.report.compare import adjust, compare_losses, compare_scores, trends
from frozen_glyph.evaluation.report.schema import Comparison, ModelFacts, Report, Sample, Stage, Trend
from frozen_glyph.evaluation.report.summarise import (
    pool_texts,
    summarise_loss,
    summarise_runs,
    summarise_stage,
    summarise_task,
)


def _stages(candidate: Candidate, stages: Sequence[Measurements], seed: int) -> list[Stage]:
    """A model's growth: what it could do after every stage."""
    rows = []
    for number, own in zip(candidate.stages, stages, strict=True):
        losses = [summarise_loss(candidate.id, name, text, seed) for name, text in own.texts.items()]
        scores = [row for task, part in own.tasks.items() for row in summarise_task(candidate.id, task, part, seed)]
        facts = own.facts
        stage, blocks = number or 1, facts["num_hidden_layers"] or 0
        row = summarise_stage(stage, blocks, facts["trainable_parameters"], losses, scores)
        if stage <= len(candidate.flops):
            row["flops"] = candidate.flops[stage - 1]
        rows.append(row)
    return rows


def _trends(model: str, stages: Sequence[Measurements], seed: int) -> list[Trend]:
    """What one more block changes, over the stages of a model."""
    depths = [own.facts["num_hidden_layers"] or 0 for own in stages]
    return trends(model, depths, [own.texts for own in stages], [own.tasks for own in stages], seed)


def _pairs(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Which candidates to compare: every merged model with every single one, else every later one with the first."""
    merged = [index for index, candidate in enumerate(candidates) if candidate.rule is not None]
    single = [index for index, candidate in enumerate(candidates) if candidate.rule is None]
    if merged and single:
        return [(first, second) for second in merged for first in single]
    return [(0, later) for later in range(1, len(candidates))]


def _compare(first: tuple[str, Measurements], second: tuple[str, Measurements], seed: int) -> list[Comparison]:
    """Second minus first on every text and task."""
    (first_id, first_own), (second_id, second_own) = first, second
    first_texts, second_texts = pool_texts(first_own.texts), pool_texts(second_own.texts)
    rows = [
        compare_losses(text, (first_id, first_texts[text]), (second_id, second_texts[text]), seed)
        for text in first_texts
    ]
    rows += [
        compare_scores(task, (first_id, first_own.tasks[task]), (second_id, second_own.tasks[task]), seed)
        for task in first_own.tasks
    ]
    return [row for row in rows if row is not None]


def _remarks(candidates: Sequence[Candidate], measured: Sequence[Sequence[Measurements]]) -> list[str]:
    """What could not be measured of a model, and how it counts."""
    remarks = []
    for candidate, stages in zip(candidates, measured, strict=True):
        for stage, own in zip(candidate.stages, stages, strict=True):
            model = candidate.label if len(stages) == 1 else f"{candidate.label} stage {stage or 1}"
            for text, part in own.texts.items():
                if missing := part["nats"].count(None):
                    blocks = f"{missing} of {len(part['nats'])} blocks"
                    remarks.append(f"{model} gives no loss of text {text}: it is no number (NaN) in {blocks}")
            scored = [(task, [part]) for task, part in own.tasks.items()]
            for task, parts in [*scored, *((f"{task}, sampled runs", runs) for task, runs in own.runs.items())]:
                remarks += [f"{model} cannot answer {items} of {task}, which count as wrong: {reason}"
                            for reason, items in _unscored(parts).items()]  # fmt: skip
    return remarks


def _unscored(parts: Sequence[TaskPart]) -> dict[str, str]:
    """By reason, how many items of a task's runs have no answer: ``2 of 8 items``."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.get("unscored", {}))
    total = sum(number_of_items(part) for part in parts)
    return {reason: f"{count} of {total} items" for reason, count in counts.items()}


def assemble(candidates: Sequence[Candidate], measured: Sequence[Sequence[Measurements]], seed: int) -> Report:
    """Return the report of ``measured``, which holds for every candidate the measurements of its stages in order."""
    last = [stages[-1] for stages in measured]
    by_id = [(candidate.id, own) for candidate, own in zip(candidates, last, strict=True)]
    grown = [(c, stages) for c, stages in zip(candidates, measured, strict=True) if len(stages) > 1]
    comparisons, growth_trends = adjust(
        [row for first, second in _pairs(candidates) for row in _compare(by_id[first], by_id[second], seed)],
        [row for candidate, stages in grown for row in _trends(candidate.id, stages, seed)],
    )
    samples: list[Sample] = [
        {"model": model, "prompt": prompt, "text": text}
        for model, own in by_id
        for prompt, text in own.continuations.items()
    ]
    models: list[ModelFacts] = [
        {
            "id": candidate.id,
            "label": candidate.label,
            "folder": candidate.name,
            "rule": candidate.rule,
            "num_hidden_layers": own.facts["num_hidden_layers"],
            "parameters": own.facts["parameters"],
            "substrate_fingerprint": candidate.substrate_fingerprint,
            "weights_sha256": candidate.weights_sha256,
        }
        for candidate, own in zip(candidates, last, strict=True)
    ]
    protocols = {task: part["protocol"] for task, part in last[0].tasks.items()}
    return {
        "title": "Evaluation of " + ", ".join(candidate.label for candidate in candidates),
        "growth": {candidate.id: _stages(candidate, stages, seed) for candidate, stages in grown},
        "losses": [
            summarise_loss(model, text, part, seed)
            for model, own in by_id
            for text, part in pool_texts(own.texts).items()
        ],
        "scores": [
            row
            for task in protocols
            for model, own in by_id
            for row in summarise_task(model, task, own.tasks[task], seed)
        ]
        + [
            row
            for task in last[0].runs
            for model, own in by_id
            for row in summarise_runs(model, task, own.runs[task], seed)
        ],
        "trends": growth_trends,
        "comparisons": comparisons,
        "samples": samples,
        "provenance": {
            "remarks": _remarks(candidates, measured),
            "models": models,
            "protocols": protocols,
            "versions": {**versions(), **{name: version(name) for name in ("lm-eval", "datasets", "numpy")}},
        },
    }
