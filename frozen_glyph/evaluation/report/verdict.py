"""The answer that a report begins with: one line each of losses, growth and scores, read off its own numbers."""

from collections.abc import Sequence
from pathlib import Path

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.schema import Comparison, Loss, Report, Trend
from frozen_glyph.evaluation.report.summarise import ALL_TEXTS
from frozen_glyph.evaluation.report.words import (
    above_chance,
    estimate_text,
    has_interval,
    is_number,
    oriented,
    told_apart,
    unique,
)


def verdict_in(folder: Path) -> list[str]:
    """The answer of the report that was written into ``folder``."""
    return verdict(shown(read_json(folder / "report.json")))


def verdict(report: Report) -> list[str]:
    """At most three lines, each of what was measured: which model has the lowest loss, what depth does, what is above
    chance. ``report`` has labels in place of identities."""
    return [line for line in (_losses(report), _growth(report), _scores(report)) if line]


def _losses(report: Report) -> str:
    losses = [loss for loss in report.get("losses", []) if is_number(loss)]
    texts = unique(loss["text"] for loss in losses)
    if not texts:
        return ""
    text = ALL_TEXTS if ALL_TEXTS in texts else texts[0]
    ranked = sorted((loss for loss in losses if loss["text"] == text), key=lambda loss: loss["value"])
    best = ranked[0]
    line = f"Lowest loss on {text}: {best['model']}, {estimate_text(best, False)} nats per character"
    rival = _rival(report, ranked)
    return f"{line}; {rival}." if rival else f"{line}."


def _rival(report: Report, ranked: Sequence[Loss]) -> str:
    """How far the next model is, and whether that can be told."""
    if len(ranked) < 2:
        return ""
    best, following = ranked[:2]
    merged, others = oriented(report)
    pair = {best["model"], following["model"]}
    for row in [*merged, *others]:
        if row["kind"] == "loss" and row["name"] == best["text"] and {row["first"], row["second"]} == pair:
            told = "told apart" if told_apart(row) else "not told apart"
            return f"{following['model']} has {_more(row)} more, {told}"
    return f"{following['model']} has {following['value']:.3f}"


def _more(row: Comparison) -> str:
    """The size of a difference, and its interval."""
    turn = -1 if row["difference"] < 0 else 1
    size = f"{turn * row['difference']:.3f}"
    if not has_interval(row):
        return size
    low, high = sorted((turn * row["low"], turn * row["high"]))
    return f"{size} [{low:.3f}, {high:.3f}]"


def _growth(report: Report) -> str:
    trends = [trend for trend in report.get("trends", []) if trend["kind"] == "loss"]
    if not trends:
        return ""
    lines = []
    for model in unique(trend["model"] for trend in trends):
        own = [trend for trend in trends if trend["model"] == model]
        lines.append(f"{model}'s loss {_depth(own)}")
    return f"With depth {'; '.join(lines)}."


def _depth(trends: Sequence[Trend]) -> str:
    """What one more block does to the losses of a model."""
    told = [trend for trend in trends if told_apart(trend)]
    parts = [
        f"{word} on {', '.join(names)}"
        for word, names in (
            ("falls", [trend["name"] for trend in told if trend["value"] < 0]),
            ("rises", [trend["name"] for trend in told if trend["value"] > 0]),
            ("shows no trend", [trend["name"] for trend in trends if trend not in told]),
        )
        if names
    ]
    return " and ".join(parts)


def _scores(report: Report) -> str:
    scores = [score for score in report.get("scores", []) if score["chance"] is not None and is_number(score)]
    if not scores:
        return ""
    above = [score for score in scores if above_chance(score, score["chance"])]
    read = [score for score in above if score["low"] > max(score.get("baselines", {}).values(), default=0.0)]
    line = f"Above chance for certain: {len(above)} of {len(scores)} scores"
    if len(read) < len(above):
        line += f", {len(read)} of them above every answer that needs no question"
    return f"{line}."
