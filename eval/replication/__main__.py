"""What the papers claim and what we ask, beside what was measured here, with verdicts computed from the numbers.

    python -m eval.replication

reads eval/results/*.json and writes eval/replication.md and eval/replication.json. Claims, questions and guarantees
stand in claims.py, how verdicts come about in rules.py.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from eval.replication.claims import GUARANTEES, PUBLISHED, QUESTIONS
from eval.replication.rules import MARGIN, Claim, Estimate, Row, Verdict, judged
from eval.studies.common.losses import over_seeds
from eval.studies.common.tables import signed, table, write_report
from frozen_glyph.checkpoint.files import read_json

EVAL = Path(__file__).parents[1]
LISTS = {
    "Published claims": (
        PUBLISHED,
        "What a paper claims, with its figure. Our models have about a hundredth of the published parameters and less "
        "than a thousandth of the tokens: a verdict speaks of this scale alone.",
    ),
    "Our questions": (QUESTIONS, "No paper claims these; the rule is the same."),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=EVAL / "results", help="folder of results files")
    parser.add_argument("--out", type=Path, default=EVAL / "replication", help="report, without suffix")
    arguments = parser.parse_args()
    lists = all_rows(arguments.results)
    write_report(arguments.out, as_json(lists), as_markdown(lists))


def all_rows(folder: Path) -> dict[str, list[Row]]:
    """The rows of each list with what the results files of ``folder`` say of them."""

    def row_of(claim: Claim) -> Row:
        path = folder / f"{claim.results}.json"
        if not path.exists():
            return Row(claim, None)
        found = read_json(path)
        caveat = claim.caveat(found) if callable(claim.caveat) else claim.caveat
        return Row(claim, claim.estimates(found) or None, caveat)

    return {title: judged([row_of(claim) for claim in claims]) for title, (claims, _) in LISTS.items()}


def as_json(lists: dict[str, list[Row]]) -> dict[str, Any]:
    def entry(row: Row) -> dict[str, Any]:
        said = {name: getattr(row.claim, name) for name in ("claim", "results", "unit", "published", "source")}
        estimates = [asdict(each) | {"p_value": each.p_value, "claimed": each.claimed} for each in row.estimates or []]
        found = {"caveat": row.caveat, "adjusted_p": row.adjusted_p, "verdict": row.verdict, "why": row.why}
        return said | {"estimates": estimates} | found

    rows = {title: [entry(row) for row in rows] for title, rows in lists.items()}
    return {"margin": MARGIN, **rows, "Guarantees": [asdict(each) for each in GUARANTEES]}


def as_markdown(lists: dict[str, list[Row]]) -> str:
    """A table for each list, with the rules above them."""
    lines = [
        "# Claims, questions, guarantees",
        "",
        "Written by `python -m eval.replication` from the files of [results](results); no verdict is typed in. "
        "Evidence for a side of the limit (0 unless given) is the weaker of two: over held-out documents or questions, "
        "and between seeds (initial weights and order; Student's test). A row with several estimates is worth its "
        "weakest one. p-values are corrected for the number of rows of a list (Holm). A row **holds** when its "
        "adjusted p is below 0.05 and every estimate lies on the claimed side, **does not hold** when it is and every "
        "estimate lies on the other side, and else **cannot be told at this scale**. To match, to keep and to forget "
        f"nothing mean: worse by less than {MARGIN:.0%} of the loss. Losses: below zero is better.",
        "",
    ]
    for title, rows in lists.items():
        lines += [f"## {title}", "", LISTS[title][1], "", tally(rows), "", *table_of(rows)]
    lines += [
        "## Guarantees",
        "",
        "They hold by construction and are tested; they could not have come out otherwise, so they have no verdict.",
        "",
        *table(
            ["guarantee", "tested in", "beside it"],
            [[each.guarantee, f"`{each.test}`", each.measured or "-"] for each in GUARANTEES],
        ),
    ]
    return "\n".join(lines)


def tally(rows: Sequence[Row]) -> str:
    verdicts = [row.verdict for row in rows]
    return "; ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in get_args(Verdict)) + "."


def table_of(rows: Sequence[Row]) -> list[str]:
    """Published figures have columns only where some row has one."""
    published = any(row.claim.published for row in rows)
    cells = [
        [
            row.claim.claim,
            *([f"{row.claim.published} ({row.claim.source})"] if published else []),
            measured(row),
            f"**{row.verdict}**",
            "; ".join(filter(None, (row.why, row.caveat))),
        ]
        for row in rows
    ]
    return table(["claim", *(["published"] if published else []), "measured here", "verdict", "why"], cells)


def measured(row: Row) -> str:
    """The estimates with their intervals, one a line, their unit and where they come from."""
    name = row.claim.results
    source = f"{name} (no results)" if row.estimates is None else f"[{name}](results/{name}.md)"
    lines = [estimate_line(estimate) for estimate in row.estimates or []]
    return "<br>".join([*lines, f"{row.claim.unit}: {source}"])


def estimate_line(estimate: Estimate) -> str:
    entry = {"difference": estimate.value, "low": estimate.low, "high": estimate.high}
    limit = f", limit {estimate.limit:+.3f}" if estimate.limit else ""
    return f"{estimate.name} {signed(entry | over_seeds(estimate.by_seed))}{limit}"


if __name__ == "__main__":
    main()
