"""Arms of a study: each at the best of its own learning rates, all at the same seeds, none reported before it is done.

A job is (arm, rate, seed). Every rate of ``RATES`` runs at seed 0, and one more where the best lies at an end; the one
with the lowest ``development`` loss, which a run's result holds, serves the other seeds. What is reported is measured
on another text.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.studies.common.jobs import Job, Results, read_results
from eval.studies.common.scale import Scale

RATES = (0.5, 1.0, 2.0)  # times the learning rate of the scale

Phase = Callable[[Results], Sequence[Job]]


def rates_of(scale: Scale) -> list[float]:
    return [factor * scale.learning_rate for factor in RATES]


def arm_phases(arms: Sequence[str], scale: Scale, seeds: Sequence[int]) -> list[Sequence[Job] | Phase]:
    """All trainings of arms, phase by phase: their rates, one beyond an end where the best lies there, all seeds."""
    return [rate_jobs(arms, scale), beyond_jobs(arms, scale), seed_jobs(arms, scale, seeds)]


def rate_jobs(arms: Sequence[str], scale: Scale) -> list[Job]:
    """Every arm at every rate, at seed 0."""
    return [(arm, rate, 0) for arm in arms for rate in rates_of(scale)]


def beyond_jobs(arms: Sequence[str], scale: Scale) -> Phase:
    """Every arm whose best rate lies at an end of those tried: at one rate beyond that end, at seed 0."""

    def jobs(results: Results) -> list[Job]:
        lowest, *_, highest = rates_of(scale)
        beyond = {lowest: lowest / 2, highest: highest * 2}
        chosen = chosen_rates(results, arms, scale)
        return [(arm, beyond[rate], 0) for arm, rate in chosen.items() if rate in beyond]

    return jobs


def chosen_rates(results: Results, arms: Sequence[str], scale: Scale) -> dict[str, float]:
    """The best rate of each arm that has tried them all, those beyond them included where ``results`` have any."""
    chosen = {}
    for arm in arms:
        losses = development_losses(results, arm)
        if losses.keys() >= set(rates_of(scale)):
            chosen[arm] = min(losses, key=lambda rate: losses[rate])
    return chosen


def rates_in(work: Path, arms: Sequence[str], scale: Scale) -> dict[str, float]:
    """``chosen_rates`` of the runs in the work folder of a study."""
    results = read_results(work, rate_jobs(arms, scale))
    return chosen_rates(results | read_results(work, beyond_jobs(arms, scale)(results)), arms, scale)


def development_losses(results: Results, arm: str) -> dict[float, float]:
    """By rate, of those that the arm tried at seed 0."""
    tried = {
        job[1]: found for job, found in results.items() if job[0] == arm and job[2] == 0 and "development" in found
    }
    return {rate: found["development"] for rate, found in sorted(tried.items())}


def seed_jobs(arms: Sequence[str], scale: Scale, seeds: Sequence[int]) -> Phase:
    """Every arm at its best rate, at the seeds after the first."""

    def jobs(results: Results) -> list[Job]:
        chosen = chosen_rates(results, arms, scale)
        return [(arm, chosen[arm], seed) for seed in seeds for arm in arms if arm in chosen and seed]

    return jobs


def finished(results: Results, arms: Sequence[str], scale: Scale, seeds: Sequence[int]) -> dict[str, list[Any]]:
    """By arm its results at the chosen rate, seed by seed; an arm that lacks a seed is left out."""
    chosen = chosen_rates(results, arms, scale)
    runs = {arm: [results.get((arm, chosen[arm], seed)) for seed in seeds] for arm in chosen}
    return {arm: found for arm, found in runs.items() if None not in found}


def rates_line(results: Results, arms: Sequence[str], scale: Scale, seeds: Sequence[int]) -> str:
    """Which rate serves which arm, whether it lies at an end of those tried, and which arms are not done."""
    chosen, rates = chosen_rates(results, arms, scale), rates_of(scale)
    tried = {arm: list(development_losses(results, arm)) for arm in chosen}
    said = [
        f"{arm} {rate:g}{' (the end of those tried)' if rate in (tried[arm][0], tried[arm][-1]) else ''}"
        for arm, rate in chosen.items()
    ]
    done = finished(results, arms, scale, seeds)
    line = (
        f"Peak learning rates, the best of {', '.join(f'{rate:g}' for rate in rates)} on the development text at seed "
        f"0: {', '.join(said)}."
    )
    missing = [arm for arm in arms if arm not in done]
    return line + (f" Not finished, so not reported: {', '.join(missing)}." if missing else "")
