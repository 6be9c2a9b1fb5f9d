"""Growing against training all layers at once, on real text: depth, compute, initialisation, LoRA phases, cost.

    python -m eval.studies.growth --data DIR --out eval/results/growth-study

DIR holds text/en.txt and text/en.valid.txt. One run for each variant and seed, in a process of its own; what has
finished is kept in the work folder, and a run that was stopped goes on, so the same command resumes the study.

Variants, all of the same width on one substrate:
    grown              one block a stage, each new block starting as the identity
    grown-random       the same with freshly initialised blocks (the published way), grown-copy with copies of the top
    grown-lora         the same tokens, a quarter of them in LoRA phases at the end of the stages from the third on
    monolithic-tokens  all blocks at once, as many tokens as all stages together
    monolithic-compute all blocks at once, as many FLOPs as all stages together
"""

import os
import platform
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.studies.common.jobs import job_name, read_results, run_jobs, study_arguments, write_report, write_result

BASELINE = "grown"
VARIANTS = ("grown", "monolithic-tokens", "monolithic-compute", "grown-random", "grown-copy", "grown-lora")
LORA_FROM_STAGE, LORA_SHARE = 3, 0.25


@dataclass(frozen=True)
class Scale:
    """How large the study is."""

    stages: int = 6
    stage_tokens: int = 229_376
    hidden_size: int = 192
    heads: int = 6
    vocab_size: int = 2048
    context_length: int = 256
    batch_tokens: int = 2048
    learning_rate: float = 2e-3


SMOKE = Scale(stages=3, stage_tokens=512, hidden_size=32, heads=2, vocab_size=600, context_length=32, batch_tokens=128)


def main() -> None:
    arguments = study_arguments("growth-study", __doc__, "text/en.txt and text/en.valid.txt").parse_args()
    scale = SMOKE if arguments.smoke else Scale()
    if arguments.run:
        variant, seed = arguments.run
        run_variant(variant, int(seed), scale, arguments.data, arguments.work)
        return
    main, others = VARIANTS[:3], VARIANTS[3:]
    jobs = [(variant, seed) for part in (main, others) for seed in range(arguments.seeds) for variant in part]
    if not arguments.report:
        build_ground(scale, arguments.data, arguments.work)
        run_jobs(jobs, arguments.work, arguments.processes)
    results = read_results(arguments.work, jobs)
    if (BASELINE, 0) not in results:
        raise SystemExit(f"no finished run of {BASELINE!r} with seed 0 in {str(arguments.work)!r}; run the study first")
    report = summarise(results, scale)
    write_report(arguments.out, report, as_markdown(report))


def build_ground(scale: Scale, data: Path, work: Path) -> None:
    """The substrate that all runs share, learnt from the training text."""
    from frozen_glyph import GlyphSubstrate, build_tokenizer
    from frozen_glyph.text.documents import read_text, split_documents

    if not (work / "substrate" / "substrate.json").exists():
        tokenizer = build_tokenizer(split_documents(read_text(data / "text" / "en.txt")), scale.vocab_size)
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def recipe_of(variant: str, seed: int, scale: Scale) -> Any:
    """The growth recipe of a variant."""
    from frozen_glyph.growth.estimate import estimate
    from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe, StageRecipe, SubstrateRecipe
    from frozen_glyph.training.recipe import TrainingRecipe

    def recipe(stages: list[StageRecipe], lora: LoraRecipe | None = None) -> GrowthRecipe:
        return GrowthRecipe(
            name=variant,
            model={"hidden_size": scale.hidden_size, "num_attention_heads": scale.heads},
            stages=stages,
            substrate=SubstrateRecipe(vocab_size=scale.vocab_size),
            training=TrainingRecipe(
                context_length=scale.context_length,
                batch_tokens=scale.batch_tokens,
                learning_rate=scale.learning_rate,
                warmup_steps=20,
                save_steps=200,
            ),
            lora=lora,
            seed=seed,
        )

    def grown(init: str, share: float = 1.0) -> list[StageRecipe]:
        return [
            StageRecipe(tokens=round(scale.stage_tokens * (share if stage >= LORA_FROM_STAGE else 1)), init=init)
            for stage in range(1, scale.stages + 1)
        ]

    def monolithic(tokens: int) -> GrowthRecipe:
        return recipe([StageRecipe(layers=scale.stages, tokens=tokens)])

    def flops(of: GrowthRecipe) -> float:
        return sum(phase["flops"] for phase in estimate(of))

    all_tokens = scale.stages * scale.stage_tokens
    if variant == "grown-lora":
        lora = LoraRecipe(from_stage=LORA_FROM_STAGE, tokens=round(scale.stage_tokens * LORA_SHARE))
        return recipe(grown("identity", 1 - LORA_SHARE), lora)
    if variant == "monolithic-tokens":
        return monolithic(all_tokens)
    if variant == "monolithic-compute":
        share = flops(recipe(grown("identity"))) / flops(monolithic(all_tokens))
        return monolithic(round(all_tokens * share))
    return recipe(grown(variant.partition("-")[2] or "identity"))


def run_variant(variant: str, seed: int, scale: Scale, data: Path, work: Path) -> None:
    """Grow one variant and write its result: losses by stage and block, and what it cost."""
    import torch

    from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate, grow_from_recipe
    from frozen_glyph.growth.estimate import estimate
    from frozen_glyph.text.documents import read_text
    from frozen_glyph.text.loss import text_loss

    torch.set_num_threads(1)
    recipe, out = recipe_of(variant, seed, scale), work / job_name((variant, seed))
    text, valid = data / "text" / "en.txt", data / "text" / "en.valid.txt"
    provenance = grow_from_recipe(recipe, out, [text], substrate=work / "substrate", progress=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tokenizer = GlyphSubstrate.from_pretrained(work / "substrate").tokenizer
    stages = []
    for entry in provenance["stages"]:
        model = FrozenGlyphForCausalLM.from_pretrained(out, growth_stage=entry["stage"])
        loss = text_loss(model, tokenizer, read_text(valid))
        stages.append(
            {
                "blocks": entry["num_hidden_layers"],
                "trainable_parameters": entry["trainable_parameters"],
                "tokens": entry["tokens"],
                "seconds": entry["seconds"],
                "nats_per_character": loss.nats_per_character,
                "nats": loss.nats.tolist(),
                "characters": loss.characters.tolist(),
            }
        )
    result = {
        "variant": variant,
        "seed": seed,
        "stages": stages,
        "tokens": sum(stage["tokens"] for stage in stages),
        "seconds": sum(stage["seconds"] for stage in stages),
        "flops": sum(phase["flops"] for phase in estimate(recipe)),
        "peak_mebibytes": peak,
        "versions": provenance.get("versions", {}),
    }
    write_result(work, (variant, seed), result)


def summarise(results: dict[tuple[str, int], dict[str, Any]], scale: Scale) -> dict[str, Any]:
    """Losses by depth, final losses against the baseline on the same seeds, and costs."""
    import numpy as np

    from frozen_glyph.checkpoint.provenance import versions
    from frozen_glyph.statistics import bootstrap_interval, paired_bootstrap

    characters = results[BASELINE, 0]["stages"][0]["characters"]

    def seeds_of(*variants: str) -> list[int]:
        """Seeds that all ``variants`` have run with."""
        return sorted(set.intersection(*({seed for name, seed in results if name == variant} for variant in variants)))

    def stages(variant: str, stage: int, seeds: list[int]) -> list[dict[str, Any]]:
        return [results[variant, seed]["stages"][stage] for seed in seeds]

    def nats(entries: list[dict[str, Any]]) -> Any:
        """Mean over seeds of the nats of each block of held-out text."""
        return np.mean([entry["nats"] for entry in entries], axis=0)

    def loss(variant: str, stage: int) -> dict[str, Any]:
        entries = stages(variant, stage, seeds_of(variant))
        low, high = bootstrap_interval(nats(entries), characters)
        by_seed = [entry["nats_per_character"] for entry in entries]
        return {"loss": sum(by_seed) / len(by_seed), "low": low, "high": high, "by_seed": by_seed}

    def difference(first: tuple[str, int], second: tuple[str, int]) -> dict[str, Any]:
        """Second minus first; below zero: the second is better."""
        seeds = seeds_of(first[0], second[0])
        before, after = stages(*first, seeds), stages(*second, seeds)
        found = paired_bootstrap(nats(before), nats(after), characters)
        by_seed = [
            new["nats_per_character"] - old["nats_per_character"] for old, new in zip(before, after, strict=True)
        ]
        return {**asdict(found), "by_seed": by_seed}

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
        "held_out_blocks": len(characters),
        "depth": depth,
        "final": final,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread a run",
        "versions": versions(),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as two tables, with the protocol above them."""
    scale = report["scale"]

    def interval(entry: dict[str, Any]) -> str:
        return f"{entry['low']:.4f} to {entry['high']:.4f}"

    def signed(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return "-"
        seeds = ", ".join(f"{value:+.4f}" for value in entry["by_seed"])
        return f"{entry['difference']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f}; seeds {seeds})"

    lines = [
        "# Growing against training all blocks at once",
        "",
        f"English prose and Wikipedia; {scale['hidden_size']} wide, {scale['stages']} blocks, {scale['vocab_size']} "
        f"tokens, context {scale['context_length']}, {scale['stage_tokens']:,} tokens a stage in batches of "
        f"{scale['batch_tokens']:,}, peak learning rate {scale['learning_rate']} with a cosine per stage. "
        f"{len(report['seeds'][BASELINE])} seeds (blocks, head and order), fewer where a row shows fewer; the "
        "substrate is the same for all. A deeper stage has also read more tokens. Held-out text: "
        f"{report['held_out_blocks']} blocks from other books and articles, in nats per character; intervals are 95% "
        "bootstrap intervals over blocks of the mean over seeds, differences are paired by block. Seeds are few: "
        "their differences stand beside each interval. Below zero means better.",
        "",
        "## Loss by depth (grown, identity)",
        "",
        "| blocks | trained at a time | nats per character | 95% interval | against the stage before |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['blocks']} | {row['trainable_parameters']:,} | {row['loss']:.4f} | {interval(row)} | "
            f"{signed(row['against_stage_before'])} |"
            for row in report["depth"]
        ),
        "",
        "## All variants at full depth",
        "",
        "| variant | nats per character | 95% interval | minus grown | tokens | PFLOP | trained at a time | seconds "
        "| peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['variant']} | {row['loss']:.4f} | {interval(row)} | {signed(row['against_grown'])} | "
            f"{row['tokens']:,} | {row['flops'] / 1e15:.4f} | {row['trainable_parameters']:,} | {row['seconds']:.0f} | "
            f"{row['peak_mebibytes']} |"
            for row in report["final"]
        ),
        "",
        f"Machine: {report['machine']}. Versions: "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
