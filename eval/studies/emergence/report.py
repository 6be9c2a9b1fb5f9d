"""The report of the emergence study: ranks of the answers by arm and stage, against one block and chance."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from eval.studies.emergence.questions import BASELINES, CHANCE, OTHERS, Choice, rank_of
from eval.studies.emergence.runs import CONTROL
from eval.studies.growth.runs import ARMS

MEASURES = {
    "rank": "others ahead of the answer",
    "first": "answer first, percent",
    "nats": "nats a token of the answer",
}


def measured(ranks: Sequence[float], nats: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """By question what ``MEASURES`` names; a draw for the first place counts as its share."""
    found = {"rank": np.array(ranks), "first": 100 * np.clip(1 - np.array(ranks), 0, 1)}
    return found if nats is None else found | {"nats": np.array(nats)}


def summarise(
    results: Results, scale: Any, arms: Sequence[str], seeds: Sequence[int], asked: Sequence[Choice]
) -> dict[str, Any]:
    """Of each finished arm and stage every measure, and minus ``CONTROL`` after as many tokens; of the last stages
    each pair's differences of the mean rank."""
    runs = finished(results, arms, scale, seeds)
    if CONTROL not in runs:
        raise SystemExit(f"{CONTROL!r} has not finished every seed; run the study first")
    articles = [choice.article for choice in asked]
    text = {"characters": np.ones(len(articles)), "documents": articles}

    def values(arm: str, stage: int, measure: str) -> np.ndarray:
        """Of each question [seeds, questions]."""
        stages = [run["stages"][stage] for run in runs[arm]]
        return np.array([measured(entry["ranks"], entry["nats"])[measure] for entry in stages])

    def row(arm: str, stage: int) -> dict[str, Any]:
        done = runs[arm][0]["stages"]
        beside = stage if len(done) > 1 else -1
        return {
            "arm": arm,
            "blocks": done[stage]["blocks"],
            "tokens": sum(entry["tokens"] for entry in done[: stage + 1]),
            **{measure: loss_of(values(arm, stage, measure), text) for measure in MEASURES},
            "minus_control": {
                measure: difference_of(values(CONTROL, beside, measure), values(arm, stage, measure), text)
                for measure in MEASURES
            }
            if arm != CONTROL
            else None,
        }

    baselines = {
        name: measured([rank_of([cost(choice, span) for span in choice.spans]) for choice in asked])
        for name, cost in BASELINES.items()
    }
    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "questions": len(articles),
        "articles": len(set(articles)),
        "rates": rates_line(results, arms, scale, seeds),
        "arms": {arm: [row(arm, stage) for stage in range(len(found[0]["stages"]))] for arm, found in runs.items()},
        "minus": {
            arm: {base: difference_of(values(base, -1, "rank"), values(arm, -1, "rank"), text) for base in runs}
            for arm in runs
        },
        "flops": {arm: found[0]["flops"] for arm, found in runs.items()},
        "baselines": {
            name: {measure: float(each.mean()) for measure, each in found.items()} for name, found in baselines.items()
        },
        "cpu_seconds": sum(run["cpu_seconds"] for run in results.values()),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as two tables, with the protocol above them."""
    scale, arms = report["scale"], report["arms"]

    def difference(entry: dict[str, Any] | None, measure: str) -> str:
        return "-" if entry is None else signed(entry[measure], 2, seeds=True)

    rows = [
        [
            arm,
            str(row["blocks"]),
            f"{row['tokens']:,}",
            *(f"{loss_cell(row[measure], 2)}" for measure in MEASURES),
            *(difference(row["minus_control"], measure) for measure in MEASURES),
        ]
        for arm, stages in arms.items()
        for row in stages
    ]
    rows += [
        [name, "-", "-", f"{own['rank']:.2f}", f"{own['first']:.2f}", *"----"]
        for name, own in report["baselines"].items()
    ]
    return "\n".join(
        [
            "# Does answering from a text appear with depth?",
            "",
            f"{scale['hidden_size']} wide, {scale['stages']} blocks, {scale['vocab_size']} tokens, context "
            f"{scale['context_length']}; {scale['stages'] * scale['stage_tokens']:,} tokens in batches of "
            f"{scale['batch_tokens']:,}, half of them English prose and Wikipedia, half SQuAD's training questions as "
            f"completion; {len(report['seeds'])} seeds. Asked: {report['questions']} questions of "
            f"{report['articles']} articles of SQuAD's development set, each with {scale['excerpt']} characters around "
            f"its answer. The answer is ranked among {OTHERS} other spans of that context with as many words of the "
            "same kind (number, name, long, short), by the mean of the nats of its tokens. By chance "
            f"{OTHERS / 2:g} others are ahead and {100 * CHANCE:g}% of answers are first; rankings that read no "
            f"question stand below. {intervals_line(report).replace('documents', 'articles')} {report['rates']}",
            "",
            *(f"* `{arm}`: {ARMS[arm].about}" for arm in arms),
            "",
            *table(
                ["arm", "blocks", "tokens", *MEASURES.values(), *(f"{m} minus `{CONTROL}`" for m in MEASURES)], rows
            ),
            f"`{CONTROL}` beside each stage has read as many tokens.",
            "",
            "## Others ahead of the answer after the last stage, one arm minus another",
            "",
            *table(
                ["arm", *(f"minus `{base}`" for base in arms), "TFLOP"],
                [
                    [
                        arm,
                        *("-" if base == arm else signed(report["minus"][arm][base], 2) for base in arms),
                        f"{report['flops'][arm] / 1e12:.2f}",
                    ]
                    for arm in arms
                ],
            ),
            f"{report['cpu_seconds']:.0f} core-seconds. {circumstances_line(report)}",
            "",
        ]
    )
