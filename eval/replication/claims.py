"""What is claimed: by the papers, with their figures; by ourselves, as questions; and what is guaranteed and tested.

Sources: arXiv 2507.07129 (growing, composition), 2507.04886 (frozen embeddings), 2605.09751 (minimal codes), cards of
``Bochkov/*``. A claim is one entry; its estimates are read from one results file.
"""

import itertools
import math
import re
from typing import Any

from eval.replication.rules import MARGIN, Claim, Estimate, Guarantee, Side, rank_trend
from eval.studies.forgetting.report import difference

GROWING, SEMANTICS, MINIMAL, CARDS = "arXiv 2507.07129", "arXiv 2507.04886", "arXiv 2605.09751", "model cards"
SQUAD_BY_DEPTH = (1.21, 0.82, 3.75, 3.16, 2.30, 5.55)  # percent, 1 to 6 blocks
MMLU_BY_DEPTH = (18.08, 19.43, 20.63, 21.03, 20.33, 21.63)
PERPLEXITY = (2.36, 2.44)  # 16-bit code, trained table: three seeds, 17B tokens, 32 layers
NATS, POINTS = "nats per character", "percentage points"

Results = dict[str, Any]


def by_depth(name: str, values: tuple[float, ...]) -> str:
    """Published figures by depth with the trend that they have themselves."""
    correlation, p_value = rank_trend(values)
    figures = ", ".join(f"{value:.2f}" for value in values)
    return f"{name} by depth 1 to 6: {figures} (rank correlation {correlation:.2f}, exact p = {p_value:.2f})"


def percent(entry: Results, *keys: str) -> Results:
    """An entry of shares as percentage points."""
    scaled = {key: None if entry[key] is None else 100 * entry[key] for key in (*keys, "low", "high")}
    by_seed = {"by_seed": [100 * value for value in entry["by_seed"]]} if "by_seed" in entry else {}
    return entry | scaled | by_seed


def steps(study: Results) -> list[Estimate]:
    """Each stage of growth against the stage before, where every stage ends with a decay, as published."""
    depth = [row for row in study["depth"] if row["arm"] == "newest-identity"]
    return [
        Estimate.of(f"{below['blocks']} to {above['blocks']} blocks", above["against_stage_before"], "below")
        for below, above in itertools.pairwise(depth)
    ]


def growth(first: str, second: str, side: Side, limit: float = 0.0) -> Any:
    """An arm of the growth study minus another one, on that side of the limit; nothing where either has not run."""

    def estimates(study: Results) -> list[Estimate]:
        entry = study["arms"].get(second, {"minus": {}})["minus"].get(first)
        return [Estimate.of(f"{second} minus {first}", entry, side, limit)] if entry else []

    return estimates


def ranks(*arms: str) -> Any:
    """Last stages of the emergence study against one block trained on with the same tokens."""

    def estimates(study: Results) -> list[Estimate]:
        done = [arm for arm in arms if arm in study["minus"]]
        return [
            Estimate.of(
                f"{arm} minus one-block", study["minus"][arm]["one-block"] | {"units": study["articles"]}, "below"
            )
            for arm in done
        ]

    return estimates


def heads(arm: str) -> Any:
    """A span head that is fine-tuned on an arm's model, against one on one block trained on."""

    def estimates(study: Results) -> list[Estimate]:
        entry = study["arms"][arm]["minus"]["one-block"] | {"units": study["articles"]}
        return [Estimate.of(f"F1 of {arm} minus one-block", entry, "above")]

    return estimates


def slope(task: str, metric: str) -> Any:
    def estimates(study: Results) -> list[Estimate]:
        found = study["tasks"][task][metric]
        named = {
            f"{metric} for each block": found["slope"],
            f"{metric} minus one block trained on": found["minus"]["one-block"],
        }
        return [
            Estimate.of(said, percent(entry, "value") | {"units": found["articles"]}, "above")
            for said, entry in named.items()
        ]

    return estimates


def best(task: str, metric: str) -> Any:
    def caveat(study: Results) -> str:
        found = study["tasks"][task][metric]
        return f"at best {max(entry['value'] for entry in found['by_depth']):.1%} of {found['questions']} right"

    return caveat


def copying(demo: Results) -> list[Estimate]:
    """The last stage against the first and against what training the first one on gives, over all such cells."""
    found = demo["scores"]["differences"]["extraction"]
    return [
        Estimate.between_seeds(f"last stage minus {against}", [100 * value for value in entry["by_seed"]], "above")
        for against, entry in found.items()
    ]


def mmlu_by_depth(real: Results) -> list[Estimate]:
    rows = [row for row in real["trends"] if row["name"] == "mmlu"]
    return [
        Estimate.of(
            f"{row['model']} for each block", percent(row, "value") | {"units": real["provenance"]["limit"]}, "above"
        )
        for row in rows
    ]


def benchmarks(real: Results) -> list[Estimate]:
    return [
        Estimate.of(f"{row['name']} minus {row['first']}", row | {"units": real["provenance"]["limit"]}, "above")
        for row in real["comparisons"]
        if row["kind"] == "score" and row["second"] == "merged (mean)" and re.search("mmlu|squad", row["name"])
    ]


def merged(group: str, *texts: str) -> Any:
    """The mean of a set's logits against its best member."""

    def estimates(study: Results) -> list[Estimate]:
        return [
            Estimate.of(
                f"{text}: {group} minus its best", study["losses"][text][f"{group}/mean"]["minus_best"], "below"
            )
            for text in texts
        ]

    return estimates


def in_demo(text: str) -> Any:
    def estimates(demo: Results) -> list[Estimate]:
        return [
            Estimate.between_seeds(f"{text}: merged minus {row['expert']}", row["by_seed"], "below")
            for row in demo["merged"]
            if (row["rule"], row["text"]) == ("merged (mean)", text)
        ]

    return estimates


def against_trained(kind: str) -> Any:
    """A frozen kind of vectors against a trained table; the limit is what may be lost."""

    def estimates(study: Results) -> list[Estimate]:
        base = study["kinds"]["trainable"]["nats_per_character"]
        return [
            Estimate.of(row["language"], row, "below", round(MARGIN * base[row["language"]], 3))
            for row in study["comparisons"]
            if (row["kind"], row["baseline"]) == (kind, "trainable")
        ]

    return estimates


BASES = {"en": "english", "ru": "russian"}


def change(text: str, first: str, second: str, margin: bool = True) -> Any:
    """A model of the forgetting study minus another one on a text; with ``margin`` so much may be lost."""

    def estimates(study: Results) -> list[Estimate]:
        limit = round(MARGIN * study["losses"][text][BASES[text]]["loss"], 3) if margin else 0.0
        entry = difference(study, text, first, second)
        return [Estimate.of(f"{text}: {second} minus {first}", entry, "below", limit)]

    return estimates


def kept(model: str) -> Any:
    """Both languages under a merged model against the expert that knows each."""

    def estimates(study: Results) -> list[Estimate]:
        return [each for text, base in BASES.items() for each in change(text, base, model)(study)]

    return estimates


def with_first_stage(study: Results) -> list[Estimate]:
    model = "english+grown/evidence 16"
    return change("en", "english", model)(study) + change("ru", "grown", model)(study)


SATURATED = "Where one block has nearly stopped learning,"
MEAN = "The mean of the logits beats each of its experts:"
MATCH = "Frozen vectors match a trained table:"

PUBLISHED = (
    Claim(
        "The loss falls with every block that is stacked on frozen ones", "growth-study", steps, NATS,
        "each new block: a spike of the loss, then fast convergence; no figure", GROWING,
        "a deeper stage has also read more tokens: what one block trained on does with them is a question below",
    ),
    Claim(
        "At equal tokens, training all blocks at once ends better", "growth-study",
        growth("newest-carried", "joint", "below"), NATS,
        "a clear cost in final perplexity; no figure", f"{GROWING} v3",
    ),
    Claim(
        "Answering from a text appears with depth: short-answer SQuAD, the published protocol", "squad-by-depth",
        slope("paper_squad", "hit"), POINTS, by_depth("SQuAD", SQUAD_BY_DEPTH), GROWING, best("paper_squad", "hit"),
    ),
    Claim(
        "MMLU rises with depth", "tiny-trilingual", mmlu_by_depth, POINTS,
        f"{by_depth('MMLU', MMLU_BY_DEPTH)}; chance 25", GROWING,
        "models of this size answer by chance, so the order of their scores means nothing",
    ),
    Claim(
        f"{MEAN} benchmarks", "tiny-trilingual", benchmarks, "share right",
        "MMLU best 23.44 (experts 22.29, 19.42), max 22.37 (23.58, 24.72), nemo 8.99 (8.80, 6.62), chance 25; "
        "SQuAD best 19.73 (14.84, 15.12)", f"{GROWING}, {CARDS}",
        "the published merged models may have been trained on",
    ),
    Claim(
        f"{MATCH} the published pictures of glyphs", "substrate-study", against_trained("published"),
        f"{NATS}, frozen minus trained", "MMLU frozen 22.29, trained 11.37 (ru); 19.4, 14.0 (zh)",
        f"{SEMANTICS}, {CARDS}",
    ),
    Claim(
        f"{MATCH} a 16-bit code of the token id", "substrate-study", against_trained("binary"),
        f"{NATS}, frozen minus trained",
        f"perplexity {PERPLEXITY[0]} frozen, {PERPLEXITY[1]} trained ({math.log(PERPLEXITY[0] / PERPLEXITY[1]):+.3f} "
        "nats a token; three seeds, 17B tokens, 32 layers)", MINIMAL,
    ),
    Claim(
        "Merging forgets nothing: the mean of the logits", "forgetting-study", kept("english+russian/mean"), NATS,
        '"without catastrophic forgetting"; BLEU into English falls', GROWING,
    ),
)  # fmt: skip

QUESTIONS = (
    Claim(
        "Growing ends better than one block that is trained on with the same tokens", "growth-study",
        growth("one-block", "newest-carried", "below"), NATS,
    ),
    Claim(
        "The same with the topmost two blocks training", "growth-study", growth("one-block", "top-two", "below"), NATS,
        caveat="for 1.5 times the FLOPs; run again on another machine -0.009 (seeds -0.023 to +0.006): growth-rivals",
    ),
    Claim(
        "It ends better than two blocks that train on two random ones, which stay as drawn", "growth-rivals",
        growth("full-depth-two", "top-two", "below"), NATS, caveat="for 0.83 of its FLOPs",
    ),
    Claim(
        f"{SATURATED} growing ends better than that block trained on with the same tokens", "growth-saturated",
        growth("one-block", "newest-carried", "below"), NATS,
    ),
    Claim(
        f"{SATURATED} growing ends better than that block trained on with twice the tokens", "growth-saturated",
        growth("newest-carried", "one-block-double", "above"), NATS, caveat="for 0.57 of its FLOPs",
    ),
    Claim(
        f"{SATURATED} growing with its topmost two training ends better than two blocks at once", "growth-saturated",
        growth("two-blocks", "top-two", "below"), NATS,
    ),
    Claim(
        f"{SATURATED} growing with its topmost two training ends within 0.05 of all blocks at once", "growth-saturated",
        growth("joint", "top-two", "below", 0.05), NATS,
    ),
    Claim(
        "At equal compute, growing ends better than training all blocks at once", "growth-study",
        growth("newest-carried", "joint-compute", "above"), NATS, caveat="far from convergence",
    ),
    Claim(
        "Answering from a text appears with depth: SQuAD v1.1 as completion", "squad-by-depth",
        slope("fg_squad", "exact_match"), POINTS, caveat=best("fg_squad", "exact_match"),
    ),
    Claim(
        "Answering from a text appears with depth: a span head fine-tuned on a grown model", "squad-heads",
        heads("newest-carried"), POINTS, caveat="random weights have two points less than any model",
    ),
    Claim(
        "Answering from a text appears with depth: the answer of a SQuAD question among ten spans, grown against one "
        "block trained on", "emergence-study", ranks("newest-carried"), "other spans ahead of the answer, of nine",
    ),
    Claim(
        "The same with blocks that train together", "emergence-study", ranks("two-blocks", "joint"),
        "other spans ahead of the answer, of nine", caveat="for more FLOPs and memory",
    ),
    Claim(
        "Answering from a text appears with depth: copying a name out of a note (synthetic)", "demo", copying,
        f"{POINTS}, mean of both experts and both languages of notes", caveat="experts and notes differ much",
    ),
    Claim(f"{MEAN} text that only one knows", "composition-study", merged("three", "en", "ru", "zh"), NATS),
    Claim(f"{MEAN} text that all know", "composition-study", merged("twins", "en"), NATS),
    Claim(f"{MEAN} text that all know (synthetic)", "demo", in_demo("en"), NATS),
    Claim(f"{MEAN} a mixture of all languages", "composition-study", merged("three", "mixed"), NATS),
    Claim(f"{MEAN} a mixture of all languages (synthetic)", "demo", in_demo("mixed"), NATS),
    Claim(
        f"{MATCH} whitened pictures, the default", "substrate-study", against_trained("grid-whitened"),
        f"{NATS}, frozen minus trained",
    ),
    Claim(
        f"{MATCH} random bits, as long as whitened pictures", "substrate-study", against_trained("random-long"),
        f"{NATS}, frozen minus trained",
    ),
    Claim(
        "After growing on a second language, the deepest stage keeps the first", "forgetting-study",
        change("en", "english", "grown"), NATS,
        caveat="the frozen blocks are as before; what is stacked on them, and the head, learnt the other language",
    ),
    Claim(
        "After growing with half of the tokens from the first language, the deepest stage keeps it", "forgetting-study",
        change("en", "english", "grown-replay"), NATS,
        caveat="the first language is read on, so it may be learnt further",
    ),
    Claim(
        "Growing forgets less than training everything on", "forgetting-study",
        change("en", "tuned", "grown", margin=False), NATS,
    ),
    Claim(
        "Growing learns the second language as well as training everything on", "forgetting-study",
        change("ru", "tuned", "grown"), NATS,
    ),
    Claim("Merging forgets nothing: `posterior`", "forgetting-study", kept("english+russian/posterior"), NATS),
    Claim("Merging forgets nothing: `evidence`", "forgetting-study", kept("english+russian/evidence 16"), NATS),
    Claim(
        "A grown model merged with its own first stage forgets nothing: `evidence`", "forgetting-study",
        with_first_stage, NATS,
    ),
)  # fmt: skip

GUARANTEES = (
    Guarantee(
        "What trains at a time does not grow with depth: the newest blocks, the last norm and the head",
        "tests/model/test_parameter_counts.py", "published: 105.0M of 247.6M parameters in the last of three stages",
    ),
    Guarantee("A stage before is still in the folder and loads, bit for bit", "tests/checkpoint/test_stages.py"),
)  # fmt: skip
