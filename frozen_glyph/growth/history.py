"""What the folder of a run tells of its course, while it trains and afterwards: losses by phase and stage, time left.

Nothing here imports torch. A run without growth beside it, its control, lies in a folder of its name and ``-control``.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from frozen_glyph.checkpoint.contract import METRICS, PROVENANCE_FILE, control_folder, metrics_file, pattern
from frozen_glyph.checkpoint.files import CheckpointError, check_record
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.errors import duration
from frozen_glyph.formats import FormatError, check_type, parse_json
from frozen_glyph.training.recipe import DEFAULT_STEPS


class ReadTraining(TypedDict):
    batch_tokens: int


class ReadPhase(TypedDict):
    """What is read of a planned stage, or of the LoRA phases."""

    steps: NotRequired[int | None]
    tokens: NotRequired[int | None]
    from_stage: NotRequired[int]
    every: NotRequired[int]


class ReadRecipe(TypedDict):
    name: str
    training: ReadTraining
    stages: NotRequired[list[ReadPhase]]
    lora: NotRequired[ReadPhase | None]


class ReadBlock(TypedDict):
    name: str
    metrics: dict[str, float | None]
    linears: dict[str, dict[str, float | None]]
    flags: list[str]


class ReadHealth(TypedDict):
    blocks: list[ReadBlock]


class ReadStage(TypedDict):
    stage: int
    num_hidden_layers: int
    memory_bytes: NotRequired[int]
    nats_per_character: NotRequired[dict[str, float]]
    health: NotRequired[ReadHealth | None]
    samples: NotRequired[list[dict[str, str]]]


class ReadRun(TypedDict):
    """What is read of a run's provenance."""

    recipe: ReadRecipe
    stages: list[ReadStage]
    parent: NotRequired[dict[str, int]]


class ReadEntry(TypedDict):
    """What is read of a line of its metrics; ``flops`` count from the beginning of the phase."""

    step: int
    loss: NotRequired[float | None]
    eval_loss: NotRequired[float | None]
    seconds: NotRequired[float]
    tokens_per_second: NotRequired[float]
    flops: NotRequired[int]


class PhaseCourse(TypedDict):
    """A phase that has metrics; tokens at both ends and FLOPs at its end (None: not recorded) are of all training."""

    stage: int
    kind: str  # of METRICS
    title: str
    entries: list[ReadEntry]
    begin: int
    end: int
    flops: int | None


class StagePoint(TypedDict):
    """A stage that is written, after all training up to it; losses are nats per character by held-out text, memory is
    foretold of one device."""

    stage: int
    blocks: int
    tokens: int
    flops: int | None
    memory: int | None
    losses: dict[str, float]


class Progress(TypedDict):
    """How far a run is: optimiser steps done and planned in all; None where nothing is known yet."""

    title: str
    steps: int
    planned: int
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None


def read_run(folder: Path, provenance: Mapping[str, Any] | None = None) -> ReadRun:
    """The record of the run in ``folder``; ``provenance`` is what it is about to be.

    Raises:
        CheckpointError: the folder holds no growth run, or a damaged one.
    """
    found = provenance or read_provenance(folder)
    if (kind := found.get("kind", "growth")) != "growth":
        raise CheckpointError(f"{str(folder)!r} holds a {kind} checkpoint and no growth run; name what `grow` writes")
    return check_record(found, ReadRun, folder / PROVENANCE_FILE)


def read_phases(folder: Path, run: ReadRun) -> list[PhaseCourse]:
    """The phases of a run that have metrics, in order.

    Raises:
        CheckpointError: a line of metrics is damaged.
    """
    batch = run["recipe"]["training"]["batch_tokens"]
    blocks = {entry["stage"]: entry["num_hidden_layers"] for entry in run["stages"]}
    names = [path.name for path in folder.iterdir()]
    found = (
        (int(match[1]), kind)
        for kind, name in METRICS.items()
        for match in map(pattern(name).fullmatch, names)
        if match
    )
    phases: list[PhaseCourse] = []
    tokens: int = 0
    flops: int | None = 0
    for stage, kind in sorted(found):
        entries = read_metrics(folder / metrics_file(stage, kind))
        end = tokens + max((entry["step"] for entry in entries), default=0) * batch
        spent = entries[-1].get("flops") if entries else 0
        end_flops = None if flops is None or spent is None else flops + spent
        title = "LoRA" if kind == "lora" else f"stage {stage}"
        if kind != "lora" and stage in blocks:
            title += f"\n{blocks[stage]} block{'s' if blocks[stage] > 1 else ''}"
        phases.append(
            {
                "stage": stage,
                "kind": kind,
                "title": title,
                "entries": entries,
                "begin": tokens,
                "end": end,
                "flops": end_flops,
            }
        )
        tokens, flops = end, end_flops
    return phases


def read_metrics(path: Path) -> list[ReadEntry]:
    """What was logged, a JSON object in each line; a last line that is still being written is left out.

    Raises:
        CheckpointError: a line cannot be read.
    """
    entries: list[ReadEntry] = []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
            check_type(entry, ReadEntry)
            if not all(math.isfinite(entry.get(name) or 0.0) for name in ReadEntry.__annotations__):
                raise FormatError("a number is not finite")
        except (FormatError, OverflowError) as error:
            raise CheckpointError(f"{str(path)!r} line {number} is damaged: {error}; remove the line") from None
        entries.append(entry)
    return entries


def points(phase: PhaseCourse, name: str, batch_tokens: int) -> list[tuple[int, float]]:
    """(tokens of all training, value) of each entry that has ``name``."""
    entries: list[Any] = phase["entries"]
    found = ((entry["step"], entry.get(name)) for entry in entries)
    return [(phase["begin"] + step * batch_tokens, value) for step, value in found if value is not None]


def line_of(stages: Sequence[StagePoint], text: str, over: str) -> list[tuple[float, float]]:
    """(``over``, loss) of the stages that were scored on ``text``; ``over`` is stage, tokens or flops."""
    found: list[Any] = [stage for stage in stages if text in stage["losses"]]
    return [(stage[over], stage["losses"][text]) for stage in found if stage[over] is not None]


def stage_points(run: ReadRun, phases: list[PhaseCourse]) -> list[StagePoint]:
    """The stages that are written, in order."""
    ends = {phase["stage"]: phase for phase in phases}  # the last phase of each
    return [
        {
            "stage": entry["stage"],
            "blocks": entry["num_hidden_layers"],
            "tokens": ends[entry["stage"]]["end"],
            "flops": ends[entry["stage"]]["flops"],
            "memory": entry.get("memory_bytes"),
            "losses": entry.get("nats_per_character", {}),
        }
        for entry in run["stages"]
        if entry["stage"] in ends
    ]


def control_points(folder: Path) -> list[StagePoint]:
    """The stages of the control that was run beside the run in ``folder``; nothing where there is none, or damaged."""
    control = control_folder(folder)
    try:
        run = read_run(control)
        return stage_points(run, read_phases(control, run))
    except (CheckpointError, OSError):
        return []


def progress_of(run: ReadRun, phases: list[PhaseCourse]) -> Progress:
    """How far the run is; time left at the speed of the latest steps, as if all steps to come cost as much."""
    batch = run["recipe"]["training"]["batch_tokens"]
    steps = planned_steps(run)
    logged = {(phase["stage"], phase["kind"]): phase for phase in phases if phase["entries"]}
    over = {entry["stage"] for entry in run["stages"]}
    done = 0
    for (stage, kind), planned in steps.items():
        there = logged[stage, kind]["entries"][-1]["step"] if (stage, kind) in logged else 0
        done += planned if stage in over else min(there, planned)
    latest = list(logged.values())[-1] if logged else None
    losses = [entry for entry in latest["entries"] if entry.get("loss") is not None] if latest else []
    speed = losses[-1].get("tokens_per_second") if losses else None
    planned, left = sum(steps.values()), sum(steps.values()) - done
    return {
        "title": latest["title"].replace("\n", ", ") if latest else "nothing logged yet",
        "steps": done,
        "planned": planned,
        "loss": losses[-1].get("loss") if losses else None,
        "tokens_per_second": speed,
        "seconds_left": left * batch / speed if speed else None,
    }


def progress_line(progress: Progress) -> str:
    """How far a run is, in one line."""
    loss, speed, left = progress["loss"], progress["tokens_per_second"], progress["seconds_left"]
    return ", ".join(
        [
            f"{progress['title']}: step {progress['steps']:,} of {progress['planned']:,}",
            *([] if loss is None else [f"training loss {loss:.3f}"]),
            *([] if speed is None else [f"{speed:,.0f} tokens/s"]),
            *([] if left is None else [f"about {duration(left)} left"]),
        ]
    )


def planned_steps(run: ReadRun) -> dict[tuple[int, str], int]:
    """Optimiser steps of each phase of the run itself, at most."""
    recipe, first = run["recipe"], run.get("parent", {}).get("stages", 0) + 1
    batch, lora = recipe["training"]["batch_tokens"], recipe.get("lora")
    steps: dict[tuple[int, str], int] = {}
    for stage, plan in enumerate(recipe.get("stages", []), start=first):
        steps[stage, "blocks"] = steps_of(plan, batch)
        after = stage - lora.get("from_stage", 2) if lora else -1
        if lora and after >= 0 and after % max(lora.get("every", 1), 1) == 0:
            steps[stage, "lora"] = steps_of(lora, batch)
    return steps


def steps_of(plan: ReadPhase, batch_tokens: int) -> int:
    """Optimiser steps of a phase that is planned in steps or tokens."""
    tokens = plan.get("tokens")
    return -(-tokens // max(batch_tokens, 1)) if tokens else plan.get("steps") or DEFAULT_STEPS
