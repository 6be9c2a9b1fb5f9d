"""What ``frozen-glyph eval`` calls: models x (held-out texts + benchmarks) -> report.json, report.md, report.html.

Every finished (model, task) is kept in ``parts/`` and reused: an interrupted run goes on, a repeated one is quick.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.provenance import versions
from frozen_glyph.checkpoint.weights import checkpoint_sha256
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation import harness
from frozen_glyph.evaluation.compare import compare_losses, compare_scores
from frozen_glyph.evaluation.measure import TaskPart, TextPart, measure_task, measure_text
from frozen_glyph.evaluation.parts import Parts, data_digest, definitions_digest
from frozen_glyph.evaluation.report import write_report
from frozen_glyph.evaluation.report_schema import Comparison, ModelFacts, Provenance, Report, Stage
from frozen_glyph.evaluation.summarise import (
    pool_texts,
    summarise_loss,
    summarise_stage,
    summarise_task,
)
from frozen_glyph.text.documents import read_text


@dataclass(frozen=True)
class Candidate:
    """One thing to score: a checkpoint folder, for a merged model under one rule."""

    label: str
    folder: Path
    rule: str | None
    num_hidden_layers: int | None
    ladder: list[int]
    context_length: int | None
    substrate_fingerprint: str | None
    weights_sha256: str

    def load(self, batch_size: int, device: str | None, **overrides: Any) -> Any:
        if self.rule is not None:
            overrides["rule"] = self.rule
        return harness.load_lm(self.folder, batch_size, device, **overrides)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last part, or by the last two where that is not unique."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]


def _count_blocks(config: Any) -> int | None:
    """Return the number of blocks; a merged model's own number also counts a cache layer."""
    experts = getattr(config, "experts", None)
    if experts:
        return sum(expert["num_hidden_layers"] for expert in experts)
    return getattr(config, "num_hidden_layers", None)


def find_candidates(model_dirs: Sequence[Path]) -> list[Candidate]:
    """Return what to score, in the order given; a merged model comes once per rule, its own rule first."""
    import frozen_glyph  # noqa: F401  registers the Auto classes

    if not model_dirs:
        raise FrozenGlyphError("no model folder given; give at least one")
    if len({folder.resolve() for folder in model_dirs}) < len(model_dirs):
        raise FrozenGlyphError(f"a model folder is given twice: {', '.join(map(str, model_dirs))}")
    from transformers import AutoConfig

    from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES

    candidates = []
    for folder, label in zip(model_dirs, _labels(model_dirs), strict=True):
        harness.check_model_folder(folder)
        config = AutoConfig.from_pretrained(folder)
        own_rule = getattr(config, "rule", None)
        rules = [None] if own_rule is None else [own_rule, *(rule for rule in MERGE_RULES if rule != own_rule)]
        weights = checkpoint_sha256(folder)
        for rule in rules:
            candidates.append(
                Candidate(
                    label=label if rule is None else f"{label} ({rule})",
                    folder=folder,
                    rule=rule,
                    num_hidden_layers=_count_blocks(config),
                    ladder=getattr(config, "ladder", None) or [],
                    context_length=getattr(config, "max_position_embeddings", None),
                    substrate_fingerprint=getattr(config, "substrate_fingerprint", None),
                    weights_sha256=weights,
                )
            )
    return candidates


def find_texts(data_dir: Path, limit: int | None) -> dict[str, str]:
    """Return the held-out texts ``text/NAME.valid.txt`` by name, each cut to its first ``limit`` paragraphs."""
    texts = {}
    for path in sorted((data_dir / "text").glob("*.valid.txt")):
        text = read_text(path)
        if limit is not None:
            # A blank line ends a document and is no paragraph.
            lines, paragraphs = [], 0
            for line in text.splitlines():
                paragraphs += bool(line.strip())
                if paragraphs > limit:
                    break
                lines.append(line)
            text = "\n".join(lines)
        texts[path.name.removesuffix(".valid.txt")] = text
    return texts


def find_tasks(tasks: Sequence[str] | None, data_dir: Path) -> tuple[list[str], list[str]]:
    """Return the tasks to run and remarks; without a choice, every task whose data are there."""
    if tasks is not None:
        harness.check_tasks(tasks)
        if tasks:
            harness.load_tasks(tasks, data_dir)  # a missing file is told now, not after hours
        return list(tasks), []
    found, remarks = [], []
    for task in harness.task_names():
        try:
            harness.load_tasks([task], data_dir)
            found.append(task)
        except harness.MissingDataError as error:
            remarks.append(f"{task} was not run: {error}")
    return found, remarks


@dataclass
class Measurements:
    """All parts of one candidate."""

    texts: dict[str, TextPart]
    tasks: dict[str, TaskPart]
    parameters: int


def measure_candidate(
    candidate: Candidate,
    texts: dict[str, str],
    tasks: Sequence[str],
    data_dir: Path,
    parts: Parts,
    *,
    context_length: int,
    limit: int | None,
    seed: int,
    batch_size: int,
    device: str | None,
) -> Measurements:
    """Measure what is not yet in ``parts``; the model is loaded only if something is missing."""
    identity = [candidate.weights_sha256, candidate.rule]
    protocol = [definitions_digest(harness.tasks_folder()), data_digest(data_dir), limit, seed]
    loaded: list[Any] = []

    def lm() -> Any:
        if not loaded:
            loaded.append(candidate.load(batch_size, device))
        return loaded[0]

    def measured_text(text: str) -> TextPart:
        return measure_text(lm().model, lm().tokenizer, text, context_length)

    def measured_task(task: str) -> TaskPart:
        return measure_task(lm(), task, data_dir, limit, seed)

    return Measurements(
        texts={
            name: parts.get(f"text-{name}", [identity, text, context_length], partial(measured_text, text))
            for name, text in texts.items()
        },
        tasks={task: parts.get(task, [identity, protocol], partial(measured_task, task)) for task in tasks},
        parameters=parts.get("model", identity, lambda: {"parameters": lm().model.num_parameters()})["parameters"],
    )


def measure_growth(
    candidate: Candidate, texts: dict[str, str], parts: Parts, *, context_length: int, seed: int, **load: Any
) -> list[Stage]:
    """The held-out losses of every growth stage of a grown checkpoint."""

    def measure(stage: int) -> dict[str, Any]:
        lm = candidate.load(**load, growth_stage=stage)
        return {
            "num_hidden_layers": lm.model.config.num_hidden_layers,
            "trainable_parameters": sum(p.numel() for p in lm.model.parameters() if p.requires_grad),
            "texts": {name: measure_text(lm.model, lm.tokenizer, text, context_length) for name, text in texts.items()},
        }

    stages = []
    for stage in range(1, len(candidate.ladder) + 1):
        identity = [candidate.weights_sha256, texts, context_length]
        part = parts.get(f"stage-{stage}", identity, partial(measure, stage))
        losses = [summarise_loss(candidate.label, name, text, seed) for name, text in part["texts"].items()]
        stages.append(summarise_stage(stage, part["num_hidden_layers"], part["trainable_parameters"], losses))
    return stages


def _pairs(candidates: list[Candidate]) -> list[tuple[int, int]]:
    """Which candidates to compare: every merged model with every single one, else every later one with the first."""
    merged = [index for index, candidate in enumerate(candidates) if candidate.rule is not None]
    single = [index for index, candidate in enumerate(candidates) if candidate.rule is None]
    if merged and single:
        return [(first, second) for second in merged for first in single]
    return [(0, later) for later in range(1, len(candidates))]


def _comparisons(candidates: list[Candidate], measured: list[Measurements], seed: int) -> list[Comparison]:
    """Compare candidates in pairs, on every text and task."""
    found: list[Comparison | None] = []
    for first, second in _pairs(candidates):
        names = candidates[first].label, candidates[second].label
        texts = pool_texts(measured[first].texts), pool_texts(measured[second].texts)
        tasks = measured[first].tasks, measured[second].tasks
        found += [
            compare_losses(text, (names[0], texts[0][text]), (names[1], texts[1][text]), seed) for text in texts[0]
        ]
        found += [
            compare_scores(task, (names[0], tasks[0][task]), (names[1], tasks[1][task]), seed) for task in tasks[0]
        ]
    return [comparison for comparison in found if comparison is not None]


def _provenance(
    candidates: list[Candidate], measured: list[Measurements], seed: int, limit: int | None, remarks: list[str]
) -> Provenance:
    models: list[ModelFacts] = [
        {
            "label": candidate.label,
            "folder": str(candidate.folder),
            "rule": candidate.rule,
            "num_hidden_layers": candidate.num_hidden_layers,
            "parameters": own.parameters,
            "substrate_fingerprint": candidate.substrate_fingerprint,
            "weights_sha256": candidate.weights_sha256,
        }
        for candidate, own in zip(candidates, measured, strict=True)
    ]
    return {
        "models": models,
        "protocols": {task: part["protocol"] for task, part in measured[0].tasks.items()},
        "versions": {**versions(), **{name: version(name) for name in ("lm-eval", "datasets", "numpy")}},
        "seed": seed,
        "limit": limit,
        "remarks": remarks,
    }


def evaluate_models(
    model_dirs: Sequence[Path],
    data_dir: Path,
    out_dir: Path,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    *,
    batch_size: int = 16,
    device: str | None = None,
) -> Report:
    """Score every model on the held-out texts and tasks of ``data_dir`` and write the report into ``out_dir``.

    Args:
        model_dirs: checkpoint folders. Merged models are compared with the single ones, else all with the first.
        data_dir: holds ``text/NAME.valid.txt`` and the benchmark files that eval/tasks/README.md lists.
        out_dir: receives report.json, report.md, report.html and parts/ (finished measurements, reused next time).
        tasks: names of tasks; None runs every task whose data are there, an empty list only the texts.
        limit: items of each task and paragraphs of each text; None takes all.
        seed: of the bootstrap and of lm-eval.

    Returns:
        The report (see report_schema.py).
    """
    from frozen_glyph.text.loss import MAX_CONTEXT

    started = time.monotonic()
    model_dirs, data_dir, out_dir = [Path(folder) for folder in model_dirs], Path(data_dir), Path(out_dir)
    if not data_dir.is_dir():
        raise FrozenGlyphError(
            f"data folder {str(data_dir)!r} does not exist; give a folder as eval/tasks/README.md says"
        )
    if limit is not None and limit < 1:
        raise FrozenGlyphError(f"limit {limit} is out of range; give a number of items of at least 1, or none for all")
    candidates = find_candidates(model_dirs)
    texts = find_texts(data_dir, limit)
    chosen, remarks = find_tasks(tasks, data_dir)
    if not texts and not chosen:
        raise FrozenGlyphError(
            f"data folder {str(data_dir)!r} holds nothing to evaluate: "
            "neither text/NAME.valid.txt nor a benchmark file; see eval/tasks/README.md for the layout"
        )
    # One context length for all: only then are the blocks of a text the same and can be compared in pairs.
    lengths = [candidate.context_length for candidate in candidates if candidate.context_length is not None]
    context_length = min([MAX_CONTEXT, *lengths])
    parts = Parts(out_dir / "parts")
    measured = [
        measure_candidate(
            candidate,
            texts,
            chosen,
            data_dir,
            parts,
            context_length=context_length,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            device=device,
        )
        for candidate in candidates
    ]
    report: Report = {"title": "Evaluation of " + ", ".join(dict.fromkeys(_labels(model_dirs)))}
    if limit is not None:
        report["note"] = f"Only the first {limit} items of each task and paragraphs of each text were used."
    pairs = list(zip(candidates, measured, strict=True))
    if texts:
        report["growth"] = {
            candidate.label: measure_growth(
                candidate,
                texts,
                parts,
                context_length=context_length,
                seed=seed,
                batch_size=batch_size,
                device=device,
            )
            for candidate in candidates
            if len(candidate.ladder) > 1
        }
    report["losses"] = [
        summarise_loss(candidate.label, text, part, seed)
        for candidate, own in pairs
        for text, part in pool_texts(own.texts).items()
    ]
    report["scores"] = [
        score
        for task in chosen
        for candidate, own in pairs
        for score in summarise_task(candidate.label, task, own.tasks[task], seed)
    ]
    report["comparisons"] = _comparisons(candidates, measured, seed)
    report["provenance"] = _provenance(candidates, measured, seed, limit, remarks)
    report["provenance"]["settings"] = {"context length of held-out loss": context_length, "batch size": batch_size}
    report["provenance"]["created"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report["provenance"]["seconds"] = round(time.monotonic() - started, 1)
    write_report(report, out_dir)
    return report
