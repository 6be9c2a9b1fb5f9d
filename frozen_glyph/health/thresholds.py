"""What each metric means, its unit, and where a layer stops being healthy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """``low`` and ``high``: values beyond them are flagged. ``complaint`` says what that means."""

    title: str
    unit: str
    complaint: str
    low: float = float("-inf")
    high: float = float("inf")

    def flags(self, value: float | None) -> bool:
        return value is not None and not self.low <= value <= self.high


# The first three are of a block, ``mixing_rank`` of blocks and Linears, the rest of Linears.
METRICS = {
    "move": Metric("move", "of the state's norm", "adds next to nothing to the residual stream", low=1e-3),
    "off_diagonal": Metric("off-diag", "share", "does not mix features", low=0.5),
    "distance": Metric("distance", "of the weights' norm", "is a copy of another block", low=0.05),
    "mixing_rank": Metric("mixing", "directions", "follows one direction of its input", low=1.1),
    "gradient_rank": Metric("grad rank", "directions", "its gradient has one direction", low=1.1),
    "constancy": Metric("constancy", "share", "its gradient does not depend on the input", high=0.999),
    "update_ratio": Metric("update", "of the weights' norm", "its weights do not move, or do not last", 1e-5, 1.0),
    "dead_inputs": Metric("dead", "share", "most of the units that it reads never change", high=0.5),
}


def flags(values: dict[str, float | None]) -> list[str]:
    """Sentences that say which of ``values`` are beyond their thresholds."""
    return [
        f"{metric.complaint} ({metric.title} {values[key]:.3g})"
        for key, metric in METRICS.items()
        if key in values and metric.flags(values[key])
    ]
