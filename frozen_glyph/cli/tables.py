"""What library functions found, as tables and lines for a terminal."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from frozen_glyph.cli.layout import Cell, FittedTable

if TYPE_CHECKING:  # rooms that take long to import
    from frozen_glyph.checkpoint.describe import CheckpointFacts, StageFacts
    from frozen_glyph.checkpoint.records import ExpertFacts, TuningLosses
    from frozen_glyph.growth.estimate import PhaseEstimate
    from frozen_glyph.growth.propose import Proposal
    from frozen_glyph.health.measure import HealthReport
    from frozen_glyph.merge.plan import MergeReport

Parts = list[Cell | FittedTable]  # to be shown below each other
EXPERT = ["expert", "blocks", "shared", "weight", "adapter", "from"]
FLAGGED = "bold red"
SECONDS_PER_DAY = 86_400


def checkpoint_table(facts: CheckpointFacts) -> Parts:
    """What ``describe_checkpoint`` found."""
    kind = ", ".join(filter(None, (facts["kind"], facts["task"])))
    title = f"{facts['name']}: {kind}, {facts['parameters']:,} parameters, {size(facts['bytes'])} on disk"
    parts: Parts = []
    if facts["stages"]:
        texts = list(dict.fromkeys(text for stage in facts["stages"] for text in stage["nats_per_character"]))
        controlled = [text for text in texts if any(text in stage["control"] for stage in facts["stages"])]
        losses = [*texts, *(f"{text} minus control" for text in controlled)]
        headers = ["stage", "blocks", "parameters", "trained", *losses, "FLOPs", "memory", "size", "own", "shared"]
        parts.append(FittedTable(title, headers, stage_rows(facts["stages"], texts, controlled)))
        if texts:
            parts.append("Losses are nats per character of held-out text, in brackets what the stage changed.")
    elif facts["experts"]:
        rows = [expert_row(expert) for expert in facts["experts"]]
        parts.append(FittedTable(f"{title}, rule {facts['rule']}", EXPERT, rows))
        parts.append(f"{facts['rule']}: {facts['costs']}")
    else:
        parts.append(title)
    recipe = facts["recipe"] or {}
    lines = {
        "recipe": recipe.get("name"),
        "seed": facts["seed"],
        "substrate": facts["substrate_fingerprint"],
        "vectors": facts["vectors"],
        "parents": ", ".join(
            f"{parent['name']} {parent.get('weights_sha256', '')[:12]}" for parent in facts["parents"]
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in (facts["versions"] or {}).items()),
        "files": "; ".join(f"{name}: {problem}" for name, problem in facts["problems"].items())
        or (
            f"every {'recorded ' if facts['unrecorded'] else ''}byte as written"
            if facts["verified"]
            else "complete; --verify reads every byte"
        ),
        "not recorded": ", ".join(facts["unrecorded"]),
    }
    return parts + [f"{name}: {value}" for name, value in lines.items() if value not in (None, "")]


def stage_rows(stages: Sequence[StageFacts], texts: list[str], controlled: list[str]) -> list[list[str]]:
    """Growth stages with their losses on ``texts``, what each gained over the one before, and over the control."""
    losses: list[dict[str, float]] = [{}, *(stage["nats_per_character"] for stage in stages)]
    return [
        stage_row(
            stage,
            [
                *(change_cell(before.get(text), now.get(text)) for text in texts),
                *(minus_cell(now.get(text), stage["control"].get(text)) for text in controlled),
            ],
        )
        for stage, (before, now) in zip(stages, itertools.pairwise(losses), strict=True)
    ]


def minus_cell(loss: float | None, control: float | None) -> str:
    """A loss minus the control's, where both are known."""
    return "-" if loss is None or control is None else f"{loss - control:+.4f}"


def change_cell(before: float | None, now: float | None) -> str:
    """A loss and its change, where both are known."""
    if now is None:
        return "-"
    return f"{now:.4f}" if before is None else f"{now:.4f} ({now - before:+.4f})"


def stage_row(stage: StageFacts, losses: list[str]) -> list[str]:
    """A growth stage with its ``losses``."""
    trained = stage["trained_parameters"]
    return [
        *(str(stage["stage"]), str(stage["layers"]), f"{stage['parameters']:,}"),
        "-" if trained is None else f"{trained:,}",
        *losses,
        "-" if stage["flops"] is None else f"{stage['flops']:.3g}",
        "-" if stage["memory_bytes"] is None else size(stage["memory_bytes"]),
        *map(size, (stage["bytes"], stage["own_bytes"], stage["bytes"] - stage["own_bytes"])),
    ]


def expert_row(expert: ExpertFacts) -> list[str]:
    """An expert of a merged checkpoint."""
    origin, lora = expert["origin"] or {}, expert["adapter"]
    stage = f"@{origin['stage']}" if "stage" in origin else ""
    return [
        expert["name"],
        str(expert["layers"]),
        str(expert["shared_layers"] or "-"),
        f"{expert['weight']:.3f}",
        f"rank {lora['rank']}" if lora else "-",
        f"{origin['name']}{stage}" if origin else "-",
    ]


def merge_table(report: MergeReport) -> Parts:
    """What ``MergePlan.report`` says of sharing and cost."""
    title = f"{report['parameters']:,} parameters, {size(report['bytes'])}, rule {report['rule']}"
    shared = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in report["shared_bytes"].items() if nbytes)
    return [
        FittedTable(title, EXPERT, [expert_row(expert) for expert in report["experts"]]),
        f"stored once: {shared}, which saves {size(report['saved_bytes'])}",
        f"written: {size(report['bytes_to_write'])}",
        f"{report['rule']}: {report['costs']}",
    ]


def loss_table(losses: Mapping[str, TuningLosses]) -> Parts:
    """The losses of experts, merged and tuned model on every held-out text; nothing where there is none."""
    from frozen_glyph.merge.tune_card import loss_rows

    rows = loss_rows(losses)
    return [FittedTable("", list(rows[0]), [list(row.values()) for row in rows])] if rows else []


def estimate_table(name: str, phases: Sequence[PhaseEstimate], flops_per_second: float | None = None) -> Parts:
    """What ``estimate`` found; with ``flops_per_second``, that a device sustains, also the days."""
    from frozen_glyph.growth.estimate import short, totals

    def cost(flops: float) -> list[str]:
        return [short(flops), *([f"{flops / flops_per_second / SECONDS_PER_DAY:.3g}"] if flops_per_second else [])]

    headers = ["stage", "blocks", "steps", "tokens", "trainable", "frozen", "FLOPs/token", "FLOPs"]
    headers += [*(["days"] if flops_per_second else []), "Adam GB", "memory GB"]
    rows = [
        [
            f"{phase['stage']}{' LoRA' if phase['phase'] == 'lora' else ''}",
            str(phase["num_hidden_layers"]),
            f"{phase['steps']:,}",
            short(phase["tokens"]),
            f"{phase['trainable_parameters']:,}",
            f"{phase['frozen_parameters']:,}",
            short(phase["flops_per_token"]),
            *cost(phase["flops"]),
            f"{phase['memory_bytes']['optimizer'] / 1e9:.2f}",
            f"{phase['memory_bytes']['total'] / 1e9:.2f}",
        ]
        for phase in phases
    ]
    run = totals(phases)
    last = [phase for phase in phases if phase["phase"] == "blocks"][-1]  # adapters are merged into it or kept apart
    of_run = ["all", "", f"{run['steps']:,}", short(run["tokens"]), "", "", "", *cost(run["flops"])]
    of_run += ["", f"{run['memory_bytes'] / 1e9:.2f}"]
    return [
        FittedTable(f"{name} (dry run)", headers, rows, of_run),
        f"in the end {last['total_parameters']:,} parameters, {last['substrate_entries']:,} of them frozen substrate",
        "memory: of one device that holds everything, roughly",
    ]


def proposals_table(
    name: str, memory: int, proposals: Sequence[Proposal], flops_per_second: float | None = None
) -> Parts:
    """What ``propose`` found, and the settings of the first and of what else fits."""
    from frozen_glyph.growth.estimate import short
    from frozen_glyph.growth.propose import MARGIN

    rows: list[list[str]] = []
    said: Parts = []
    for proposal in proposals:
        flops, bytes_needed = proposal["flops"], proposal["memory_bytes"]
        if flops is None or bytes_needed is None:
            rows.append(
                [proposal["plan"], proposal["about"], "does not fit", "-", *(["-"] if flops_per_second else [])]
            )
            continue
        days = [f"{flops / flops_per_second / SECONDS_PER_DAY:.3g}"] if flops_per_second else []
        rows.append([proposal["plan"], proposal["about"], f"{bytes_needed / 1e9:.2f}", short(flops), *days])
        said.append(f"{proposal['plan']}: " + " ".join(f"--set {shlex.quote(part)}" for part in proposal["settings"]))
    headers = ["plan", "what trains", "memory GB", "FLOPs", *(["days"] if flops_per_second else [])]
    first = proposals[0]["plan"] if proposals[0]["memory_bytes"] is not None else None
    verdict = (
        f"proposed: {first}, the first of those that fit" if first else "nothing fits: make model or context smaller"
    )
    return [
        FittedTable(f"{name} in {memory / 1e9:g} GB (dry run)", headers, rows),
        f"{verdict}; all read the same tokens, and the estimate must fit {MARGIN} times",
        *said,
    ]


def recipes_table(
    costs: Mapping[str, Sequence[PhaseEstimate]], others: Mapping[str, Sequence[str]], flops_per_second: float
) -> Parts:
    """What every shipped growth recipe costs, and the names of the ``others`` by kind."""
    from frozen_glyph.growth.estimate import short, totals

    rows = []
    for name, phases in costs.items():
        run, last = totals(phases), phases[-1]
        stages = str(sum(phase["phase"] == "blocks" for phase in phases))
        days = run["flops"] / flops_per_second / SECONDS_PER_DAY
        rows.append(
            [
                *(name, stages, str(last["num_hidden_layers"]), short(last["total_parameters"]), short(run["tokens"])),
                f"{run['memory_bytes'] / 1e9:.1f}",
                f"{days:.2g}" if days >= 0.01 else "< 0.01",
            ]
        )
    headers = ["growth recipe", "stages", "blocks", "parameters", "tokens", "memory GB", "days"]
    lines = [f"{kind} recipes: {', '.join(names)}" for kind, names in others.items()]
    return [
        FittedTable("", headers, rows),
        f"memory: of one device, roughly; days: at {flops_per_second:.3g} FLOP/s (--flops-per-second)",
        *lines,
    ]


def health_table(name: str, report: HealthReport) -> Parts:
    """Every block and Linear with its metrics; flagged numbers are red, and said in words below."""
    from frozen_glyph.health.measure import METRICS
    from frozen_glyph.health.report import number, rows_of

    def cell(values: dict[str, float | None], key: str) -> Cell:
        shown = number(values.get(key))
        if key == "constancy" and key in values:
            shown += f" ({number(values['constancy_low'])} to {number(values['constancy_high'])})"
        return Text(shown, FLAGGED) if METRICS[key].flags(values.get(key)) else shown

    title = f"{name}: {report['examples']} x {report['tokens']} tokens, {report['loss']:.3f} nats per token"
    headers = ["block, Linear", *(metric.title for metric in METRICS.values())]
    rows = [[label, *(cell(values, key) for key in METRICS)] for label, values in rows_of(report)]
    flags: Parts = [
        Text.assemble((block["name"], FLAGGED), f": {flag}") for block in report["blocks"] for flag in block["flags"]
    ]
    return [FittedTable(title, headers, rows), *(flags or ["No block is flagged."])]


def size(nbytes: int) -> str:
    """Bytes in words."""
    power = min((max(nbytes, 1).bit_length() - 1) // 10, 3)
    return f"{nbytes / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB')[power]}" if power else f"{nbytes} B"
