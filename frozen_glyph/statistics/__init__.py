"""Intervals, paired tests, trends, effect sizes and verdicts for scores and losses; seeded, no model.

All intervals are two-sided at ``confidence`` (95% unless told). A unit is what was drawn independently of the others:
an item, a document, a training run; never a token. Where too few units can tell anything, a p-value is None.
"""

from frozen_glyph.statistics.counts import (
    McNemarResult,
    Verdict,
    binomial_interval,
    cohens_g,
    holm,
    mcnemar_exact,
    share_interval,
    verdict,
)
from frozen_glyph.statistics.means import (
    MIN_RUNS,
    MIN_UNITS,
    Interval,
    PairedDifference,
    TrendResult,
    bootstrap_interval,
    cohens_d,
    linear_trend,
    paired_bootstrap,
    sign_flip_p_value,
    t_interval,
)
from frozen_glyph.statistics.sums import bootstrap_statistic, paired_statistic
from frozen_glyph.statistics.units import Units, automatic_block_length, sums_of_units

__all__ = [
    "MIN_RUNS",
    "MIN_UNITS",
    "Interval",
    "McNemarResult",
    "PairedDifference",
    "TrendResult",
    "Units",
    "Verdict",
    "automatic_block_length",
    "binomial_interval",
    "bootstrap_interval",
    "bootstrap_statistic",
    "cohens_d",
    "cohens_g",
    "holm",
    "linear_trend",
    "mcnemar_exact",
    "paired_bootstrap",
    "paired_statistic",
    "share_interval",
    "sign_flip_p_value",
    "sums_of_units",
    "t_interval",
    "verdict",
]
