"""The report of the growth study: losses by depth, every arm against a few others, and costs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.growth.runs import ARMS, BASES, CONTROL, GROWN, MEMORY


def summarise(results: Results, scale: Any, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Losses and differences of the arms that have finished every seed.

    ``depth``: each stage of the arms that grow by one, against the stage before and against the control after as many
    tokens; ``arms``: each arm after its last stage, ``minus`` every other one, and its loss ``by_stage``.
    """
    runs = finished(results, arms, scale, seeds)
    if CONTROL not in runs:
        raise SystemExit(f"{CONTROL!r} has not finished every seed; run the study first")
    text = runs[CONTROL][0]["stages"][0]

    def nats(arm: str, stage: int) -> list[list[float]]:
        """Of each block of the reported text, by seed."""
        return [run["stages"][stage]["nats"] for run in runs[arm]]

    def difference(first: tuple[str, int], second: tuple[str, int]) -> dict[str, Any] | None:
        return None if first == second else difference_of(nats(*first), nats(*second), text)

    depth = [
        {
            "arm": arm,
            **{name: runs[arm][0]["stages"][stage][name] for name in ("blocks", "trainable_parameters")},
            **loss_of(nats(arm, stage), text),
            "against_stage_before": difference((arm, stage - 1), (arm, stage)) if stage else None,
            "against_control": difference((CONTROL, stage), (arm, stage)),
        }
        for arm in GROWN
        if arm in runs
        for stage in range(scale.stages)
    ]
    reported = {
        arm: {
            **loss_of(nats(arm, -1), text),
            "minus": {base: difference((base, -1), (arm, -1)) for base in runs},
            "tokens": found[0]["tokens"],
            "by_stage": [
                {
                    "tokens": sum(entry["tokens"] for entry in found[0]["stages"][: stage + 1]),
                    "loss": loss_of(nats(arm, stage), text)["loss"],
                }
                for stage in range(len(found[0]["stages"]))
            ],
            "flops": found[0]["flops"],
            "trainable_parameters": max(stage["trainable_parameters"] for stage in found[0]["stages"]),
            "seconds": sum(run["seconds"] for run in found) / len(found),
            "foretold_mebibytes": found[0]["foretold_mebibytes"],
            "peak_mebibytes": results.get((arm, MEMORY, 0), {}).get("peak_mebibytes"),
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
    scale, bases = report["scale"], [base for base in BASES if base in report["arms"]]
    lines = [
        "# Ways of growing against one block trained on and against training all blocks at once",
        "",
        f"English prose and Wikipedia; {scale['hidden_size']} wide, {scale['stages']} blocks, {scale['vocab_size']} "
        f"tokens, context {scale['context_length']}, {said_tokens(scale)} in batches of "
        f"{scale['batch_tokens']:,}; unless an arm says otherwise the learning rate is constant and falls in the last "
        f"fifth of all steps. {len(report['seeds'])} seeds (blocks, head and order); the "
        f"substrate is the same for all. Reported text: {report['documents']} documents, {report['characters']:,.0f} "
        f"characters; nats per character, below zero is better. {intervals_line(report)} {report['rates']}",
        "",
        *(f"* `{arm}`: {ARMS[arm].about}" for arm in report["arms"]),
        "",
        "## Loss by depth",
        "",
        *table(
            [
                "arm",
                "blocks",
                "trained at a time",
                "nats per character",
                "minus the stage before",
                f"minus `{CONTROL}`",
            ],
            [
                [
                    row["arm"],
                    str(row["blocks"]),
                    f"{row['trainable_parameters']:,}",
                    loss_cell(row, 4),
                    difference_cell(row["against_stage_before"]),
                    difference_cell(row["against_control"]),
                ]
                for row in report["depth"]
            ],
        ),
        f"A deeper stage has also read more tokens; `{CONTROL}` has read as many. Where one decay is over all stages, "
        "only the last has decayed.",
        "",
        "## All arms after their last stage",
        "",
        *table(
            [
                *("arm", "nats per character", *(f"minus `{base}`" for base in bases), "tokens", "TFLOP"),
                *("trained parameters", "seconds", "peak MiB, measured", "foretold"),
            ],
            [
                [
                    arm,
                    loss_cell(row, 4),
                    *(difference_cell(row["minus"][base]) for base in bases),
                    f"{row['tokens']:,}",
                    f"{row['flops'] / 1e12:.2f}",
                    f"{row['trainable_parameters']:,}",
                    f"{row['seconds']:.0f}",
                    str(row["peak_mebibytes"] or "-"),
                    str(row["foretold_mebibytes"]),
                ]
                for arm, row in report["arms"].items()
            ],
        ),
        f"![Loss against memory, compute and tokens]({report['picture']})",
        "",
        "Memory is that of torch's tensors in the first steps of every stage, beyond interpreter and libraries.",
        "",
        circumstances_line(report),
        "",
    ]
    return "\n".join(lines)


def said_tokens(scale: dict[str, Any]) -> str:
    first = f"{scale['first_tokens']:,} tokens in the first stage, then " if scale["first_tokens"] else ""
    return f"{first}{scale['stage_tokens']:,} tokens a stage"


def difference_cell(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else signed(entry, digits=4, seeds=True)
