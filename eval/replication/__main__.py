"""Each claim of the papers beside what was measured here, with a verdict that is computed from the numbers.

    python -m eval.replication

reads eval/results/*.json and writes eval/replication.md and eval/replication.json. The claims stand in
claims.py, how verdicts come about in rules.py.
"""

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from eval.replication.claims import PARTS
from eval.replication.rules import MARGIN, Claim, Estimate, Verdict, interval_between
from eval.studies.common.tables import table, write_report
from frozen_glyph.checkpoint.files import read_json

EVAL = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=EVAL / "results", help="folder of results files")
    parser.add_argument("--out", type=Path, default=EVAL / "replication", help="report, without suffix")
    arguments = parser.parse_args()
    claims = all_claims(arguments.results)
    write_report(arguments.out, as_json(claims), as_markdown(claims))


def all_claims(folder: Path) -> dict[str, list[Claim]]:
    """The claims of every part with what the results files of ``folder`` say of them."""

    def read(name: str) -> dict[str, Any]:
        path = folder / f"{name}.json"
        if not path.exists():
            raise SystemExit(f"results file {str(path)!r} does not exist; run its study first")
        return read_json(path)

    return {part: claims_of(read) for part, claims_of in PARTS.items()}


def as_json(parts: dict[str, list[Claim]]) -> dict[str, Any]:
    rows = {
        part: [asdict(claim) | {"seeds": claim.seeds, "verdict": claim.verdict, "why": claim.why} for claim in claims]
        for part, claims in parts.items()
    }
    return {"margin": MARGIN, "claims": rows}


def as_markdown(parts: dict[str, list[Claim]]) -> str:
    """One table for each part, with the rules above them."""
    verdicts = [claim.verdict for claims in parts.values() for claim in claims]
    lines = [
        "# The papers' claims at our scale",
        "",
        "Written by `python -m eval.replication` from the files of [results](results); no verdict is typed in. An "
        "estimate is certain when two 95% intervals lie on one side of the limit (0 unless given): the one over "
        "held-out text or questions, printed first, and Student's t-interval between seeds (initial weights and "
        "order). A claim **holds** when each of its estimates is certain on the claimed side, **does not hold** when "
        "at least one is certain on the other, and else **cannot be told at this scale**. To match, to keep and to "
        f"forget nothing mean: worse by less than {MARGIN:.0%} of the loss. Losses: below zero is better. Our models "
        "have about a hundredth of the published parameters and less than a thousandth of the tokens: a verdict speaks "
        "of this scale alone.",
        "",
        "; ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in get_args(Verdict)) + ".",
        "",
    ]
    for part, claims in parts.items():
        lines += [f"## {part}", "", *table_of(claims)]
    return "\n".join(lines)


def table_of(claims: list[Claim]) -> list[str]:
    rows = [
        (
            claim.claim,
            f"{claim.published} ({claim.source})" if claim.source else claim.published,
            measured(claim),
            str(claim.seeds) if claim.estimates else "",
            claim.compute,
            f"**{claim.verdict}**",
            "; ".join(filter(None, (claim.why, claim.caveat))),
        )
        for claim in claims
    ]
    titles = ("claim", "published", "measured here", "seeds", "compute", "verdict", "why")
    return table(titles, [[cell or "-" for cell in row] for row in rows])


def measured(claim: Claim) -> str:
    """The estimates with their intervals, one a line, their unit and where they come from."""
    lines = [estimate_line(estimate) for estimate in claim.estimates]
    return "<br>".join([*lines, f"{claim.unit}: [{claim.results}](results/{claim.results}.md)"]) if lines else ""


def estimate_line(estimate: Estimate) -> str:
    low, high = interval_between(estimate.by_seed)
    seeds = f"; seeds {low:+.3f} to {high:+.3f}" if low not in (estimate.low, -math.inf) else ""
    limit = f", limit {estimate.limit:+.3f}" if estimate.limit else ""
    return f"{estimate.name} {estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f}{seeds}){limit}"


if __name__ == "__main__":
    main()
