"""The report of the growth study: losses by depth, final losses against the baseline on the same seeds, and costs."""

from dataclasses import asdict
from typing import Any

from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances, circumstances_line, intervals_line, loss_cell, signed, table

BASELINE = "grown"
VARIANTS = ("grown", "monolithic-tokens", "monolithic-compute", "grown-random", "grown-copy", "grown-lora")


def summarise(results: dict[tuple[str, int], dict[str, Any]], scale: Any) -> dict[str, Any]:
    """Losses and differences over the seeds that have finished."""
    if (BASELINE, 0) not in results:
        raise SystemExit(f"no finished run of {BASELINE!r} with seed 0; run the study first")
    text = results[BASELINE, 0]["stages"][0]

    def seeds_of(*variants: str) -> list[int]:
        """Seeds that all ``variants`` have run with."""
        return sorted(set.intersection(*({seed for name, seed in results if name == variant} for variant in variants)))

    def nats(variant: str, stage: int, seeds: list[int]) -> list[list[float]]:
        """Of each block of held-out text, by seed."""
        return [results[variant, seed]["stages"][stage]["nats"] for seed in seeds]

    def loss(variant: str, stage: int) -> dict[str, Any]:
        return loss_of(nats(variant, stage, seeds_of(variant)), text)

    def difference(first: tuple[str, int], second: tuple[str, int]) -> dict[str, Any]:
        seeds = seeds_of(first[0], second[0])
        return difference_of(nats(*first, seeds), nats(*second, seeds), text)

    variants = sorted({variant for variant, _ in results}, key=VARIANTS.index)
    depth = [
        {
            "blocks": results[BASELINE, 0]["stages"][stage]["blocks"],
            "trainable_parameters": results[BASELINE, 0]["stages"][stage]["trainable_parameters"],
            **loss(BASELINE, stage),
            "against_stage_before": difference((BASELINE, stage - 1), (BASELINE, stage)) if stage else None,
        }
        for stage in range(scale.stages)
    ]
    final = []
    for variant in variants:
        runs = [results[variant, seed] for seed in seeds_of(variant)]
        final.append(
            {
                "variant": variant,
                **loss(variant, -1),
                "against_grown": None if variant == BASELINE else difference((BASELINE, -1), (variant, -1)),
                "tokens": runs[0]["tokens"],
                "flops": runs[0]["flops"],
                "trainable_parameters": max(stage["trainable_parameters"] for stage in runs[0]["stages"]),
                "seconds": sum(run["seconds"] for run in runs) / len(runs),
                "peak_mebibytes": max(run["peak_mebibytes"] for run in runs),
            }
        )
    return {
        "scale": asdict(scale),
        "seeds": {variant: seeds_of(variant) for variant in variants},
        "held_out_documents": len(set(text["documents"])),
        "depth": depth,
        "final": final,
        **circumstances(),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as two tables, with the protocol above them."""
    scale = report["scale"]
    lines = [
        "# Growing against training all blocks at once",
        "",
        f"English prose and Wikipedia; {scale['hidden_size']} wide, {scale['stages']} blocks, {scale['vocab_size']} "
        f"tokens, context {scale['context_length']}, {scale['stage_tokens']:,} tokens a stage in batches of "
        f"{scale['batch_tokens']:,}, peak learning rate {scale['learning_rate']} with a cosine per stage. "
        f"{len(report['seeds'][BASELINE])} seeds (blocks, head and order), fewer where a row shows fewer; the "
        "substrate is the same for all. A deeper stage has also read more tokens. Held-out text: "
        f"{report['held_out_documents']} documents, in nats per character. "
        f"{intervals_line(report)} Below zero means better.",
        "",
        "## Loss by depth (grown, identity)",
        "",
        *table(
            ["blocks", "trained at a time", "nats per character", "against the stage before"],
            [
                [
                    str(row["blocks"]),
                    f"{row['trainable_parameters']:,}",
                    loss_cell(row, 4),
                    difference_cell(row["against_stage_before"]),
                ]
                for row in report["depth"]
            ],
        ),
        "## All variants at full depth",
        "",
        *table(
            [
                *("variant", "nats per character", "minus grown", "tokens", "PFLOP"),
                *("trained at a time", "seconds", "peak MiB"),
            ],
            [
                [
                    row["variant"],
                    loss_cell(row, 4),
                    difference_cell(row["against_grown"]),
                    f"{row['tokens']:,}",
                    f"{row['flops'] / 1e15:.4f}",
                    f"{row['trainable_parameters']:,}",
                    f"{row['seconds']:.0f}",
                    str(row["peak_mebibytes"]),
                ]
                for row in report["final"]
            ],
        ),
        circumstances_line(report),
        "",
    ]
    return "\n".join(lines)


def difference_cell(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else signed(entry, digits=4, seeds=True)
