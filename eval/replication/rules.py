"""When a claim holds: the rule that turns measured differences into a verdict, and says why.

A claim says of each of its estimates on which side of a limit it lies. An estimate lies *certainly* on a side when two
95% intervals do: the one over held-out text or questions that came with it, and Student's t-interval of its values by
seed, which covers initial weights and order (so there must be at least three seeds). Then:

    holds                         every estimate lies certainly on the claimed side
    does not hold                 at least one lies certainly on the other side
    cannot be told at this scale  neither; also when nothing was measured

"Matches", "keeps" and "loses nothing" mean: worse by less than ``MARGIN`` of the loss compared with.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from frozen_glyph.statistics import MIN_RUNS, t_interval

Verdict = Literal["holds", "does not hold", "cannot be told at this scale"]
Side = Literal["below", "above"]

MARGIN = 0.01
DOUBTS = (f"fewer than {MIN_RUNS} seeds", "open over the text", "open between seeds")


def interval_between(by_seed: Sequence[float]) -> tuple[float, float]:
    """Student's t-interval of the mean of ``by_seed``, endless for fewer than ``MIN_RUNS``."""
    return t_interval(by_seed) if len(by_seed) >= MIN_RUNS else (-math.inf, math.inf)


@dataclass(frozen=True)
class Estimate:
    """A measured number, its 95% interval and its values by seed; the claim puts it on ``side`` of ``limit``."""

    name: str
    value: float
    low: float
    high: float
    by_seed: Sequence[float]
    side: Side
    limit: float = 0.0

    @classmethod
    def of(cls, name: str, entry: dict[str, Any], side: Side, limit: float = 0.0) -> "Estimate":
        """From an entry of a results file: ``difference`` or ``value``, ``low``, ``high``, ``by_seed``."""
        value = entry["difference"] if "difference" in entry else entry["value"]
        return cls(name, value, entry["low"], entry["high"], entry.get("by_seed", [value]), side, limit)

    @classmethod
    def between_seeds(cls, name: str, by_seed: Sequence[float], side: Side) -> "Estimate":
        """From values by seed alone."""
        return cls(name, statistics.fmean(by_seed), *interval_between(by_seed), by_seed, side)

    def certainly(self, side: Side) -> bool:
        values = (self.low, self.high, *interval_between(self.by_seed))
        return all(value < self.limit if side == "below" else value > self.limit for value in values)

    @property
    def claimed(self) -> bool:
        return self.certainly(self.side)

    @property
    def contrary(self) -> bool:
        return self.certainly("above" if self.side == "below" else "below")

    @property
    def doubt(self) -> str:
        """Why nothing is certain about it."""
        few, text, seeds = DOUBTS
        if len(self.by_seed) < MIN_RUNS:
            return few
        return text if self.low <= self.limit <= self.high else seeds


@dataclass(frozen=True)
class Claim:
    """One row: what the papers say, and what was measured here. ``unit`` is that of the estimates.

    ``results`` names a file in eval/results; what is not given is not published, not measured, or not needed.
    """

    claim: str
    estimates: list[Estimate]
    unit: str
    compute: str = ""
    results: str = ""
    published: str = ""
    source: str = ""
    caveat: str = ""

    @property
    def seeds(self) -> int:
        return min((len(estimate.by_seed) for estimate in self.estimates), default=0)

    @property
    def verdict(self) -> Verdict:
        if any(estimate.contrary for estimate in self.estimates):
            return "does not hold"
        if self.estimates and all(estimate.claimed for estimate in self.estimates):
            return "holds"
        return "cannot be told at this scale"

    @property
    def why(self) -> str:
        """One line: the estimates that decide."""
        if not self.estimates:
            return "not measured"
        if contrary := [estimate.name for estimate in self.estimates if estimate.contrary]:
            return f"the contrary is certain: {', '.join(contrary)}"
        doubtful = [estimate for estimate in self.estimates if not estimate.claimed]
        if doubtful:
            names = {doubt: [each.name for each in doubtful if each.doubt == doubt] for doubt in DOUBTS}
            return "; ".join(f"{doubt}: {', '.join(of)}" for doubt, of in names.items() if of)
        return "certain"


def rank_trend(values: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation of ``values`` without ties with their order, and its exact two-sided p-value."""
    count = len(values)

    def correlation(ranks: Sequence[int]) -> float:
        squares = sum((place - rank) ** 2 for place, rank in enumerate(ranks))
        return 1 - 6 * squares / (count * (count**2 - 1))

    order = sorted(values)
    found = correlation([order.index(value) for value in values])
    all_of_them = [abs(correlation(ranks)) for ranks in itertools.permutations(range(count))]
    return found, sum(other >= abs(found) - 1e-12 for other in all_of_them) / len(all_of_them)
