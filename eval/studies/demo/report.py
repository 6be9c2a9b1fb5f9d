"""The report of the demo's study: ability and loss of the grown experts against their first stage and their control,
over all cells first, and the merged model against its experts."""

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from eval.studies.common.losses import over_seeds
from eval.studies.common.tables import between_seeds, circumstances_line, table

AGAINST = ("first", "control")  # what the last stage is compared with
PARTS = ("scores", "losses")


def summarise(results: dict[Any, dict[str, Any]], steps: int) -> dict[str, Any]:
    """Of ``scores`` (share right) and ``losses`` (nats per character) the ``cells``, an expert and a task or text each,
    and ``differences`` of the last stage from the first and from the control, by name: the mean over all cells, and
    over those of one kind of question or one text. ``merged``: the merged model minus each expert."""
    if not results:
        raise SystemExit("no seed has finished yet; run the study first")
    runs = list(results.values())
    merged: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for row in run["merged"]:
            merged.setdefault((row["rule"], row["text"], row["expert"]), []).append(row["difference"])
    return {
        "note": runs[0]["note"],
        "steps": steps,
        "seeds": [seed for _, seed in results],
        "flops": runs[0]["flops"],
        **{part: {"cells": list(cells_over(runs, part)), "differences": differences(runs, part)} for part in PARTS},
        "merged": [
            {"rule": rule, "text": text, "expert": expert, **mean_over_seeds(values)}
            for (rule, text, expert), values in merged.items()
        ],
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
    }


def mean_over_seeds(by_seed: list[float]) -> dict[str, Any]:
    return {"difference": fmean(by_seed)} | over_seeds(by_seed)


def kind_of(name: str) -> str:
    """Of a task of one expert the task's kind; a text is its own."""
    return name.partition("_")[0]


def cells_of_run(run: dict[str, Any], part: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for expert, own in run["experts"].items():
        for name, cell in own[part].items():
            yield expert, name, cell


def differences(runs: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Last stage minus ``first`` stage and minus ``control``, the mean over cells of each run, over the runs."""
    kinds = dict.fromkeys(kind_of(name) for _, name, _ in cells_of_run(runs[0], part))
    return {
        kind: {
            against: mean_over_seeds(
                [
                    fmean(
                        cell["grown"][-1] - (cell["control"] if against == "control" else cell["grown"][0])
                        for _, name, cell in cells_of_run(run, part)
                        if kind in ("all cells", kind_of(name))
                    )
                    for run in runs
                ]
            )
            for against in AGAINST
        }
        for kind in ("all cells", *kinds)
    }


def cells_over(runs: list[dict[str, Any]], part: str) -> Iterator[dict[str, Any]]:
    """Every cell with its means over the runs."""
    for expert, name, first in cells_of_run(runs[0], part):
        found = [run["experts"][expert][part][name] for run in runs]
        yield {
            "expert": expert,
            "name": name,
            **{fact: first[fact] for fact in ("items", "chance") if fact in first},
            "grown": [fmean(stage) for stage in zip(*(cell["grown"] for cell in found), strict=True)],
            "control": fmean(cell["control"] for cell in found),
        }


def signed(entry: dict[str, Any]) -> str:
    by_seed = ", ".join(f"{value:+.3f}" for value in entry["by_seed"])
    return f"{entry['difference']:+.3f} ({between_seeds(entry, 3, '+')}: {by_seed})"


def part_tables(part: dict[str, Any], what: str) -> list[str]:
    """The differences, over all cells first, and the means that they are made of."""
    first = part["cells"][0]
    facts = [fact for fact in ("items", "chance") if fact in first]
    stages = [f"stage {number}" for number in range(1, len(first["grown"]) + 1)]

    def values(cell: dict[str, Any]) -> Iterable[str]:
        yield from (f"{cell[fact]:.3g}" for fact in facts)
        yield from (f"{value:.3f}" for value in [*cell["grown"], cell["control"]])

    return [
        *table(
            [what, "last stage minus first", "last stage minus control"],
            [[name, *(signed(entry[against]) for against in AGAINST)] for name, entry in part["differences"].items()],
        ),
        *table(
            ["expert", "cell", *facts, *stages, "control"],
            [[cell["expert"], cell["name"], *values(cell)] for cell in part["cells"]],
        ),
    ]


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    flops = report["flops"]
    lines = [
        f"# The demo, seeds {', '.join(map(str, report['seeds']))}",
        "",
        f"{report['note']} Each seed has a world, texts and questions of its own, so that one interval, Student's "
        "between seeds (95%, not corrected for the number of rows; in brackets, with the seeds one by one), covers "
        f"text, questions and training alike. {report['steps']} steps a stage. `control`: its first block trained on "
        "for as many tokens at the same rate, with no new block; its training takes "
        f"{flops['one-block'] / flops['grown']:.2f} of the FLOPs. A cell is an expert and a task (or a text) that it "
        "was trained for.",
        "",
        "## Ability (share right; above zero is better)",
        "",
        *part_tables(report["scores"], "questions"),
        "## Held-out loss (nats per character; below zero is better)",
        "",
        *part_tables(report["losses"], "text"),
        "## The merged model minus each expert (nats per character; below zero is better)",
        "",
        *table(
            ["model", "text", "minus", "difference"],
            [[row["rule"], row["text"], f"`{row['expert']}`", signed(row)] for row in report["merged"]],
        ),
        f"{report['cpu_seconds']:.0f} core-seconds. {circumstances_line(report)}",
        "",
    ]
    return "\n".join(lines)
