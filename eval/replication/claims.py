"""The papers' claims with their published figures, and what the results files say of each; one function for each part.

Published figures: arXiv 2507.07129 (growing, composition), 2507.04886 (frozen embeddings), cards of ``Bochkov/*``.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

from eval.replication.rules import MARGIN, Claim, Estimate, Side, rank_trend
from eval.studies.forgetting.report import difference

GROWING, SEMANTICS, CARDS = "arXiv 2507.07129", "arXiv 2507.04886", "model cards"
SQUAD_BY_DEPTH = (1.21, 0.82, 3.75, 3.16, 2.30, 5.55)  # percent, 1 to 6 blocks
MMLU_BY_DEPTH = (18.08, 19.43, 20.63, 21.03, 20.33, 21.63)
NATS, POINTS = "nats per character", "percentage points"
Read = Callable[[str], dict[str, Any]]  # name of a results file -> its content


def cost(tokens: float, parameters: float, seconds: float, run: str) -> str:
    """Compute of one run, for people."""
    return (
        f"{tokens / 1e6:.2f}M tokens, {parameters / 1e6:.2f}M parameters trained at a time, "
        f"at most {seconds / 60:.1f} core-minutes {run}"
    )


def cost_of_demo(demo: dict[str, Any]) -> str:
    return f"2 experts, 3 stages of {next(iter(demo['settings'].values()))['steps per stage']} steps"


def scaled(entry: dict[str, Any], factor: float) -> dict[str, float]:
    return {key: factor * entry[key] for key in ("value", "low", "high")}


def growing(read: Read) -> list[Claim]:
    """Loss by depth; the bounded active budget and its price."""
    study = read("growth-study")
    depth, final = study["depth"], {row["variant"]: row for row in study["final"]}
    grown = final["grown"]
    compute = cost(grown["tokens"], grown["trainable_parameters"], grown["seconds"], "a seed")
    steps = [
        Estimate.of(f"{below['blocks']} to {above['blocks']} blocks", above["against_stage_before"], "below")
        for below, above in itertools.pairwise(depth)
    ]
    trained = [row["trainable_parameters"] for row in depth]
    spread = max(trained) / min(trained) - 1
    constant = Estimate("largest stage", spread, spread, spread, [spread] * len(grown["by_seed"]), "below", MARGIN)

    def against_grown(variant: str, side: Side) -> list[Estimate]:
        return [Estimate.of(f"{variant} minus grown", final[variant]["against_grown"], side)]

    def claim(text: str, estimates: list[Estimate], unit: str = NATS, **other: str) -> Claim:
        return Claim(text, estimates, unit, compute, "growth-study", **other)

    return [
        claim(
            "The loss falls with every block that is stacked on frozen ones",
            steps,
            published="each new block: a spike of the loss, then fast convergence; no losses",
            source=GROWING,
            caveat="a deeper stage has also read more tokens, so this is not depth alone",
        ),
        claim(
            "What trains at a time does not grow with depth",
            [constant],
            "share larger than the smallest",
            published="about constant: 105.0M of 247.6M parameters in the last of three stages",
            source=f"{GROWING} v3",
            caveat="memory: bench-memory.json",
        ),
        claim(
            "At equal tokens, training all blocks at once ends better",
            against_grown("monolithic-tokens", "below"),
            published="a clear cost in final perplexity",
            source=f"{GROWING} v3",
        ),
        claim(
            "At equal compute, growing ends better than training all blocks at once",
            against_grown("monolithic-compute", "above"),
            caveat="far from convergence",
        ),
    ]


def extraction(read: Read) -> list[Claim]:
    """Answering from a text, by depth."""
    study, demo, real = read("squad-by-depth"), read("demo"), read("tiny-trilingual")
    compute = f"models of growth-study; {study['cpu_seconds'] / 60:.1f} core-minutes of answering"

    def slope(task: str, metric: str) -> Estimate:
        entry = study["tasks"][task][metric]["slope"]
        percent: dict[str, Any] = scaled(entry, 100)
        percent["by_seed"] = [100 * value for value in entry["by_seed"]]
        return Estimate.of(f"{metric} for each block", percent, "above")

    def best(task: str, metric: str) -> str:
        found = study["tasks"][task][metric]
        return f"at best {max(entry['value'] for entry in found['by_depth']):.1%} of {found['questions']} right"

    def by_depth(name: str, values: tuple[float, ...]) -> str:
        correlation, p_value = rank_trend(values)
        figures = ", ".join(f"{value:.2f}" for value in values)
        return f"{name} by depth 1 to 6: {figures} (rank correlation {correlation:.2f}, exact p = {p_value:.2f})"

    by_seed: dict[str, list[float]] = {}
    for row in demo["Ability, first and last stage (share right)"]:
        if row["task"].startswith("extraction"):
            by_seed.setdefault(row["seed"], []).append(100 * float(row["difference"].split()[0]))
    copying = [sum(values) / len(values) for values in by_seed.values()]
    return [
        Claim(
            "Answering from a text appears with depth: short-answer SQuAD, the published protocol",
            [slope("paper_squad", "hit")],
            POINTS,
            compute,
            "squad-by-depth",
            published=by_depth("SQuAD", SQUAD_BY_DEPTH),
            source=GROWING,
            caveat=best("paper_squad", "hit"),
        ),
        Claim(
            "Answering from a text appears with depth: SQuAD v1.1 as completion",
            [slope("fg_squad", "exact_match")],
            POINTS,
            compute,
            "squad-by-depth",
            caveat=best("fg_squad", "exact_match"),
        ),
        Claim(
            "Answering from a text appears with depth: copying a name out of a note (synthetic)",
            [Estimate.between_seeds("last stage minus first", copying, "above")],
            f"{POINTS}, mean of both experts and both languages of notes; interval between seeds",
            cost_of_demo(demo),
            "demo",
            caveat="experts and notes differ much",
        ),
        Claim(
            "MMLU rises with depth",
            [
                Estimate.of(f"{row['model']} for each block", {**row, **scaled(row, 100)}, "above")
                for row in real["trends"]
                if row["name"] == "mmlu"
            ],
            POINTS,
            f"2 experts of 3 stages, {real['provenance']['limit']:,} questions",
            "tiny-trilingual",
            published=f"{by_depth('MMLU', MMLU_BY_DEPTH)}; chance 25",
            source=GROWING,
            caveat="models of this size answer by chance, so the order of their scores means nothing",
        ),
    ]


def composition(read: Read) -> list[Claim]:
    """Merged models against their experts; the rule is the published mean of the logits."""
    study, demo, real = read("composition-study"), read("demo"), read("tiny-trilingual")
    losses, costs = study["losses"], [study["costs"][f"expert_{language}"] for language in ("en", "ru", "zh")]
    seconds = sum(entry["seconds"] for entry in costs) / len(costs)
    compute = cost(costs[0]["tokens"], costs[0]["parameters"], seconds, "an expert")

    def against_best(text: str, group: str) -> Estimate:
        experts = losses[text][f"{group}/mean"]["minus_expert"]
        best = min(experts, key=lambda name: losses[text][f"single/{name}"]["loss"])
        return Estimate.of(f"{text}: {group} merged minus {best}", experts[best], "below")

    def against_demo(text: str) -> list[Estimate]:
        rows = [
            row
            for row in demo["Merged model against its experts (nats per character)"]
            if (row["model"], row["text"]) == ("merged (mean)", text)
        ]
        values = {name: [float(row[f"minus {name}"].split()[0]) for row in rows] for name in ("ru", "zh")}
        return [Estimate.between_seeds(f"{text}: merged minus {name}", of, "below") for name, of in values.items()]

    benchmarks = [
        Estimate.of(f"{row['name']} minus {row['first']}", row, "above")
        for row in real["comparisons"]
        if row["kind"] == "score" and row["second"] == "merged (mean)" and re.search("mmlu|squad", row["name"])
    ]
    trained = real["growth"]["ru"][0]["trainable_parameters"]

    better = "The mean of the logits beats each of its experts:"

    def claim(text: str, estimates: list[Estimate], published: str = "", source: str = "") -> Claim:
        return Claim(f"{better} {text}", estimates, NATS, compute, "composition-study", published, source)

    def synthetic(text: str, estimates: list[Estimate]) -> Claim:
        unit = f"{NATS}; interval between seeds"
        return Claim(f"{better} {text} (synthetic)", estimates, unit, cost_of_demo(demo), "demo")

    return [
        Claim(
            f"{better} benchmarks",
            benchmarks,
            "share right",
            f"2 experts, {trained / 1e6:.2f}M parameters trained at a time",
            "tiny-trilingual",
            "MMLU best 23.44 (experts 22.29, 19.42), max 22.37 (23.58, 24.72), nemo 8.99 (8.80, 6.62), chance 25; "
            "SQuAD best 19.73 (14.84, 15.12)",
            f"{GROWING}, {CARDS}",
            "the published merged models may have been trained on",
        ),
        claim(
            "text that only one knows",
            [against_best(text, "three") for text in ("en", "ru", "zh")],
            "BLEU into English falls",
            GROWING,
        ),
        claim("text that all know", [against_best("en", "twins")]),
        synthetic("text that all know", against_demo("en")),
        claim("a mixture of all languages", [against_best("mixed", "three")]),
        synthetic("a mixture of all languages", against_demo("mixed")),
    ]


def substrate(read: Read) -> list[Claim]:
    """Frozen vectors against a trained table; the limit is what may be lost."""
    study = read("substrate-study")
    base = study["kinds"]["trainable"]["nats_per_character"]
    half, whole = study["rates"][:2]
    moved = max(abs(half[text] - whole[text]) for text in base)
    kinds = {
        "published": ("the published pictures of glyphs", "MMLU frozen 22.29, trained 11.37 (ru); 19.4, 14.0 (zh)"),
        "grid": ("pictures no two of which are alike (`grid`)", ""),
        "binary": ("a 16-bit code of the token id", "it trains and writes coherent text; no figure at hand"),
        "random": ("random bits, as wide as the pictures", "one of the ablations; no figure at hand"),
    }
    claims = []
    for kind, (what, published) in kinds.items():
        found = study["kinds"][kind]
        seconds = sum(found["cpu_seconds"]) / len(found["cpu_seconds"])
        estimates = [
            Estimate.of(row["language"], row, "below", round(MARGIN * base[row["language"]], 3))
            for row in study["comparisons"]
            if (row["kind"], row["baseline"]) == (kind, "trainable")
        ]
        claims.append(
            Claim(
                f"Frozen vectors match a trained table: {what}",
                estimates,
                f"{NATS}, frozen minus trained",
                cost(study["settings"]["tokens"], found["trainable_parameters"], seconds, "a seed"),
                "substrate-study",
                published,
                f"{SEMANTICS}, {CARDS}" if published else "",
                f"half the learning rate moves `{half['kind']}` by up to {moved:.2f} (one seed)",
            )
        )
    return claims


def forgetting(read: Read) -> list[Claim]:
    """What is left of the first language after a second one; the limit is what may be lost."""
    study = read("forgetting-study")
    grown, kept_bytes = study["costs"]["grown"], study["bytes_of_first_stage"]
    compute = cost(grown["tokens"], grown["trainable_parameters"], grown["cpu_seconds"], "a training")
    bases = {"en": "english", "ru": "russian"}
    limits = {text: round(MARGIN * study["losses"][text][base]["loss"], 3) for text, base in bases.items()}
    differing = [float(not same) for same in study["first_stage_identical"]]
    worst = max(differing)

    def change(text: str, first: str, second: str, limit: float) -> Estimate:
        return Estimate.of(f"{text}: {second} minus {first}", difference(study, text, first, second), "below", limit)

    def kept(model: str, *texts: str) -> list[Estimate]:
        return [change(text, bases[text], model, limits[text]) for text in texts]

    def claim(text: str, estimates: list[Estimate], unit: str = NATS, **other: str) -> Claim:
        return Claim(text, estimates, unit, compute, "forgetting-study", **other)

    return [
        claim(
            "After growing on a second language, the deepest stage keeps the first",
            kept("grown", "en"),
            caveat="the frozen blocks are as before; what is stacked on them, and the head, learnt the other language",
        ),
        claim(
            "After growing with half of the tokens from the first language, the deepest stage keeps it",
            kept("grown-replay", "en"),
            caveat="the first language is read on, so it may also be learnt further",
        ),
        claim(
            "Growing forgets less than training everything on",
            [change("en", "tuned", "grown", 0.0)],
        ),
        claim(
            "Growing learns the second language as well as training everything on",
            [change("ru", "tuned", "grown", limits["ru"])],
        ),
        claim(
            "The stage before is still in the folder, bit for bit",
            [Estimate("logits differ", worst, worst, worst, differing, "below", 0.5)],
            "1: they do, 0: none does",
            caveat=f"keeping it takes {kept_bytes['grown']:,} bytes; {kept_bytes['tuned']:,} if everything trains on",
        ),
        claim(
            "Merging forgets nothing: the mean of the logits",
            kept("english+russian/mean", "en", "ru"),
            published='"without catastrophic forgetting"; BLEU into English falls',
            source=GROWING,
        ),
        claim("Merging forgets nothing: `posterior`", kept("english+russian/posterior", "en", "ru")),
        claim("Merging forgets nothing: `evidence`", kept("english+russian/evidence", "en", "ru")),
        claim(
            "A grown model merged with its own first stage forgets nothing: `evidence`",
            [*kept("english+grown/evidence", "en"), change("ru", "grown", "english+grown/evidence", limits["ru"])],
        ),
    ]


PARTS = {
    "Growing and its bounded budget": growing,
    "Ability by depth": extraction,
    "Composition": composition,
    "Frozen vectors": substrate,
    "Forgetting": forgetting,
}
