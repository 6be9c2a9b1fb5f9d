"""When a claim holds: the rule that turns measured differences into a verdict, and says why.

A claim says of each of its estimates on which side of a limit it lies. Evidence that an estimate lies off the limit is
the weaker of two: over held-out text or questions, from the interval that came with it, and between seeds, Student's
test of its values by seed, which covers initial weights and order. A claim with several estimates is worth its weakest
one. The p-values of a list of claims are corrected for their number (Holm). Then, by one rule for both verdicts:

    holds                         adjusted p < 0.05, and every estimate lies on the claimed side
    does not hold                 adjusted p < 0.05, and every estimate lies on the other side
    cannot be told at this scale  else

"Matches", "keeps" and "loses nothing" mean: worse by less than ``MARGIN`` of the loss compared with.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from frozen_glyph.statistics import MIN_RUNS, MIN_UNITS, holm

Verdict = Literal["holds", "does not hold", "cannot be told at this scale"]
Side = Literal["below", "above"]

MARGIN = 0.01
ALPHA = 0.05


def student_p(distance: float, error: float, degrees: int) -> float:
    """Two-sided p-value of a mean that lies ``distance`` standard errors times ``error`` from the limit."""
    from scipy.special import stdtr

    if error == 0:
        return float(distance == 0)
    return float(2 * stdtr(degrees, -abs(distance) / error))


@dataclass(frozen=True)
class Estimate:
    """A measured number, its interval over ``units`` of text, its values by seed; the claim puts it on a side.

    ``units`` None: each seed has text of its own, so that the seeds speak of both.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    units: int | None
    by_seed: Sequence[float]
    side: Side
    limit: float = 0.0

    @classmethod
    def of(cls, name: str, entry: dict[str, Any], side: Side, limit: float = 0.0) -> "Estimate":
        """From an entry of a results file: ``difference`` or ``value``, ``low``, ``high``, ``units``, ``by_seed``."""
        value = entry["difference"] if "difference" in entry else entry["value"]
        by_seed = entry.get("by_seed", [value])
        return cls(name, value, entry["low"], entry["high"], entry.get("units", 0), by_seed, side, limit)

    @classmethod
    def between_seeds(cls, name: str, by_seed: Sequence[float], side: Side) -> "Estimate":
        """From values by seed alone, where each seed has text of its own."""
        return cls(name, statistics.fmean(by_seed), None, None, None, by_seed, side)

    @property
    def claimed(self) -> bool:
        return self.value < self.limit if self.side == "below" else self.value > self.limit

    @property
    def p_over_text(self) -> float | None:
        """From the end of the interval that faces the limit, read as Student's; None: no interval, or too few units."""
        from scipy.special import stdtrit

        if self.units is None or self.low is None or self.high is None or self.units < MIN_UNITS:
            return None
        facing = self.value - self.low if self.value > self.limit else self.high - self.value
        degrees = self.units - 1
        return student_p(self.value - self.limit, facing / float(stdtrit(degrees, 0.975)), degrees)

    @property
    def p_between_seeds(self) -> float | None:
        """None: fewer than ``MIN_RUNS`` seeds."""
        count = len(self.by_seed)
        if count < MIN_RUNS:
            return None
        error = statistics.stdev(self.by_seed) / math.sqrt(count)
        return student_p(statistics.fmean(self.by_seed) - self.limit, error, count - 1)

    @property
    def p_value(self) -> float | None:
        """The weaker evidence of the two; None where one of them is not there."""
        parts = [self.p_between_seeds] + ([] if self.units is None else [self.p_over_text])
        known = [part for part in parts if part is not None]
        return max(known) if len(known) == len(parts) else None

    @property
    def missing(self) -> str:
        """What evidence there is not."""
        if self.p_between_seeds is None:
            return f"{len(self.by_seed)} of at least {MIN_RUNS} seeds"
        return "" if self.units is None or self.p_over_text is not None else "no interval over enough documents"


@dataclass(frozen=True)
class Claim:
    """What is claimed, and how a results file says whether it is so. ``unit`` is that of the estimates.

    ``published`` is the paper's figure or words, and ``source`` the paper; both are empty for a question of our own.
    """

    claim: str
    results: str  # a file in eval/results, without suffix
    estimates: Callable[[dict[str, Any]], list[Estimate]]
    unit: str
    published: str = ""
    source: str = ""
    caveat: str | Callable[[dict[str, Any]], str] = ""


@dataclass(frozen=True)
class Guarantee:
    """What holds by construction and is tested: it has no verdict, for it could not have come out otherwise."""

    guarantee: str
    test: str  # a file of tests/
    measured: str = ""


@dataclass(frozen=True)
class Row:
    """A claim with its estimates; None: the results file is not there."""

    claim: Claim
    estimates: list[Estimate] | None
    caveat: str = ""
    adjusted_p: float | None = None

    @property
    def p_value(self) -> float | None:
        """Of the weakest estimate; None where one of them cannot be told."""
        values = [estimate.p_value for estimate in self.estimates or [] if estimate.p_value is not None]
        return max(values) if values and len(values) == len(self.estimates or []) else None

    @property
    def verdict(self) -> Verdict:
        sides = {estimate.claimed for estimate in self.estimates or []}
        if self.adjusted_p is None or self.adjusted_p >= ALPHA or len(sides) > 1:
            return "cannot be told at this scale"
        return "holds" if sides == {True} else "does not hold"

    @property
    def why(self) -> str:
        """One line: what decides, or what is missing."""
        if self.estimates is None:
            return "results withdrawn or not there yet"
        if missing := {estimate.missing: None for estimate in self.estimates if estimate.missing}:
            return "; ".join(missing)
        if len({estimate.claimed for estimate in self.estimates}) > 1:
            return "its parts lie on both sides"
        assert self.adjusted_p is not None
        return f"adjusted p {'< 0.001' if self.adjusted_p < 0.001 else f'= {self.adjusted_p:.3f}'}"


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows of one list with their p-values corrected for their number."""
    adjusted = holm([row.p_value for row in rows])
    return [Row(row.claim, row.estimates, row.caveat, p) for row, p in zip(rows, adjusted, strict=True)]


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
