"""The report of the growth study: losses by depth, every arm against growing and against the control, and costs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.growth.runs import ARMS, BASELINE, CONTROL


def summarise(results: Results, scale: Any, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Losses and differences of the arms that have finished every seed.

    ``depth``: each stage of ``grown`` against the stage before and against the control after as many tokens; ``arms``:
    each arm at full depth, ``minus`` ``grown`` and the control.
    """
    runs = finished(results, arms, scale, seeds)
    if BASELINE not in runs:
        raise SystemExit(f"{BASELINE!r} has not finished every seed; run the study first")
    text = runs[BASELINE][0]["stages"][0]

    def nats(arm: str, stage: int) -> list[list[float]]:
        """Of each block of the reported text, by seed."""
        return [run["stages"][stage]["nats"] for run in runs[arm]]

    def difference(first: tuple[str, int], second: tuple[str, int]) -> dict[str, Any] | None:
        if first[0] not in runs or first == second:
            return None
        return difference_of(nats(*first), nats(*second), text)

    depth = [
        {
            "blocks": runs[BASELINE][0]["stages"][stage]["blocks"],
            "trainable_parameters": runs[BASELINE][0]["stages"][stage]["trainable_parameters"],
            **loss_of(nats(BASELINE, stage), text),
            "against_stage_before": difference((BASELINE, stage - 1), (BASELINE, stage)) if stage else None,
            "against_control": difference((CONTROL, stage), (BASELINE, stage)),
        }
        for stage in range(scale.stages)
    ]
    reported = {
        arm: {
            **loss_of(nats(arm, -1), text),
            "minus": {base: difference((base, -1), (arm, -1)) for base in (BASELINE, CONTROL)},
            "tokens": found[0]["tokens"],
            "flops": found[0]["flops"],
            "trainable_parameters": max(stage["trainable_parameters"] for stage in found[0]["stages"]),
            "seconds": sum(run["seconds"] for run in found) / len(found),
            "peak_mebibytes": max(run["peak_mebibytes"] for run in found),
        }
        for arm, found in runs.items()
    }
    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "documents": len(set(text["documents"])),
        "characters": sum(text["characters"]),
        "rates": rates_line(results, arms, scale, seeds),
        "depth": depth,
        "arms": reported,
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as two tables, with the protocol above them."""
    scale = report["scale"]
    lines = [
        "# Growing against one block trained on and against training all blocks at once",
        "",
        f"English prose and Wikipedia; {scale['hidden_size']} wide, {scale['stages']} blocks, {scale['vocab_size']} "
        f"tokens, context {scale['context_length']}, {scale['stage_tokens']:,} tokens a stage in batches of "
        f"{scale['batch_tokens']:,}, a cosine per stage. {len(report['seeds'])} seeds (blocks, head and order); the "
        f"substrate is the same for all. Reported text: {report['documents']} documents, {report['characters']:,.0f} "
        f"characters; nats per character, below zero is better. {intervals_line(report)} {report['rates']}",
        "",
        *(f"* `{arm}`: {ARMS[arm].about}" for arm in report["arms"]),
        "",
        f"## Loss by depth (`{BASELINE}`)",
        "",
        *table(
            ["blocks", "trained at a time", "nats per character", "minus the stage before", f"minus `{CONTROL}`"],
            [
                [
                    str(row["blocks"]),
                    f"{row['trainable_parameters']:,}",
                    loss_cell(row, 4),
                    difference_cell(row["against_stage_before"]),
                    difference_cell(row["against_control"]),
                ]
                for row in report["depth"]
            ],
        ),
        f"A deeper stage has also read more tokens; `{CONTROL}` has read as many. ",
        "",
        "## All arms after their last stage",
        "",
        *table(
            [
                *("arm", "nats per character", f"minus `{BASELINE}`", f"minus `{CONTROL}`", "tokens", "PFLOP"),
                *("trained at a time", "seconds", "peak MiB"),
            ],
            [
                [
                    arm,
                    loss_cell(row, 4),
                    *(difference_cell(row["minus"][base]) for base in (BASELINE, CONTROL)),
                    f"{row['tokens']:,}",
                    f"{row['flops'] / 1e15:.4f}",
                    f"{row['trainable_parameters']:,}",
                    f"{row['seconds']:.0f}",
                    str(row["peak_mebibytes"]),
                ]
                for arm, row in report["arms"].items()
            ],
        ),
        circumstances_line(report),
        "",
    ]
    return "\n".join(lines)


def difference_cell(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else signed(entry, digits=4, seeds=True)
